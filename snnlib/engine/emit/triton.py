"""Traced programs as Triton source: a function for one step, and around it a kernel for each way of running it.

- ``forward`` and ``backward`` without weights: one program for some neurons, whose state stays in registers
  while time passes. It takes AHEAD steps at a time, and reads rows BLOCKS times as many steps before they are
  needed, so that many loads are on their way at once.
- the same names with weights: one program for each sample, whose weights stay in registers as well.
- ``forward_shared`` and ``backward_shared`` where the weights do not fit into one program: each keeps those of
  some neurons, and takes these through time for a few samples. After each step it waits for the programs of the
  other neurons, whose outputs it reads. With CHUNKS = 0 it keeps none, and is told what its neurons hear.

Both directions are one form: some rows are read at each step, some values are carried along, some rows are
written. Time runs backward where strides are negative. With weights, what was written first at one step is
multiplied by them and added to what is read first at the next.
"""

from typing import NamedTuple

import torch

from snnlib.engine.emit import Source, lifted
from snnlib.engine.emit.expression import CALLED, INFIX, POWERS, expression, literal
from snnlib.engine.emit.template import filled
from snnlib.engine.program import Program, Traced, numbers_of

__all__ = ["emit"]

_INFIX = {
    **{operator: words.replace("where(", "tl.where(") for operator, words in INFIX.items()},
    "div": "div({0}, {1})",
    "neg": "F(-1.0) * {0}",  # up to Triton 3.7 its own minus is 0 - x, which loses the sign of zero
    "abs": "tl.abs({0})",
    "reciprocal": "div(F(1.0), {0})",
    "maximum": "tl.maximum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    "minimum": "tl.minimum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    "logical_not": "{0} == 0",
    "sigmoid": "div(F(1.0), F(1.0) + exp(F(-1.0) * {0}))",
    "rsqrt": "div(F(1.0), sqrt({0}))",
    "pow": "power({0}, {1})",
    "with_last_bit": "with_last_bit({0}, {1})",
    "last_bit": "last_bit({0})",
}
_POWERS = {
    **POWERS,
    -0.5: "div(F(1.0), sqrt({0}))",
    -1.0: "div(F(1.0), {0})",
    -1.5: "div(F(1.0), {0} * sqrt({0}))",
    -2.0: "div(F(1.0), {0} * {0})",
}

