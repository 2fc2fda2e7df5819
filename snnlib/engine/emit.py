"""Traced programs as Python source that Numba turns into SIMD loops: a module for each step."""

import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

import torch

from snnlib.engine.emit_loops import backward_loop, forward_loop
from snnlib.engine.expression import CALLED, POWERS
from snnlib.engine.program import Line, Program, Traced, Value

__all__ = ["Source", "convolutions", "emit", "lifted", "products"]

_HEAD = '''"""Made by snnlib.engine.cpu from the step {name}."""

from math import {called}

import numpy as np
from numba import njit
from snnlib.engine.elementary import {own}
from snnlib.engine.vector import apart, part, row_part  # {within}
{used}
F = np.{dtype}
ZERO, ONE = F(0.0), F(1.0)
'''

_OWN = {"exp", "expm1", "tanh", "where"}
"""Functions of :mod:`snnlib.engine.elementary`."""
# Numba does not see that a function changed which its cached machine code has taken in: the source names it
_SHARED = """
from snnlib.engine.call import call_with_four, call_with_three
from snnlib.engine.events import append, back, bits_of, packing  # {digest}
from snnlib.engine.product import add, copy
from snnlib.engine.vector import ask_to_read, ask_to_write

pack, unpack = packing({kept}, {read}, marks={marks})
"""
_PRODUCTS_MODULE = '''"""The functions of snnlib.engine.product that loops call by their address."""

from numba import njit

from snnlib.engine import product  # {digest}


@njit(error_model="numpy", nogil=True, _nrt=False)
def multiply(heard, weights, out, active):
    product.multiply(heard, weights, out, active)


@njit(error_model="numpy", nogil=True, _nrt=False)
def push(given, weights, out):
    product.push(given, weights, out)


@njit(error_model="numpy", nogil=True, _nrt=False)
def grow(heard, given, out, active):
    product.grow(heard, given, out, active)
'''
_CONVOLUTIONS_MODULE = '''"""The functions of snnlib.engine.convolve."""

from numba import njit

from snnlib.engine import convolve as module  # {digest}


@njit(error_model="numpy", nogil=True, _nrt=False)
def convolve(x, weights, bias, out, chosen, maps, places, begins, start, stop, pad_y, pad_x, pool):
    module.convolve(x, weights, bias, out, chosen, maps, places, begins, start, stop, pad_y, pad_x, pool)


@njit(error_model="numpy", nogil=True, _nrt=False)
def grow(x, given, chosen, out, padded, places, counts, spots, values, start, stop, pad_y, pad_x, pool):
    module.grow(x, given, chosen, out, padded, places, counts, spots, values, start, stop, pad_y, pad_x, pool)


@njit(error_model="numpy", nogil=True, _nrt=False)
def give_back(given, chosen, maps, start, stop, pool):
    module.give_back(given, chosen, maps, start, stop, pool)
'''


def convolutions() -> str:
    """The module with the functions of :mod:`snnlib.engine.convolve`."""
    return _CONVOLUTIONS_MODULE.format(digest=_digest("convolve.py", "vector.py"))


def products() -> str:
    """The module with the functions of :data:`snnlib.engine.emit_loops.PRODUCTS`."""
    return _PRODUCTS_MODULE.format(digest=_digest("product.py", "strips.py", "vector.py"))


class Source(NamedTuple):
    """A module with ``forward`` and ``backward``, and the numbers that these take as their last arguments."""

    traced: Traced
    text: str
    forward_numbers: tuple[float, ...]
    backward_numbers: tuple[float, ...]


def emit(traced: Traced, name: str, dtype: torch.dtype, recurrent: bool = False) -> Source:
    """Write the two loops of a traced step.

    Parameters:
        traced: the step.
        name: of the step, for who reads the source.
        dtype: float32 or float64.
        recurrent: whether the output of each step returns through weights.
    """
    forward, forward_numbers = lifted(traced.forward)
    backward, backward_numbers = lifted(traced.backward)
    between, between_numbers = lifted(traced.between, first=len(backward_numbers))
    called, own = (", ".join(sorted(names)) for names in (CALLED - _OWN, _OWN))
    digest = _digest("call.py", "events.py", "product.py", "vector.py")
    used = ""
    if recurrent or traced.events:
        kept, read = len(traced.events), len(traced.between.outputs)
        used = _SHARED.format(digest=digest, kept=kept, read=read, marks=not traced.marked)
    number = str(dtype).removeprefix("torch.")
    within = _digest("elementary.py", "vector.py")
    head = _HEAD.format(name=name, called=called, own=own, within=within, used=used, dtype=number)
    bare = traced._replace(forward=forward, backward=backward, between=between)
    behind = backward_loop(bare, recurrent) if backward.outputs else "\n\nbackward = None\n"
    text = head + forward_loop(bare, recurrent) + behind
    return Source(traced, text, forward_numbers, (*backward_numbers, *between_numbers))


@functools.cache
def _digest(*files: str) -> str:
    files = ("emit_loops.py", *files)  # which says how long vectors are
    content = b"".join(Path(__file__).with_name(file).read_bytes() for file in files)
    return hashlib.sha256(content).hexdigest()[:24]


def lifted(program: Program, first: int = 0) -> tuple[Program, tuple[float, ...]]:
    """The program with its numbers as arguments, so that other parameters need no other machine code.

    They are named ``c0, c1, ...``, or with ``first`` from another number on.
    """
    numbers: list[float] = []

    def lift(value: Value) -> Value:
        if isinstance(value, str) or value in (0, 1):
            return value
        numbers.append(float(value))
        return f"c{first + len(numbers) - 1}"

    def lift_line(line: Line) -> Line:
        if line.operator == "pow" and line.arguments[1] in POWERS:
            return line._replace(arguments=(lift(line.arguments[0]), line.arguments[1]))
        return line._replace(arguments=tuple(lift(a) for a in line.arguments))

    lines = tuple(lift_line(line) for line in program.lines)
    outputs = tuple(lift(value) for value in program.outputs)
    names = (f"c{first + k}" for k in range(len(numbers)))
    return Program((*program.inputs, *names), lines, outputs), tuple(numbers)
