"""What a traced step is: straight-line programs for one neuron and one time step."""

from collections.abc import Iterable
from math import inf
from typing import Any, NamedTuple

import torch

__all__ = [
    "SHORT_POWERS",
    "Line",
    "Program",
    "Traced",
    "Value",
    "closure",
    "is_short_power",
    "numbers_of",
    "without_backward",
    "without_gradient",
]

Value = str | float | bool
"""The name of what an input or an earlier line gives, or a constant."""


class Line(NamedTuple):
    """``name = operator(*arguments)`` for one neuron and one time step."""

    name: str
    operator: str
    arguments: tuple[Value, ...]


class Program(NamedTuple):
    """Lines of arithmetic between named inputs and outputs."""

    inputs: tuple[str, ...]
    lines: tuple[Line, ...]
    outputs: tuple[Value, ...]


class Traced(NamedTuple):
    """A step as arithmetic.

    Attributes:
        forward: from ``x``, the states ``s0, s1, ...`` and the parameters ``p0, ...`` to the output, the new
            states, and what is saved.
        backward: from what was saved (``k0, k1, ...``, and ``z``, the output itself, which costs nothing), what
            ``between`` gives, the parameters, and the gradients ``gz, g0, g1, ...`` of the output and the new
            states to those of x, the states and the parameters that learn.
        saved: names, in ``forward``, of what one step keeps for the backward pass beside its output.
        bytes: how many of these, the last ones, are bytes of :mod:`snnlib.engine.program.bits`.
        slot: None, or what is saved is one array of :mod:`snnlib.engine.program.slots`, with a row before the
            first step: this one of the states. ``backward`` then has ``k0`` of the step before, too, as
            ``before_k0``, and where it reads ``z``, ``before_z``, zero at the first step.
        retraced: the states of :mod:`snnlib.engine.program.retraced`. ``backward`` has as ``r0``, of the first
            state, its value after the step, and gives that before it, behind the gradients of the states.
        most_steps: how long a sequence may be, so that they are exact enough.
        uses_output: whether the backward program reads ``z``.
        exact: whether it is the adjoint.
        events: names, in ``forward``, of what is kept at events alone: spikes, gates that open.
        between: from that (``e0, e1, ...``) to what the backward program reads of it (``b0, b1, ...``), for
            events alone.
        marked: the number, in ``forward``, that is not 0 where something happens; empty if that is the output.
    """

    forward: Program
    backward: Program
    saved: tuple[str, ...]
    uses_output: bool
    exact: bool = False
    events: tuple[str, ...] = ()
    between: Program = Program((), (), ())
    marked: str = ""
    bytes: int = 0
    slot: int | None = None
    retraced: tuple[int, ...] = ()
    most_steps: float = inf

    def types_of_saved(self, dtype: torch.dtype) -> list[torch.dtype]:
        """Of what is saved, for a step of ``dtype``."""
        return [dtype] * (len(self.saved) - self.bytes) + [torch.uint8] * self.bytes

    @property
    def rows_before(self) -> int:
        """How many rows what is saved has before that of the first step."""
        return int(self.slot is not None)

    @property
    def learned(self) -> int:
        """How many parameters the backward program gives gradients for."""
        gradients = len(self.backward.outputs) - len(self.retraced)
        return gradients - len(self.forward.outputs) + self.kept

    @property
    def kept(self) -> int:
        """How many outputs the forward program has for the backward program."""
        return len(self.saved) + len(self.events) + bool(self.marked)


SHORT_POWERS = {1.0, 2.0, 3.0, 0.5, 1.5, -0.5, -1.0, -1.5, -2.0}
"""Exponents of what a few products or a root give."""


def is_short_power(line: Line) -> bool:
    """Whether it is a power that a few products or a root give."""
    return line.operator == "pow" and line.arguments[1] in SHORT_POWERS


def without_gradient(traced: Traced) -> tuple[int, ...]:
    """Which of the output and the new states have a gradient that reaches nothing, counted from the output."""
    program = traced.backward
    if traced.exact or not program.outputs:
        return ()
    lines = {line.name: line for line in program.lines}
    found = closure(lines, program.outputs, stop=set())
    read = {*program.outputs, *(a for name in found for a in lines[name].arguments)}
    states = len(traced.forward.outputs) - traced.kept - 1
    names = ("gz", *(f"g{k}" for k in range(states)))
    return tuple(k for k, name in enumerate(names) if name not in read)


def without_backward(traced: Traced) -> Traced:
    """The forward program alone, which saves nothing."""
    program = traced.forward
    outputs = program.outputs[: len(program.outputs) - traced.kept]
    kept = closure({line.name: line for line in program.lines}, outputs, stop=set())
    lines = tuple(line for line in program.lines if line.name in kept)
    return Traced(Program(program.inputs, lines, outputs), Program(("gz",), (), ()), (), False)


def numbers_of(program: Program) -> list[str]:
    """The numbers that :func:`snnlib.engine.emit.lifted` made arguments."""
    return [name for name in program.inputs if name.startswith("c")]


def closure(by_name: dict[str, Line], ends: Iterable[Value], stop: set[Any]) -> set[str]:
    """Names of the lines that ``ends`` follow from, not looking past ``stop``."""
    found: set[str] = set()
    todo = [e for e in ends if isinstance(e, str)]
    while todo:
        name = todo.pop()
        if name in found or name in stop or name not in by_name:
            continue
        found.add(name)
        todo += [a for a in by_name[name].arguments if isinstance(a, str)]
    return found
