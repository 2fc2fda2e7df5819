"""Traced programs as Triton source: a function for one step, and around it a kernel for each way of running it.

- ``forward`` and ``backward`` without weights: one program for some neurons, whose state stays in registers
  while time passes. AHEAD rows are read before they are needed, so that as many loads are on their way at once.
- the same names with weights: one program for each sample, whose weights stay in registers as well.
- ``forward_tiled`` and ``backward_tiled`` where weights do not fit: one program for a few samples, which visits
  their neurons in tiles at each step. State lies in memory, weights come from the second cache.

Both directions are one form: some rows are read at each step, some values are carried along, some rows are
written. Time runs backward where strides are negative. With weights, what was written first at one step is
multiplied by them and added to what is read first at the next.
"""

from typing import NamedTuple

import torch

from snnlib.engine.emit import Source, lifted
from snnlib.engine.expression import CALLED, INFIX, POWERS, expression, literal
from snnlib.engine.program import Program, Traced, numbers_of

__all__ = ["emit"]

_INFIX = {
    **{operator: words.replace("where(", "tl.where(") for operator, words in INFIX.items()},
    "div": "div({0}, {1})",
    "neg": "F(-1.0) * {0}",  # Triton's own minus is 0 - x, which loses the sign of zero
    "abs": "tl.abs({0})",
    "reciprocal": "div(F(1.0), {0})",
    "maximum": "tl.maximum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    "minimum": "tl.minimum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    "logical_not": "{0} == 0",
    "bitwise_not": "{0} == 0",
    "logical_and": "({0} != 0) & ({1} != 0)",
    "logical_or": "({0} != 0) | ({1} != 0)",
    "sigmoid": "div(F(1.0), F(1.0) + exp(F(-1.0) * {0}))",
    "rsqrt": "div(F(1.0), sqrt({0}))",
    "pow": "power({0}, {1})",
}
_POWERS = {
    **POWERS,
    -0.5: "div(F(1.0), sqrt({0}))",
    -1.0: "div(F(1.0), {0})",
    -1.5: "div(F(1.0), {0} * sqrt({0}))",
    -2.0: "div(F(1.0), {0} * {0})",
}

_HEAD = '''"""Made by snnlib.engine.gpu from the step {name}."""

import triton
import triton.language as tl

from snnlib.engine.tile import {called}


@triton.jit
def F(value):
    return tl.cast(value, tl.{dtype})
'''


_STEP = """

@triton.jit
def _{name}({inputs}):
    <lines>
    return {outputs}
"""

_LANES = """

@triton.jit(do_not_specialize=["steps"])
def {name}({pointers}, size, steps, moves, row, WIDTH: tl.constexpr, AHEAD: tl.constexpr):
    moves = tl.cast(moves, tl.int64)
    row = tl.cast(row, tl.int64)
    lane = tl.arange(0, WIDTH)
    <place>
    <load>
    <begin>
    for first in tl.range(0, whole(steps), AHEAD):
        <ahead>
        for k in tl.static_range(AHEAD):
            on = first + k < steps
            <read>
            {made} = _{name}({inputs})
            <carry>
            <write>
    <end>
"""

_TILED = """

@triton.jit(do_not_specialize=["steps"])
def {name}_tiled(
    {pointers}, samples, size, steps, moves, row,
    SAMPLES: tl.constexpr, TILE: tl.constexpr, DEEP: tl.constexpr,
):
    moves = tl.cast(moves, tl.int64)
    row = tl.cast(row, tl.int64)
    b = tl.program_id(0).to(tl.int64) * SAMPLES + tl.arange(0, SAMPLES)[:, None]
    <load>
    for t in tl.range(0, whole(steps)):
        for start in tl.range(0, whole(size), TILE):
            n = start + tl.arange(0, TILE)[None, :]
            at = b * size + n
            inside = (b < samples) & (n < size)
            <read>
            if t == 0:
                heard = tl.load(heard_ + at, inside, 0.0)
            else:
                heard = dots({heard}_ - row, weights_, b, n, samples, size, SAMPLES, TILE, DEEP)
            {first} += heard
            {made} = _{name}({inputs})
            <write>
        <move>
        tl.debug_barrier()  # all of a row is written before it is read
"""


_SQUARE = [
    "square = inside[:, None] & inside[None, :]",
    "weights = tl.load(weights_ + lane[:, None] * size + lane[None, :], square, 0.0)",
]


class _Loop(NamedTuple):
    """One direction of a step over time; names of arrays.

    Attributes:
        name: of the kernel.
        program: the step.
        read: one row a step.
        carried: one row before the first step and after the last.
        fixed: one row for all steps.
        written: one row a step.
        sums: what is added up over the steps, one row.
    """

    name: str
    program: Program
    read: list[str]
    carried: list[str]
    fixed: list[str]
    written: list[str]
    sums: list[str]

    @property
    def rows(self) -> list[str]:
        return [*self.read, *self.carried, *self.fixed, *self.written, *self.sums]

    @property
    def made(self) -> list[str]:
        """What the step returns, in its order."""
        return [self.written[0], *(f"new_{n}" for n in self.carried), *self.written[1:], *self.sums]


def emit(traced: Traced, name: str, dtype: torch.dtype, recurrent: bool = False) -> Source:
    """Write the kernels of a traced step; arguments as in :func:`snnlib.engine.emit.emit`.

    The numbers are not arguments but one small array, because Triton takes Python's floats for float32.
    """
    forward, forward_numbers = lifted(traced.forward)
    backward, backward_numbers = lifted(traced.backward)
    loops = [_forward(traced._replace(forward=forward))]
    if backward.outputs:
        loops.append(_backward(traced._replace(backward=backward)))
    called = ", ".join(sorted({*CALLED, "div", "dots", "power", "product", "rows", "whole"}))
    text = _HEAD.format(name=name, called=called, dtype=str(dtype).removeprefix("torch."))
    for loop in loops:
        text += _step(loop) + _lanes(loop, recurrent) + (_tiled(loop) if recurrent else "")
    return Source(traced, text, forward_numbers, backward_numbers)


