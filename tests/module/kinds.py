"""Every neuron as Cell, Layer, RecurrentCell and RecurrentLayer: how the tests make, feed and run one."""

import pytest
import torch
from torch import nn

from tests.neurons import NEURONS, draw_input, draw_parameters, generator, name_of

__all__ = [
    "DT",
    "KINDS",
    "LONG_TAILS",
    "B",
    "M",
    "N",
    "build",
    "every_kind",
    "every_neuron",
    "first_number",
    "learnable",
    "over_time",
    "run",
    "sample",
]

# a surrogate that is felt far from the threshold, so that no gradient vanishes for want of a spike
LONG_TAILS = {"method": "arctan", "alpha": 0.5}
KINDS = ["cell", "layer", "recurrent_cell", "recurrent_layer"]
B, M, N = 2, 3, 4
# one time step for most tests, not the default: a backend may compile anew for each
DT = 0.0012

every_neuron = pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
every_kind = pytest.mark.parametrize("kind", KINDS)


def build(neuron, kind, p, dt=DT, **options):
    """A module; layers run in the plain loop unless told otherwise: to compile each fused one takes seconds."""
    made = getattr(neuron, kind)
    if kind.endswith("layer"):
        options = {"backend": "reference", **options}
    if not kind.startswith("recurrent"):
        return made(p, dt, **options)
    # no input weight is negative, or a sum of both signs could be too small to make the neuron spike
    return made(M, N, p, dt, **{"input_weights": 0.2 + torch.rand(N, M), **options})


def learnable(neuron, shape=(N,), seed=0, dtype=torch.float32, **options):
    """Parameters whose every number learns."""
    options = {**LONG_TAILS, **options} if neuron.spikes else options
    p = draw_parameters(neuron, generator(seed), shape, dtype, **options)
    return p._replace(**{name: nn.Parameter(getattr(p, name)) for name in neuron.ranges})


def sample(neuron, kind, steps=15, dtype=torch.float32, seed=1):
    """An input that fits a module of that kind, big enough to make it spike behind its weights too."""
    width = M if kind.startswith("recurrent") else N
    x = draw_input(neuron, generator(seed), (steps, B, width), dtype)
    return x if kind.endswith("layer") else x[0]


def first_number(neuron):
    return next(iter(neuron.ranges))


def over_time(module, x, state=None):
    """A module of single steps, run by hand."""
    outputs = []
    for row in x:
        z, state = module(row, state)
        outputs.append(z)
    return torch.stack(outputs), state


def run(module, kind, x):
    return module(x) if kind.endswith("layer") else over_time(module, x)
