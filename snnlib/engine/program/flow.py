"""The cheapest values from which others can be computed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import inf
from types import MappingProxyType

__all__ = ["cheapest_cut"]

_Node = tuple[str, str]
_SOURCE, _SINK = ("source", ""), ("sink", "")


def cheapest_cut(
    costs: Mapping[str, int],
    arguments: Mapping[str, Sequence[str]],
    given: Iterable[str],
    read: Iterable[str],
    work: Mapping[str, int] = MappingProxyType({}),
    ahead: Mapping[str, str] = MappingProxyType({}),
) -> set[str]:
    """The cheapest values from which, and from constants, all that is ``read`` can be computed.

    The largest flow from what has no arguments to what is read, found path by path (Ford and Fulkerson 1956),
    is as large as the cheapest cut. Of cuts that cost the same it is the one nearest to what is read.

    Parameters:
        costs: of keeping a value, for each.
        arguments: the values that a value is computed from, if there are any.
        given: the values that everything begins with.
        read: what is wanted.
        work: of computing a value to keep it, or what is computed from it; none if not there.
        ahead: a value that another is computed from where it is kept, in the place of its arguments.
    """
    # a value is an edge of its own, from where it comes in to where it goes out; room left, there and back
    room: dict[_Node, dict[_Node, float]] = defaultdict(dict)

    def join(a: _Node, b: _Node, size: float) -> None:
        room[a][b], room[b][a] = size, 0

    for name, cost in costs.items():
        join((name, "in"), (name, "out"), cost)
        for argument in arguments.get(name, ()):
            join((argument, "out"), (name, "in"), inf)
    for name in given:
        join(_SOURCE, (name, "in"), inf)
    for name in (needed := list(read)):
        join((name, "out"), _SINK, inf)
    for name in needed if work else ():  # to keep it, or what follows from it, all before it is to be computed
        join((name, "in"), (name, "done"), inf)
        join((name, "done"), _SINK, work.get(name, 0))
        before = arguments.get(name, ())
        way = [ahead[name]] if name in ahead else before
        for argument in way:
            join((name, "done"), (argument, "done"), inf)
        needed += [a for a in {*before, *way} if a not in needed]

    while _SOURCE in (after := _leading_to_sink(room)):
        path = [_SOURCE]
        while path[-1] != _SINK:
            path.append(after[path[-1]])
        edges = list(pairwise(path))
        size = min(room[a][b] for a, b in edges)
        for a, b in edges:
            room[a][b] -= size
            room[b][a] += size
    return {name for name in costs if (name, "out") in after and (name, "in") not in after}


def _leading_to_sink(room: Mapping[_Node, Mapping[_Node, float]]) -> dict[_Node, _Node]:
    """The nodes with room for a path to the sink, each with the next node on a shortest one."""
    after: dict[_Node, _Node] = {_SINK: _SINK}
    for node in (found := [_SINK]):
        for before in room[node]:  # edges are noted at both ends
            if before not in after and room[before][node] > 0:
                after[before] = node
                found.append(before)
    return after
