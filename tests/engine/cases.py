"""What several tests of ``scan`` start from: some neurons, their parameters, states, inputs and weights."""

from typing import NamedTuple

import torch
from torch import Tensor

from snnlib import LIFParameters
from tests.neurons import NEURONS, draw_input, draw_parameters, draw_state, generator

__all__ = ["DT", "EXACT", "LIF", "SOME", "Exact", "Membrane", "case", "weights_for"]

# one time step for most tests, not the default: a backend may compile anew for each
DT = 0.0011
LIF = next(neuron for neuron in NEURONS if neuron.name == "lif")
EXACT = LIFParameters(method="adjoint")
SOME = [neuron for neuron in NEURONS if neuron.name in ("li", "lif_refrac", "lsnn", "izhikevich")]
"""For what the engine does around a step, whatever that computes."""


class Membrane(NamedTuple):
    """The state of steps of a test's own."""

    v: Tensor


class Exact(NamedTuple):
    """The parameters of such steps that are differentiated by the adjoint."""

    method: str = "adjoint"
    alpha: float | None = None


def case(neuron, seed, steps=20, shape=(4, 3), parameters=(), dtype=torch.float64):
    source = generator(seed)
    p = draw_parameters(neuron, source, parameters, dtype)
    return p, draw_state(neuron, source, shape, dtype), draw_input(neuron, source, (steps, *shape), dtype)


def weights_for(neuron, size, seed=17, dtype=torch.float64):
    scale = (neuron.input[0] + neuron.input[1]) / size**0.5
    return (scale * torch.randn(size, size, generator=generator(seed), dtype=torch.float64)).to(dtype)
