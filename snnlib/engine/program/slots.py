"""Two numbers of a spike in the room of one, where as much room is kept for every step.

The adjoint reads a state before a spike and one more number, an input current say, and nothing where there is
no spike. That state is the one after the step before; and if that had a spike too, it is what the reset made of
it, which is known. So one array serves for both: it has the other number at a spike, and everywhere else the
state after the step. Its first row is the state before the first step. What is :mod:`retraced
<snnlib.engine.program.retraced>` needs no room at all.
"""

from math import inf
from typing import NamedTuple

from snnlib.engine.program import Line, Program, Traced, Value
from snnlib.engine.program.arms import known_at
from snnlib.engine.program.bits import CONDITIONS, is_compared
from snnlib.engine.program.cut import cheapest, following, needs, renamed
from snnlib.engine.program.retraced import Retraced, retraced

__all__ = ["slotted"]


class _Slot(NamedTuple):
    """What shares the array.

    Attributes:
        state: name of the state, which is there where there is no spike.
        other: name of the number that is there at a spike.
        mark: the condition of a spike.
        reset: the state after a spike.
        retraced: the states that are found again, by name.
    """

    state: str
    other: str
    mark: str
    reset: Value
    retraced: dict[str, Retraced]


def slotted(
    lines: list[Line],
    names: tuple[str, ...],
    tangents: tuple[str, ...],
    out: list[Value],
    grads: list[Value],
    retrace: bool,
) -> Traced | None:
    """The forward and the backward program with one such array between them.

    Parameters:
        lines, names, tangents, out, grads: as for :func:`snnlib.engine.program.cut.split`.
        retrace: whether states may be retraced.

    Returns:
        None where there are other events than spikes, where something else is kept for all steps, and where it
        is not one number and a state, known after a spike, that spikes need.
    """
    parameters = tuple(name for name in names if name.startswith("p"))
    slot = _shared(lines, names, tangents, out, grads, set(parameters), retrace)
    backward = _backward(lines, (*parameters, *tangents), out, grads, slot) if slot else None
    if slot is None or backward is None:
        return None
    place = int(slot.state[1:])
    line = Line("slot", "where", (slot.mark, slot.other, out[1 + place]))
    ends = (*out, line.name)
    return Traced(
        Program(names, tuple(following([*lines, line], ends)), ends),
        backward,
        (line.name,),
        uses_output=True,
        slot=place,
        retraced=tuple(int(name[1:]) for name in slot.retraced),
        most_steps=min((found.steps for found in slot.retraced.values()), default=inf),
    )


def _shared(
    lines: list[Line],
    names: tuple[str, ...],
    tangents: tuple[str, ...],
    out: list[Value],
    grads: list[Value],
    parameters: set[str],
    retrace: bool,
) -> _Slot | None:
    """Find the two; None as for :func:`slotted`."""
    by_name = {line.name: line for line in lines}
    found = needs(lines, tangents, out, grads, sparse=True)
    spike = ("ne", (out[0], 0))
    if not found.marks or any(by_name[mark][1:] != spike for mark in found.marks):
        return None
    mark = found.marks[0]
    by_spikes = retraced(lines, out) if retrace else {}
    prices = dict.fromkeys(parameters, 0) | dict.fromkeys(by_spikes, 0) | {str(out[0]): 1}
    needed = cheapest(by_name, found.steps, names, prices)
    if not needed <= {*parameters, *by_spikes, out[0]}:
        return None
    known = known_at(lines, mark, out[1:], parameters)
    after = {f"s{k}": value for k, value in enumerate(known) if value is not None}
    prices = dict.fromkeys(after, 1) | prices
    needed |= (kept := cheapest(by_name, found.events, names, prices) - parameters)
    again = {name: by_spikes[name] for name in sorted(needed & by_spikes.keys())}
    kept -= by_spikes.keys()
    states, others = sorted(kept & after.keys()), sorted(kept - after.keys())
    if len(states) != 1 or len(others) != 1:
        return None
    if others[0] in by_name and by_name[others[0]].operator in CONDITIONS:  # a state has no room for it
        return None
    return _Slot(states[0], others[0], mark, after[states[0]], again)


def _backward(
    lines: list[Line], given: tuple[str, ...], out: list[Value], grads: list[Value], slot: _Slot
) -> Program | None:
    """The backward program, which reads the array; None where it compares a state that is found again.

    Parameters:
        lines, out, grads: as for :func:`slotted`.
        given: the parameters and the tangents.
        slot: what is in the array.
    """
    before = [
        Line("spiked_before", "ne", ("before_z", 0.0)),
        Line(slot.state, "where", ("spiked_before", slot.reset, "before_k0")),
        *(found.line for found in slot.retraced.values()),
    ]
    again = {slot.other: "k0", str(out[0]): "z"}
    carried = [f"r{name[1:]}" for name in slot.retraced]
    gradients = [*grads[: len(out)], *slot.retraced, *grads[len(out) :]]
    backward = following([*before, *lines], gradients, stop={*again, *given, *carried})
    inputs = (*again.values(), "before_z", "before_k0", *given, *carried)
    program = Program(inputs, tuple(backward), tuple(gradients))
    if is_compared(program, *slot.retraced):  # there its last bit may be all the difference
        return None
    return renamed(program, again)
