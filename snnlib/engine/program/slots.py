"""Two numbers of a spike in the room of one, where as much room is kept for every step.

The adjoint reads a state before a spike and one more number, an input current say, and nothing where there is
no spike. That state is the one after the step before; and if that had a spike too, it is what the reset made of
it, which is known. So one array serves for both: it has the other number at a spike, and everywhere else the
state after the step. Its first row is the state before the first step. What is :mod:`retraced
<snnlib.engine.program.retraced>` needs no room at all.
"""

from math import inf

from snnlib.engine.program import Line, Program, Traced, Value
from snnlib.engine.program.arms import known_at
from snnlib.engine.program.bits import CONDITIONS, is_compared
from snnlib.engine.program.cut import cheapest, following, needs, renamed
from snnlib.engine.program.retraced import retraced

__all__ = ["slotted"]


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
    by_name = {line.name: line for line in lines}
    found = needs(lines, tangents, out, grads, sparse=True)
    spike = ("ne", (out[0], 0))
    if not found.marks or any(by_name[mark][1:] != spike for mark in found.marks):
        return None
    mark, parameters = found.marks[0], {name for name in names if name.startswith("p")}
    by_spikes = retraced(lines, out) if retrace else {}
    prices = dict.fromkeys(parameters, 0) | dict.fromkeys(by_spikes, 0) | {str(out[0]): 1}
    needed = cheapest(by_name, found.steps, names, prices)
    if not needed <= {*parameters, *by_spikes, out[0]}:
        return None
    known = known_at(lines, mark, out[1:], parameters)
    after = {f"s{k}": value for k, value in enumerate(known) if value is not None}
    prices = dict.fromkeys(after, 1) | prices
    needed |= (kept := cheapest(by_name, found.events, names, prices) - parameters)
    again_found = sorted(needed & by_spikes.keys())
    kept -= by_spikes.keys()
    states, others = sorted(kept & after.keys()), sorted(kept - after.keys())
    if len(states) != 1 or len(others) != 1:
        return None
    if others[0] in by_name and by_name[others[0]].operator in CONDITIONS:  # a state has no room for it
        return None

    state, other = states[0], others[0]
    slot = Line("slot", "where", (mark, other, out[1 + int(state[1:])]))
    before = [
        Line("spiked_before", "ne", ("before_z", 0.0)),
        Line(state, "where", ("spiked_before", after[state], "before_k0")),
    ]
    before += [by_spikes[name].line for name in again_found]
    again = {other: "k0", str(out[0]): "z"}
    given = *(name for name in names if name in parameters), *tangents
    carried = [f"r{name[1:]}" for name in again_found]
    gradients = [*grads[: len(out)], *again_found, *grads[len(out) :]]
    backward = following([*before, *lines], gradients, stop={*again, *given, *carried})
    inputs = (*again.values(), "before_z", "before_k0", *given, *carried)
    back = Program(inputs, tuple(backward), tuple(gradients))
    if is_compared(back, *again_found):  # there its last bit may be all the difference
        return None
    ends = (*out, slot.name)
    return Traced(
        Program(names, tuple(following([*lines, slot], ends)), ends),
        renamed(back, again),
        (slot.name,),
        uses_output=True,
        slot=int(state[1:]),
        retraced=tuple(int(name[1:]) for name in again_found),
        most_steps=min((by_spikes[name].steps for name in again_found), default=inf),
    )
