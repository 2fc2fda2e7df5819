"""The order in which the nodes of a graph act, for graphs that are a chain with recurrent layers."""

from typing import NamedTuple

import nir

from snnlib.exchange.neurons import SPIKING

__all__ = ["Link", "chain"]

_Neighbours = dict[str, list[str]]


class Link(NamedTuple):
    """One node of the chain."""

    name: str
    """Its name; within a graph of its own that graph's name and a dot come first."""
    node: nir.NIRNode
    """What it is, never a graph."""
    recurrent: nir.NIRNode | None = None
    """The Linear or Affine that leads from it back to it."""


class _Opened(NamedTuple):
    """A graph without graphs within it, whose inputs and outputs remain as nodes."""

    nodes: dict[str, nir.NIRNode]
    edges: list[tuple[str, str]]
    first: str
    last: str


def chain(graph: nir.NIRGraph) -> list[Link]:
    """The nodes from the input to the output, both included.

    Raises:
        ValueError: an edge is missing or leads nowhere, the graph branches, joins, or has a cycle that is no
            recurrent layer, or there is not one input and one output.
    """
    nodes, edges, name, last = _opened(graph, "")
    after: _Neighbours = {name: [] for name in nodes}
    before: _Neighbours = {name: [] for name in nodes}
    for source, target in edges:
        after[source].append(target)
        before[target].append(source)
    weights = _take_recurrent_weights(nodes, before, after)
    if before[name]:
        raise ValueError(f"no edge may lead to the input {name}, got one from {before[name][0]}")
    links = [Link(name, nodes[name])]
    while after[name]:
        name = _next(name, before, after)
        links.append(Link(name, nodes[name], nodes[weights[name]] if name in weights else None))
    if name != last:
        raise ValueError(f"node {name} leads nowhere: an edge to the next node or to the output is missing")
    lost = set(nodes) - {link.name for link in links} - set(weights.values())
    if lost:
        raise ValueError(f"nodes {sorted(lost)} are not reached from the input: an edge is missing")
    return links


def _opened(graph: nir.NIRGraph, prefix: str) -> _Opened:
    nodes: dict[str, nir.NIRNode] = {}
    edges: list[tuple[str, str]] = []
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    for name, node in graph.nodes.items():
        first[name] = last[name] = f"{prefix}{name}"
        if isinstance(node, nir.NIRGraph):
            inner = _opened(node, f"{prefix}{name}.")
            first[name], last[name] = inner.first, inner.last
            nodes |= inner.nodes
            edges += inner.edges
        else:
            nodes[f"{prefix}{name}"] = node
    for source, target in dict.fromkeys((str(a), str(b)) for a, b in graph.edges):
        for end in (source, target):
            if end not in graph.nodes:
                raise ValueError(
                    f"the edge from {source} to {target} needs a node {prefix}{end}, and there is none"
                )
        edges.append((last[source], first[target]))
    return _Opened(nodes, edges, *(first[_only(graph, kind, prefix)] for kind in (nir.Input, nir.Output)))


def _only(graph: nir.NIRGraph, kind: type[nir.NIRNode], prefix: str) -> str:
    """The name of a graph's one input or output."""
    found: list[str] = [name for name, node in graph.nodes.items() if isinstance(node, kind)]
    if len(found) != 1:
        raise ValueError(f"graph {prefix[:-1] or 'at the top'} must have one {kind.__name__}, got {found}")
    return found[0]


def _take_recurrent_weights(
    nodes: dict[str, nir.NIRNode], before: _Neighbours, after: _Neighbours
) -> dict[str, str]:
    """Which neuron has which recurrent weights; their edges are taken out.

    Raises:
        ValueError: a neuron has two of them.
    """
    found: dict[str, str] = {}
    for name, node in nodes.items():
        if (
            not isinstance(node, nir.Affine | nir.Linear)
            or before[name] != after[name]
            or len(after[name]) != 1
        ):
            continue
        (neuron,) = after[name]
        if not isinstance(nodes[neuron], SPIKING):
            continue
        if neuron in found:
            raise ValueError(
                f"node {neuron} must have one node of recurrent weights, got {found[neuron]} and {name}"
            )
        found[neuron] = name
        before[neuron].remove(name)
        after[neuron].remove(name)
    return found


def _next(name: str, before: _Neighbours, after: _Neighbours) -> str:
    """The one node that follows.

    Raises:
        ValueError: there are several, or it has others before it.
    """
    target = after[name][0]
    for node in (name, target):
        circle = _circle(node, after)
        if circle:
            raise ValueError(
                f"nodes {' -> '.join(circle)} are a cycle that is no recurrent layer, which is one neuron that "
                "spikes and one Linear or Affine from it back to it"
            )
    if len(after[name]) > 1:
        raise ValueError(f"only chains can be read, and node {name} leads to {after[name]}")
    if len(before[target]) > 1:
        raise ValueError(f"only chains can be read, and node {target} is led to by {before[target]}")
    return target


def _circle(name: str, after: _Neighbours) -> list[str]:
    """A way from a node back to it, by the names on it; empty if there is none."""
    ways = {target: [name, target] for target in after[name]}
    waiting = list(ways)
    while waiting:
        current = waiting.pop(0)
        if current == name:
            return ways[name]
        for target in after[current]:
            if target not in ways:
                ways[target] = [*ways[current], target]
                waiting.append(target)
    return []
