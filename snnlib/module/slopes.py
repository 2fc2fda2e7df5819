"""How steeply membranes cross their thresholds."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from snnlib.engine import scan
from snnlib.engine.adjoint import slope_step
from snnlib.engine.reference import without_autocast
from snnlib.engine.state import integration_dtype
from snnlib.module.neuron import Layer
from snnlib.module.recurrent import RecurrentLayer
from snnlib.module.states import check_layer

__all__ = ["spike_slopes"]


@torch.no_grad()
def spike_slopes(layer: Layer | RecurrentLayer, input: Tensor, state: Any = None) -> Tensor:
    """The slope with which a neuron crosses its threshold, at each of its spikes.

    ::

        h' = (h(t) - h(t - dt)) / dt       where z(t) = 1, else 0

    with h the distance to the threshold. The adjoint divides by it, and takes ``alpha`` where it is less:
    ``(slopes[slopes > 0] < alpha).sum()`` counts these spikes.

    Parameters:
        layer: neurons that spike.
        input, state: what the layer is given.

    Returns:
        In units of h a second, in the shape of the layer's output.

    Raises:
        ValueError: ``layer`` is a net or a cell, or does not spike.
    """
    check_layer(layer)
    if not layer.spiking:
        raise ValueError(f"layer must be neurons that spike, got a {type(layer).__name__}")
    output, _ = layer(input, state)
    current = input
    if isinstance(layer, RecurrentLayer):
        if layer.input_weights is not None:
            current = linear(current, layer.input_weights)
        current = current + _heard(layer, output, state)
        state = None if state is None else layer.state(*state[1:])
    p = layer.p._replace(method="super")
    slopes, _ = scan(slope_step(layer.step), current, state, p, dt=layer.dt)
    return slopes.to(output.dtype)


def _heard(layer: RecurrentLayer, output: Tensor, state: Any) -> Tensor:
    """What comes through the recurrent weights at each step, in the precision of the state."""
    dtype, shape = integration_dtype(output.dtype), output[:1].shape
    before = torch.as_tensor(0.0 if state is None else state.z, dtype=dtype, device=output.device)
    spikes = torch.cat([before.expand(shape), output[:-1].to(dtype)])
    with without_autocast(output.device.type):
        return linear(spikes, layer.recurrence().to(dtype))
