"""Traced programs as source in the language of :mod:`snnlib.engine.llvm.compiler`: a module for each step."""

from typing import NamedTuple

import torch

from snnlib.engine.emit.expression import CALLED
from snnlib.engine.emit.loops import backward_loop, forward_loop
from snnlib.engine.program import Line, Program, Traced, Value, is_short_power

__all__ = ["Source", "emit", "lifted"]

_HEAD = '''"""Made by snnlib.engine.cpu from the step {name}, for snnlib.engine.llvm.compiler."""

import numpy as np
from snnlib.engine.llvm.builder import lanes
from snnlib.engine.llvm.elementary import {called}
from snnlib.engine.llvm.vector import ask_to_read, ask_to_write, bits_of, fence, put_past
{used}
F = np.{dtype}
REGISTERS, REGISTERS_BACK = {ahead}, {back}
'''
_SHARED = """
from snnlib.engine.llvm.call import call_address
from snnlib.engine.loops.events import append, as_numbers, at_place, back, behind, has_bit, moving, on_stack
from snnlib.engine.loops.product import add, copy
from snnlib.engine.loops.registers import from_registers, pick, placed, to_registers

pack, unpack = moving({kept}, {read})
"""


class Source(NamedTuple):
    """A module with ``forward`` and ``backward``, and the numbers that these take as their last arguments."""

    text: str
    forward_numbers: tuple[float, ...]
    backward_numbers: tuple[float, ...]


def emit(traced: Traced, name: str, dtype: torch.dtype, recurrent: bool = False, past: bool = False) -> Source:
    """Write the two loops of a traced step.

    Parameters:
        traced: the step.
        name: of the step, for who reads the source.
        dtype: float32 or float64.
        recurrent: whether the output of each step returns through weights.
        past: whether what is kept goes past the caches, because it is larger.
    """
    forward, forward_numbers = lifted(traced.forward)
    backward, backward_numbers = lifted(traced.backward)
    between, between_numbers = lifted(traced.between, first=len(backward_numbers))
    used = ""
    if recurrent or traced.events:
        kept, read = len(traced.events), len(traced.between.outputs)
        used = _SHARED.format(kept=kept, read=read)
    number = str(dtype).removeprefix("torch.")
    called = ", ".join(sorted({*CALLED, "where"}))
    ahead, back = (4, 2) if dtype == torch.float32 else (2, 1)  # a vector of float64 fills two by itself
    head = _HEAD.format(name=name, called=called, used=used, dtype=number, ahead=ahead, back=back)
    bare = traced._replace(forward=forward, backward=backward, between=between)
    behind = backward_loop(bare, recurrent) if backward.outputs else "\n\nbackward = None\n"
    text = head + forward_loop(bare, recurrent, past) + behind
    return Source(text, forward_numbers, (*backward_numbers, *between_numbers))


def lifted(program: Program, first: int = 0) -> tuple[Program, tuple[float, ...]]:
    """The program with its numbers as arguments, so that other parameters need no other machine code.

    They are named ``c0, c1, ...``, or with ``first`` from another number on.
    """
    numbers: list[float] = []

    def lift(value: Value) -> Value:
        # of a minus zero in the text Triton makes zero
        if isinstance(value, str) or (value in (0, 1) and str(value) != "-0.0"):
            return value
        numbers.append(float(value))
        return f"c{first + len(numbers) - 1}"

    def lift_line(line: Line) -> Line:
        if is_short_power(line):
            return line._replace(arguments=(lift(line.arguments[0]), line.arguments[1]))
        if line.operator == "sum":  # what is subtracted is not multiplied with -1
            return line._replace(arguments=tuple(a if a == -1 else lift(a) for a in line.arguments))
        return line._replace(arguments=tuple(lift(a) for a in line.arguments))

    lines = tuple(lift_line(line) for line in program.lines)
    outputs = tuple(lift(value) for value in program.outputs)
    names = (f"c{first + k}" for k in range(len(numbers)))
    return Program((*program.inputs, *names), lines, outputs), tuple(numbers)