def _forward(traced: Traced) -> _Loop:
    names = traced.forward.inputs
    kept = [f"k{k}" for k in range(len(traced.saved))]
    carried, fixed = ([n for n in names if n.startswith(first)] for first in "sp")
    return _Loop("forward", traced.forward, ["x"], carried, fixed, ["z", *kept], [])


def _backward(traced: Traced) -> _Loop:
    program = traced.backward
    kept = [*(["z"] if traced.uses_output else []), *(f"k{k}" for k in range(len(traced.saved)))]
    carried = [n for n in program.inputs if n.startswith("g") and n != "gz"]
    fixed = [n for n in program.inputs if n.startswith("p")]
    sums = [f"gp{k}" for k in range(len(program.outputs) - 1 - len(carried))]
    return _Loop("backward", program, ["gz", *kept], carried, fixed, ["gx"], sums)


def _step(loop: _Loop) -> str:
    """The program of one time step, of tiles of any shape."""
    lines = [f"{line.name} = {expression(line, _INFIX, _POWERS)}" for line in loop.program.lines]
    outputs = "".join(f"{literal(value)}, " for value in loop.program.outputs).rstrip()
    return _filled(_STEP, loop, {"lines": lines}, outputs=outputs)


def _lanes(loop: _Loop, recurrent: bool) -> str:
    """The kernel that keeps state, and weights where there are any, in registers."""
    strides = {n: "row" if k else "moves" for k, n in enumerate(loop.read)}
    place = ["at = tl.program_id(0).to(tl.int64) * WIDTH + lane", "inside = at < size"]
    begin = [f"{n} = tl.load({n}_ + at, inside, 0.0)" for n in (*loop.carried, *loop.fixed)]
    begin += [f"sum_{n} = tl.zeros([WIDTH], {n}_.dtype.element_ty)" for n in loop.sums]
    begin += [f"next_{n} = rows({n}_, at, inside, {by}, 0, steps, AHEAD)" for n, by in strides.items()]
    ahead = [f"now_{n} = next_{n}" for n in strides]
    for n, by in strides.items():
        ahead += [f"{n}_ += AHEAD * {by}"]
        ahead += [f"next_{n} = rows({n}_, at, inside, {by}, first + AHEAD, steps, AHEAD)"]
    read = [f"{n} = now_{n}[k]" for n in loop.read]
    carry = [f"{n} = tl.where(on, new_{n}, {n})" for n in loop.carried]
    carry += [f"sum_{n} = tl.where(on, sum_{n} + {n}, sum_{n})" for n in loop.sums]
    write = []
    for n in loop.written:
        write += [f"tl.store({n}_ + at, {n}, inside & on)", f"{n}_ += row"]
    if recurrent:
        place = ["at = tl.program_id(0).to(tl.int64) * size + lane", "inside = lane < size", *_SQUARE]
        begin += ["heard = tl.load(heard_ + at, inside, 0.0)"]
        read += [f"{loop.read[0]} += heard"]
        write += [f"heard = product(tl.where(inside, {loop.written[0]}, F(0.0)), weights)"]
    end = [f"tl.store({n}_ + at, {n}, inside)" for n in loop.carried]
    end += [f"tl.store({n}_ + at, sum_{n}, inside)" for n in loop.sums]
    blocks = {"place": place, "begin": begin, "ahead": ahead, "read": read, "carry": carry, "write": write}
    return _filled(_LANES, loop, {**blocks, "end": end}, recurrent)


def _tiled(loop: _Loop) -> str:
    """The kernel that keeps its state in memory, and reads weights at each step."""
    read = [f"{n} = tl.load({n}_ + at, inside, 0.0)" for n in (*loop.read, *loop.carried, *loop.fixed)]
    write = [f"tl.store({n}_ + at, {n}, inside)" for n in loop.written]
    write += [f"tl.store({n}_ + at, new_{n}, inside)" for n in loop.carried]
    write += [f"tl.store({n}_ + at, tl.load({n}_ + at, inside) + {n}, inside)" for n in loop.sums]
    move = [f"{n}_ += {'row' if k else 'moves'}" for k, n in enumerate(loop.read)]
    move += [f"{n}_ += row" for n in loop.written]
    blocks = {"read": read, "write": write, "move": move}
    return _filled(_TILED, loop, blocks, True, heard=loop.written[0], first=loop.read[0])


def _filled(
    template: str, loop: _Loop, blocks: dict[str, list[str]], recurrent: bool = False, **words: str
) -> str:
    """A template with its words, and with lines in the places of its blocks."""
    blocks = blocks | {"load": [f"{n} = tl.load(numbers + {n[1:]})" for n in numbers_of(loop.program)]}
    pointers = [*(f"{n}_" for n in loop.rows), "numbers", *(["heard_", "weights_"] if recurrent else [])]
    words |= {"name": loop.name, "inputs": ", ".join(loop.program.inputs), "pointers": ", ".join(pointers)}
    text = []
    for line in template.format(made=", ".join([*loop.made, ""]).rstrip(), **words).splitlines():
        key = line.strip()
        margin = line.removesuffix(key)
        text += [margin + one for one in blocks[key[1:-1]]] if key.startswith("<") else [line]
    return "\n".join(text) + "\n"
