"""Traced programs as Python source that Numba turns into SIMD loops."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from snnlib.engine.trace import Line, Program, Traced, Value

__all__ = ["Source", "emit"]

_INFIX = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "abs": "abs({0})",
    "reciprocal": "F(1.0) / {0}",
    "number": "F(1.0) if {0} else F(0.0)",
    "where": "{1} if {0} else {2}",
    "select_above": "{2} if {0} > {1} else F(0.0)",
    "clamp": "{1} if {0} < {1} else {2} if {0} > {2} else {0}",
    "relu": "F(0.0) if {0} < F(0.0) else {0}",
    # a comparison with NaN is false: both ways around keep NaN, as torch does
    "maximum": "{1} if {0} < {1} or {1} != {1} else {0}",
    "minimum": "{1} if {0} > {1} or {1} != {1} else {0}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "isnan": "{0} != {0}",
    "logical_not": "not {0}",
    "bitwise_not": "not {0}",
    "logical_and": "{0} and {1}",
    "bitwise_and": "{0} and {1}",
    "logical_or": "{0} or {1}",
    "bitwise_or": "{0} or {1}",
    "sign": "(F(1.0) if {0} > F(0.0) else F(0.0)) - (F(1.0) if {0} < F(0.0) else F(0.0))",
    "sigmoid": "F(1.0) / (F(1.0) + exp(-{0}))",
    "sigmoid_backward": "{0} * (F(1.0) - {1}) * {1}",
    "tanh_backward": "{0} * (F(1.0) - {1} * {1})",
    "rsqrt": "F(1.0) / sqrt({0})",
}
_CALLED = {"cos", "exp", "expm1", "floor", "log", "log1p", "sin", "sqrt", "tanh"}
_POWERS = {
    2.0: "{0} * {0}",
    3.0: "{0} * {0} * {0}",
    0.5: "sqrt({0})",
    -0.5: "F(1.0) / sqrt({0})",
    -1.0: "F(1.0) / {0}",
    -2.0: "F(1.0) / ({0} * {0})",
}

_HEAD = '''"""Made by snnlib.engine.cpu from the step {name}."""

from math import {called}

import numpy as np
from numba import njit

F = np.{dtype}
'''


class Source(NamedTuple):
    """A module with ``forward`` and ``backward``, and the numbers that these take as their last arguments."""

    traced: Traced
    text: str
    forward_numbers: tuple[float, ...]
    backward_numbers: tuple[float, ...]


def emit(traced: Traced, name: str, dtype: torch.dtype) -> Source:
    """Write the two loops of a traced step.

    Parameters:
        traced: the step.
        name: of the step, for who reads the source.
        dtype: float32 or float64.
    """
    forward, forward_numbers = _lifted(traced.forward)
    backward, backward_numbers = _lifted(traced.backward)
    called = ", ".join(sorted(_CALLED))
    head = _HEAD.format(name=name, called=called, dtype=str(dtype).removeprefix("torch."))
    lifted = traced._replace(forward=forward, backward=backward)
    behind = _backward_source(lifted) if backward.outputs else "\n\nbackward = None\n"
    text = head + _forward_source(lifted) + behind
    return Source(traced, text, forward_numbers, backward_numbers)


def _lifted(program: Program) -> tuple[Program, tuple[float, ...]]:
    """The program with its numbers as arguments, so that other parameters need no other machine code."""
    numbers: list[float] = []

    def lift(value: Value) -> Value:
        if isinstance(value, str) or value in (0, 1):
            return value
        numbers.append(float(value))
        return f"c{len(numbers) - 1}"

    def lift_line(line: Line) -> Line:
        if line.operator == "pow" and line.arguments[1] in _POWERS:
            return line._replace(arguments=(lift(line.arguments[0]), line.arguments[1]))
        return line._replace(arguments=tuple(lift(a) for a in line.arguments))

    lines = tuple(lift_line(line) for line in program.lines)
    outputs = tuple(lift(value) for value in program.outputs)
    return Program((*program.inputs, *(f"c{k}" for k in range(len(numbers)))), lines, outputs), tuple(numbers)


def _numbers(program: Program) -> list[str]:
    return [name for name in program.inputs if name.startswith("c")]


def _forward_source(traced: Traced) -> str:
    program = traced.forward
    states = [n for n in program.inputs if n.startswith("s")]
    parameters = [n for n in program.inputs if n.startswith("p")]
    kept = [f"k{k}" for k in range(len(traced.saved))]
    written = ["z", *states, *kept]
    body = _body(program, written, dict.fromkeys(program.inputs, ""))
    rows = ["x", *states, *parameters, "z", *kept]
    cut = ["x[t * moves, a:b]", *(f"{n}[a:b]" for n in states + parameters), "z[t, a:b]"]
    cut += [f"{n}[t, a:b]" for n in kept]
    return _loop("forward", rows, body, _numbers(program), "moves, ", "range(z.shape[0])", cut)


def _backward_source(traced: Traced) -> str:
    program = traced.backward
    states = [n for n in program.inputs if n.startswith("g") and n != "gz"]
    parameters = [n for n in program.inputs if n.startswith("p")]
    kept = {name: f"k{k}" for k, name in enumerate(traced.saved)}
    sums = [f"gp{k}" for k in range(len(program.outputs) - 1 - len(states))]
    read = {name: kept.get(name, name) for name in program.inputs}
    body = _body(program, ["gx", *states], read, sums)
    output = ["z"] if traced.uses_output else []
    timed = ["gz", *output, *kept.values(), "gx"]
    rows = [*timed, *states, *parameters, *sums]
    cut = [f"{n}[t, a:b]" for n in timed] + [f"{n}[a:b]" for n in (*states, *parameters, *sums)]
    return _loop("backward", rows, body, _numbers(program), "", "range(gz.shape[0] - 1, -1, -1)", cut)


def _body(program: Program, written: list[str], read: dict[str, str], sums: Sequence[str] = ()) -> list[str]:
    """The program for one neuron; it loads all that it reads first, because states are written in place."""
    used = {a for line in program.lines for a in line.arguments} | set(program.outputs)
    rows = [name for name in program.inputs if name in used and not name.startswith("c")]
    lines = [f"{name} = {read[name] or name}_[j]" for name in rows]
    lines += [f"{line.name} = {_expression(line)}" for line in program.lines]
    for target, value in zip(written, program.outputs, strict=False):
        lines.append(f"{target}_[j] = {_literal(value)}")
    for target, value in zip(sums, program.outputs[len(written) :], strict=True):
        lines.append(f"{target}_[j] += {_literal(value)}")
    return lines


def _loop(
    name: str, rows: list[str], body: list[str], numbers: list[str], extra: str, over: str, cut: list[str]
) -> str:
    inner = "\n".join(f"        {line}" for line in body)
    arguments = ", ".join([*(f"{n}_" for n in rows), *numbers])
    return f"""

@njit(error_model="numpy")
def _{name}({arguments}):
    for j in range({rows[0]}_.shape[0]):
{inner}


@njit(error_model="numpy", nogil=True, cache=True)
def {name}({", ".join(rows)}, {extra}start, stop, block{"".join(f", {n}" for n in numbers)}):
    for a in range(start, stop, block):
        b = min(a + block, stop)
        for t in {over}:
            _{name}({", ".join(cut + numbers)})
"""


def _literal(value: Value) -> str:
    return value if isinstance(value, str) else f"F({float(value)!r})".replace("F(inf)", "F(np.inf)")


def _expression(line: Line) -> str:
    arguments = [_literal(a) for a in line.arguments]
    if line.operator == "pow":
        exponent = line.arguments[1]
        shape = _POWERS.get(exponent) if isinstance(exponent, int | float) else None
        return (shape or "{0} ** {1}").format(*arguments)
    if line.operator in _CALLED:
        return f"{line.operator}({arguments[0]})"
    return _INFIX[line.operator].format(*arguments)
