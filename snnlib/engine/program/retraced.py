"""A state that nothing but spikes drives, an adaptation say, found again on the way back and so not kept.

::

    s(t)   = factor s(t-1) + jump z(t) + number                what a step says
    s(t-1) = (s(t) - jump z(t) - number) / factor              going back, from the state after the last step

What rounding changed grows by ``1 / factor`` with each step back, so this is for some steps at most. It is not
for a state that the way back compares with something.
"""

from collections.abc import Sequence
from math import inf, isfinite, log
from typing import NamedTuple

from snnlib.engine.program import Line, Value
from snnlib.engine.program.sums import Sum, Sums

__all__ = ["Retraced", "retraced"]

_GROWTH = 5.0
"""How far what rounding changed may grow: adaptations over 1.6 of their time constants."""


class Retraced(NamedTuple):
    """How a state is found.

    Attributes:
        line: gives the state before a step from ``r`` and its number, the state after it, and the output.
        steps: how many may be gone back.
    """

    line: Line
    steps: float


def retraced(lines: Sequence[Line], out: Sequence[Value]) -> dict[str, Retraced]:
    """The states ``s0, ...`` of which this is so, by name.

    Parameters:
        lines: of the program.
        out: the output and the new states.
    """
    value_of = Sums(lines, []).under({})
    spikes = value_of(out[0])
    found = {}
    for k, value in enumerate(out[1:]):
        name, total = f"s{k}", value_of(value)
        factor = dict(total.terms).get(name, 0.0)
        rest = total.plus(Sum(0.0, ((name, 1.0),)), -factor)
        jump = rest.holds(spikes) if rest.terms and spikes.terms else 0.0
        if factor == 0 or not isfinite(factor) or rest.plus(spikes, -jump).terms:
            continue
        back = -rest.plus(spikes, -jump).number / factor, 1 / factor, f"r{k}", -jump / factor, out[0]
        steps = inf if abs(factor) >= 1 else log(_GROWTH) // -log(abs(factor))
        found[name] = Retraced(Line(name, "sum", back), steps)
    return found