# functions of snnlib.engine.tile beside those that are written for operators
_CALLED = {
    *("arrive", "div", "last_bit", "part", "power", "product", "products"),
    *("rows", "rows_of", "wait", "whole", "with_last_bit"),
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

@triton.jit(do_not_specialize=["own", "steps"])
def {name}(
    {pointers}, own, size, steps, moves, row,
    WIDTH: tl.constexpr, AHEAD: tl.constexpr, BLOCKS: tl.constexpr,
):
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

_SHARED = """

@triton.jit(do_not_specialize=["own", "offset", "samples", "first", "last", "steps"])
def {name}_shared(
    {pointers}, meeting_, own, offset, samples, size, first, last, steps, moves, row,
    SAMPLES: tl.constexpr, COLUMNS: tl.constexpr, DEEP: tl.constexpr, CHUNKS: tl.constexpr,
):
    moves = tl.cast(moves, tl.int64)
    row = tl.cast(row, tl.int64)
    group = tl.program_id(1)
    start = offset + group * SAMPLES
    b = start.to(tl.int64) + tl.arange(0, SAMPLES)[:, None]
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    at = b * size + column[None, :]
    inside = (b < samples) & (column < size)[None, :]
    <load>
    weights = rows_of(weights_, column, size, DEEP, CHUNKS)
    <begin>
    for t in tl.range(whole(first), whole(last)):
        if CHUNKS == 0:
            heard = tl.load(heard_ + at, inside, 0.0)
        elif t == 0:
            heard = tl.load(heard_ + at, inside, 0.0)
        else:
            if t > first:
                wait(meeting_ + group * 32, (t - first) * tl.num_programs(0))
            before = {heard}_ - row
            heard = products(before, weights, start, samples, size, SAMPLES, COLUMNS, DEEP)
        <read>
        {made} = _{name}({inputs})
        <carry>
        <write>
        on = t + 1 < last
        if on:
            arrive(meeting_ + group * 32)
        <ahead>
    <end>
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
        carried: one row before the first step and one after the last.
        fixed: one row for all steps.
        written: one row a step.
        sums: what is added up over the steps, one row.
        double: of what is read, what a step reads the next row of, too, and how many rows it has.
        before: of what is written, what has a row before the first step, and what is in it.
    """

    name: str
    program: Program
    read: list[str]
    carried: list[str]
    fixed: list[str]
    written: list[str]
    sums: list[str]
    double: dict[str, str]
    before: dict[str, str]

    @property
    def arrays(self) -> list[str]:
        return [*self.read, *self.given, *self.written, *(f"last_{n}" for n in self.carried), *self.sums]

    @property
    def given(self) -> list[str]:
        return [*self.carried, *self.fixed]

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
    called = ", ".join(sorted({*CALLED, *_CALLED}))
    text = _HEAD.format(name=name, called=called, dtype=str(dtype).removeprefix("torch."))
    for loop in loops:
        text += _step(loop) + _lanes(loop, recurrent) + (_shared(loop) if recurrent else "")
    return Source(text, forward_numbers, backward_numbers)


def _forward(traced: Traced) -> _Loop:
    names = traced.forward.inputs
    kept = [f"k{k}" for k in range(len(traced.saved))]
    carried, fixed = ([n for n in names if n.startswith(first)] for first in "sp")
    before = {}
    if traced.slot is not None:
        state = f"s{traced.slot}"
        before["k0"] = state if traced.uses_output else f"with_last_bit({state}, F(0.0))"
    return _Loop("forward", traced.forward, ["x"], carried, fixed, ["z", *kept], [], {}, before)


def _backward(traced: Traced) -> _Loop:
    program = traced.backward
    kept = [*(["z"] if traced.uses_output else []), *(f"k{k}" for k in range(len(traced.saved)))]
    carried = [n for n in program.inputs if n[0] in "gr" and n != "gz"]
    fixed = [n for n in program.inputs if n.startswith("p")]
    sums = [f"gp{k}" for k in range(len(program.outputs) - 1 - len(carried))]
    double = {} if traced.slot is None else {"k0": "steps + 1"}
    double |= {"z": "steps"} if double and traced.uses_output else {}
    return _Loop("backward", program, ["gz", *kept], carried, fixed, ["gx"], sums, double, {})


def _step(loop: _Loop) -> str:
    """The program of one time step, of tiles of any shape."""
    lines = [f"{line.name} = {expression(line, _INFIX, _POWERS)}" for line in loop.program.lines]
    outputs = "".join(f"{literal(value)}, " for value in loop.program.outputs).rstrip()
    return _filled(_STEP, loop, {"lines": lines}, outputs=outputs)


def _lanes(loop: _Loop, recurrent: bool) -> str:
    """The kernel that keeps state, and weights where there are any, in registers."""
    strides = {n: "row" if k else "moves" for k, n in enumerate(loop.read)}
    place = ["at = tl.program_id(0).to(tl.int64) * WIDTH + lane", "inside = at < size"]
    begin = _given(loop)
    begin += [f"tl.store({n}_ - row + at, {value}, inside)" for n, value in loop.before.items()]
    begin += [f"sum_{n} = tl.zeros([WIDTH], {n}_.dtype.element_ty)" for n in loop.sums]
    count = {n: loop.double.get(n, "steps") for n in strides}
    far = "AHEAD * BLOCKS"
    begin += [f"next_{n} = rows({n}_, at, inside, {by}, 0, {count[n]}, {far})" for n, by in strides.items()]
    begin += [f"{n}_ += {far} * {by}" for n, by in strides.items()]
    ahead = [f"now_{n} = part(next_{n}, 0, AHEAD)" for n in strides]
    for n, by in strides.items():
        far_rows = f"rows({n}_, at, inside, {by}, first + {far}, {count[n]}, AHEAD)"
        ahead += [f"next_{n} = part(next_{n}, AHEAD, {far} - AHEAD) + {far_rows}"]
        ahead += [f"{n}_ += AHEAD * {by}"]
    ahead += [f"now_{n} = now_{n} + next_{n}" for n in loop.double]
    read = [f"{n} = now_{n}[k]" for n in loop.read]
    read += [f"before_{n} = now_{n}[k + 1]" for n in loop.double]
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
    end = [f"tl.store(last_{n}_ + at, {n}, inside)" for n in loop.carried]
    end += [f"tl.store({n}_ + at, sum_{n}, inside)" for n in loop.sums]
    blocks = {"place": place, "begin": begin, "ahead": ahead, "read": read, "carry": carry, "write": write}
    return _filled(_LANES, loop, {**blocks, "end": end}, recurrent)


def _given(loop: _Loop) -> list[str]:
    """Loads what there is before the first step: one number for all, or where ``own`` says so a number each."""
    return [f"{n} = tl.load({n}_ + at * ((own >> {k}) & 1), inside, 0.0)" for k, n in enumerate(loop.given)]


def _shared(loop: _Loop) -> str:
    """The kernel that shares the neurons of a few samples with other programs."""
    strides = {n: "row" if k else "moves" for k, n in enumerate(loop.read)}
    begin = _given(loop)
    begin += [f"tl.store({n}_ - row + at, {v}, inside & (first == 0))" for n, v in loop.before.items()]
    begin += [f"sum_{n} = tl.load({n}_ + at, inside, 0.0)" for n in loop.sums]
    begin += [f"{n}_ += first * {by}" for n, by in strides.items()]
    begin += [f"{n}_ += first * row" for n in loop.written]
    begin += [f"next_{n} = tl.load({n}_ + at, inside & (first < last), 0.0)" for n in strides]
    begin += [f"second_{n} = {_second(loop, n, 'first')}" for n in loop.double]
    read = [f"{n} = next_{n}" for n in strides]
    read += [f"before_{n} = second_{n}" for n in loop.double]
    read += [f"{loop.read[0]} += heard"]
    carry = [f"{n} = new_{n}" for n in loop.carried]
    carry += [f"sum_{n} += {n}" for n in loop.sums]
    write = []
    for n in loop.written:
        write += [f"tl.store({n}_ + at, {n}, inside)", f"{n}_ += row"]
    ahead = []
    for n, by in strides.items():
        ahead += [f"{n}_ += {by}", f"next_{n} = tl.load({n}_ + at, inside & on, 0.0)"]
    ahead += [f"second_{n} = {_second(loop, n, 't + 1')}" for n in loop.double]
    end = [f"tl.store(last_{n}_ + at, {n}, inside)" for n in loop.carried]
    end += [f"tl.store({n}_ + at, sum_{n}, inside)" for n in loop.sums]
    blocks = {"begin": begin, "read": read, "carry": carry, "write": write, "ahead": ahead, "end": end}
    return _filled(_SHARED, loop, blocks, True, heard=loop.written[0])


def _second(loop: _Loop, name: str, step: str) -> str:
    """Loads the row behind that of a step, at which the pointer is; zero behind the last row."""
    return f"tl.load({name}_ + at + row, inside & ({step} + 1 < {loop.double[name]}), 0.0)"


def _filled(
    template: str, loop: _Loop, blocks: dict[str, list[str]], recurrent: bool = False, **words: str
) -> str:
    """A template with its words, and with lines in the places of its blocks."""
    blocks = blocks | {"load": [f"{n} = tl.load(numbers + {n[1:]})" for n in numbers_of(loop.program)]}
    pointers = [*(f"{n}_" for n in loop.arrays), "numbers", *(["heard_", "weights_"] if recurrent else [])]
    words |= {"name": loop.name, "inputs": ", ".join(loop.program.inputs), "pointers": ", ".join(pointers)}
    return filled(template, blocks, made=", ".join([*loop.made, ""]).rstrip(), **words)
