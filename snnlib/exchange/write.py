"""Modules as a graph of NIR, see :func:`snnlib.exchange.to_nir`."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import nir
import numpy as np
from torch import Tensor, nn

from snnlib.exchange.neurons import node_of
from snnlib.exchange.shapes import one_step
from snnlib.exchange.stateless import STATELESS, array, stateless_node
from snnlib.module.lift import Lift
from snnlib.module.neuron import Cell, Layer, Neuron
from snnlib.module.recurrent import RecurrentCell, RecurrentLayer
from snnlib.module.sequential import SequentialState

__all__ = ["INPUT_WEIGHTS", "write"]

INPUT_WEIGHTS = {"role": "input_weights"}
"""Metadata of a Linear that belongs to the recurrent layer after it."""

_NEURONS = (Cell, Layer, RecurrentCell, RecurrentLayer)


def write(model: nn.Module, sample: Tensor) -> nir.NIRGraph:
    leaves = list(_leaves(model, ""))
    steps = {module.dt for _, module in leaves if isinstance(module, Neuron)}
    if len(steps) > 1:
        raise ValueError(f"all neurons must have one time step, got dt={sorted(steps)}")
    x = _one_step_of(sample, bool(getattr(model, "over_time", False)))
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input(_shape(x))}
    for index, (path, module) in enumerate(leaves):
        try:
            made, y = _nodes(module, x), one_step(module, x)
        except ValueError as error:
            raise ValueError(f"module {path or 'at the top'} ({type(module).__name__}): {error}") from error
        for kind, node in made.items():
            nodes[_name(path, kind, index, nodes)] = node
            if isinstance(node, nir.Conv2d):  # NIR takes kernels for square and groups for one
                node.input_type, node.output_type = {"input": _shape(x)}, {"output": _shape(y)}
        x = y
    nodes["output"] = nir.Output(_shape(x))
    return nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), {"dt": steps.pop()} if steps else {})


def _name(path: str, kind: str, index: int, taken: dict[str, nir.NIRNode]) -> str:
    """That which a chain gives a module, "fc", or else its kind and its place, "linear_0"."""
    kind, _, part = kind.partition(".")
    numbered = all(name.isdigit() for name in path.split(".")) or not path
    name = f"{kind}_{index}" if numbered else re.sub(r"\W", "_", path)
    name += part and f"_{part}"
    while name in taken or name == "output":
        name += "_"
    return name


def _one_step_of(sample: Tensor, over_time: bool) -> Tensor:
    if sample.dim() < 2 + over_time or 0 in sample.shape:
        wanted = "[T, B, *features]" if over_time else "[B, *features]"
        raise ValueError(f"sample must be {wanted}, none of them 0, got shape {list(sample.shape)}")
    return sample[0] if over_time else sample


def _shape(x: Tensor) -> Any:
    return np.array(x.shape[1:])


def _leaves(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules that compute something, in their order and with their paths."""
    if isinstance(module, Lift):
        yield from _leaves(module.lifted, path)
    elif isinstance(module, SequentialState) or type(module) is nn.Sequential:
        for name, inner in module._modules.items():
            if inner is not None:
                yield from _leaves(inner, f"{path}.{name}" if path else name)
    elif not (isinstance(module, nn.Identity) or (_is_dropout(module) and not module.training)):
        yield path, module


def _is_dropout(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.dropout._DropoutNd)


def _nodes(module: nn.Module, x: Tensor) -> dict[str, nir.NIRNode]:
    """The nodes that stand for a module, by its kind, and behind a dot the part of it that a node is."""
    name, features = type(module).__name__.lower(), x.shape[1:]
    if type(module) in STATELESS:
        return {name: stateless_node(module, features)}
    if _is_dropout(module):
        raise ValueError("it drops at random in training: call eval() first")
    if not isinstance(module, Neuron) or type(module).forward not in [kind.forward for kind in _NEURONS]:
        known = ", ".join(kind.__name__ for kind in (*STATELESS, *_NEURONS))
        raise ValueError(f"NIR has no node for it, or none that is known here; known are {known}")
    if not isinstance(module, RecurrentCell | RecurrentLayer):
        return {name: node_of(module, features)}
    layer = {name: _recurrent(module)}
    if module.input_weights is None:
        return layer
    return {f"{name}.in": nir.Linear(array(module.input_weights), metadata=dict(INPUT_WEIGHTS)), **layer}


def _recurrent(layer: RecurrentCell | RecurrentLayer) -> nir.NIRGraph:
    size = [layer.hidden_size]
    nodes = {
        "input": nir.Input(np.array(size)),
        "lif": node_of(layer, size),
        "w_rec": nir.Linear(array(layer.recurrence())),
        "output": nir.Output(np.array(size)),
    }
    return nir.NIRGraph(nodes, [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")])
