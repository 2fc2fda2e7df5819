"""Modules from a graph of NIR, see :func:`snnlib.exchange.from_nir`."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

import nir
import torch
from torch import nn

from snnlib._words import one_line
from snnlib.engine.check import check_parameters
from snnlib.exchange.file import check_file
from snnlib.exchange.graph import Link, chain
from snnlib.exchange.neurons import NEURONS, NeuronRead, parameters_of
from snnlib.exchange.scale import Scale
from snnlib.exchange.shapes import check_declared, declared, one_step
from snnlib.exchange.stateless import module_of, tensor
from snnlib.exchange.write import INPUT_WEIGHTS
from snnlib.functional.iaf import IAFParameters
from snnlib.functional.li import LIParameters
from snnlib.functional.lif import LIFParameters
from snnlib.functional.lif_box import LIFBoxParameters
from snnlib.module.iaf import IAF, IAFRecurrent
from snnlib.module.li import LI
from snnlib.module.lif import LIF, LIFRecurrent
from snnlib.module.lif_box import LIFBox, LIFBoxRecurrent
from snnlib.module.recurrent import RecurrentLayer
from snnlib.module.sequential import SequentialState

__all__ = ["read"]

_Modules = list[tuple[Link, nn.Module]]

_LAYERS: dict[type, Any] = {IAFParameters: IAF, LIFBoxParameters: LIFBox, LIFParameters: LIF, LIParameters: LI}
_RECURRENT: dict[type, Any] = {
    IAFParameters: IAFRecurrent,
    LIFBoxParameters: LIFBoxRecurrent,
    LIFParameters: LIFRecurrent,
}


def read(graph: nir.NIRGraph | str | PathLike[str], dt: float | None, dtype: torch.dtype) -> SequentialState:
    opened = graph if isinstance(graph, nir.NIRNode) else _file(graph)
    if not isinstance(opened, nir.NIRGraph):
        raise ValueError(f"graph must be a NIRGraph, got {type(opened).__name__}")
    first, *inner, last = chain(opened)
    inner = [link for link in inner if not isinstance(link.node, nir.Input | nir.Output)]
    dt = _time_step(opened, inner, dt)
    made: _Modules = []
    for link in inner:
        with _named(link):
            if isinstance(link.node, NEURONS):
                _append_neuron(made, link, dt, dtype)
            else:
                made.append((link, module_of(link.node, dtype)))
    _check_shapes(first, made, last, dtype)
    return _chained(made)


def _file(path: str | PathLike[str]) -> Any:
    try:
        check_file(path)
        return nir.read(path, type_check=False)  # shapes are checked here, with names
    except FileNotFoundError:
        raise
    except Exception as error:  # what is no such file lets h5py and nir fail in many ways
        raise ValueError(f"{path} holds no graph of NIR that can be read: {one_line(error)}") from error


def _time_step(graph: nir.NIRGraph, inner: list[Link], dt: float | None) -> float:
    if dt is None and any(isinstance(link.node, NEURONS) for link in inner):
        if "dt" not in graph.metadata:
            raise ValueError("the graph does not say its time step: give dt= in s, for snnTorch's graphs 1e-4")
        try:
            dt = float(graph.metadata["dt"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"the graph's time step must be a number, got {graph.metadata['dt']!r}") from error
    dt = 1.0 if dt is None else dt
    check_parameters(None, dt)
    return dt


@contextmanager
def _named(link: Link) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # values of a wrong kind fail in many ways
        raise ValueError(f"node {link.name} ({type(link.node).__name__}): {one_line(error)}") from error


def _append_neuron(made: _Modules, link: Link, dt: float, dtype: torch.dtype) -> None:
    found = parameters_of(link.node, dt, dtype)
    if found.gain is not None:
        made.append((link._replace(name=f"{link.name}_gain"), Scale(found.gain)))
    if link.recurrent is None:
        made.append((link, _LAYERS[type(found.p)](found.p, dt)))
    else:
        layer = _recurrent(made, link.recurrent, found, dt, dtype)
        made.append((link, layer))


def _recurrent(
    made: _Modules, recurrent: nir.NIRNode, found: NeuronRead, dt: float, dtype: torch.dtype
) -> RecurrentLayer:
    """A recurrent layer, which takes with it input weights that stand before it and were its own."""
    weights = tensor(recurrent.weight, dtype)
    if weights.dim() != 2 or weights.shape[0] != weights.shape[1]:
        raise ValueError(f"recurrent weights must be square, got shape {list(weights.shape)}")
    size = len(weights)
    if getattr(recurrent, "bias", None) is not None:
        _add_bias(made, tensor(recurrent.bias, dtype))
    options: dict[str, Any] = {"recurrent_weights": weights, "autapses": bool(weights.diagonal().any())}
    input_size = None
    before = made[-1][1] if made and made[-1][0].node.metadata == INPUT_WEIGHTS else None
    if isinstance(before, nn.Linear) and len(list(before.parameters())) == 1:  # a bias would be lost
        made.pop()
        input_size, options["input_weights"] = before.in_features, before.weight
    layer: RecurrentLayer = _RECURRENT[type(found.p)](input_size, size, found.p, dt, **options)
    return layer


def _add_bias(made: _Modules, bias: torch.Tensor) -> None:
    """Move the bias of recurrent weights to the Linear before the neurons, where it acts in every step too."""
    if not bias.any():
        return
    before = made[-1][1] if made else None
    if not isinstance(before, nn.Linear):
        raise ValueError("recurrent weights with a bias must have a Linear or Affine before the neuron")
    if bias.shape != (before.out_features,):
        raise ValueError(f"the recurrent bias must be [{before.out_features}], got shape {list(bias.shape)}")
    before.bias = nn.Parameter(bias if before.bias is None else before.bias.detach() + bias)


def _check_shapes(first: Link, made: _Modules, last: Link, dtype: torch.dtype) -> None:
    with _named(first):
        shape = declared(first.node)
        if not shape or min(shape) < 1:
            raise ValueError(f"it must have a shape of positive sizes, got {shape}")
        x = torch.zeros(1, *shape, dtype=dtype, device="meta")
    for link, module in made:
        with _named(link):
            y = one_step(module, x)
            # a neuron has as many inputs as outputs, but for the input weights that a recurrent layer took
            check_declared(link.node, y if isinstance(link.node, NEURONS) else x)
            x = y
    with _named(last):
        shape = declared(last.node)
        if shape is not None and shape != tuple(x.shape[1:]):
            raise ValueError(f"it declares the shape {list(shape)}, got {list(x.shape[1:])}")


def _chained(made: _Modules) -> SequentialState:
    named: OrderedDict[str, nn.Module] = OrderedDict()
    taken = SequentialState()
    for link, module in made:
        # a recurrent layer is written as a graph of its own, which has its name
        name = link.name.removesuffix(".lif") if link.recurrent is not None else link.name
        name = name.replace(".", "_")
        while name in named or hasattr(taken, name):
            name += "_"
        named[name] = module
    return SequentialState(named)
