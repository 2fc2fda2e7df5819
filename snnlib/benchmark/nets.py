"""The sequences, the weights that all peers share, and snnlib's nets."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import snnlib
from snnlib.benchmark.workloads import Spec
from snnlib.module.sparse import weigher

__all__ = ["CLASSES", "conv_layers", "input_of", "linear", "random", "recurrent_weights", "snnlib_net"]

IMAGE = (1, 28, 28)
MAPS = (32, 64)
CLASSES = 10
_KEPT = 1 << 25
"""Bytes of the largest block that the C library keeps for the next one, by default."""
_SPIKES = 0.05
"""Probability of an input spike in one step: 50 Hz."""

# mean and standard deviation of the current of one step: a neuron spikes in a few per cent of the steps
_CURRENT = {
    "LIF": (0.25, 0.5),
    "LSNN": (1.0, 1.0),
    "LIFAdEx": (0.4, 0.5),
    "Izhikevich": (30.0, 20.0),
    "own step": (0.1, 0.5),
}


class _SquareParameters(NamedTuple):
    tau_mem_inv: float = 100.0
    tau_syn_inv: float = 200.0
    v_crit: float = 0.5
    v_th: float = 1.0
    method: str = "super"
    alpha: float = 100.0


class _SquareState(NamedTuple):
    v: Tensor
    i: Tensor


def square_step(
    input: Tensor, state: _SquareState, p: _SquareParameters = _SquareParameters(), dt: float = 0.001
) -> tuple[Tensor, _SquareState]:
    """A quadratic integrate-and-fire neuron, as a user would write one; snnlib has none.

    ::

        i   <- i + input
        v   <- v + dt tau_mem_inv (v (v - v_crit) + i)
        i   <- i - dt tau_syn_inv i
        z    = H(v - v_th)
        v   <- (1 - z) v
    """
    i = state.i + input
    v = state.v + dt * p.tau_mem_inv * (state.v * (state.v - p.v_crit) + i)
    z = snnlib.spike(v - p.v_th, p.method, p.alpha)
    return z, _SquareState(v=(1 - z.detach()) * v, i=i - dt * p.tau_syn_inv * i)


def random(spec: Spec, stream: int) -> torch.Generator:
    """Random numbers that are the same for all rows of a table; each use has its own stream."""
    return torch.Generator().manual_seed(spec.seed * 10 + stream)


def input_of(spec: Spec) -> Tensor:
    """The input of a row, ``[T, B, N]``: currents, or spikes where weights come first, or images as spikes."""
    shape = (spec.seq_length, spec.batch_size)
    if spec.net == "conv":
        return (torch.rand(*shape, *IMAGE, generator=random(spec, 0)) < _SPIKES).float()
    x = torch.empty(*shape, spec.features)
    if spec.net == "recurrent":
        return x.bernoulli_(_SPIKES, generator=random(spec, 0))
    x.normal_(generator=random(spec, 0))
    mean, deviation = _CURRENT[spec.neuron]
    return x if spec.net == "linear" else x.mul_(deviation).add_(mean)


def linear(spec: Spec, gain: float = 1.0) -> nn.Linear:
    """Linear(N, N) that makes the layer's current of normal input.

    Parameters:
        spec: the row.
        gain: what the peer wants the current multiplied by.
    """
    mean, deviation = _CURRENT[spec.neuron]
    N = spec.features
    module = nn.Linear(N, N)
    with torch.no_grad():
        module.weight.normal_(generator=random(spec, 1)).mul_(gain * deviation / N**0.5)
        module.bias.fill_(gain * mean)
    return module


def recurrent_weights(spec: Spec, gain: float = 1.0) -> tuple[Tensor, Tensor]:
    """Input and recurrent weights ``[N, N]``, without autapses; see :func:`linear`."""
    mean, deviation = _CURRENT[spec.neuron]
    N = spec.features
    of_input, recurrent = torch.randn(2, N, N, generator=random(spec, 1))
    of_input = mean / (N * _SPIKES) + of_input * deviation / (N * _SPIKES) ** 0.5
    recurrent = recurrent.fill_diagonal_(0.0) * deviation / N**0.5
    return gain * of_input, gain * recurrent


def conv_layers(spec: Spec) -> list[nn.Module]:
    """The layers with weights and the pooling between them of Norse's ConvNet4, in their order."""
    torch.manual_seed(spec.seed)
    side = ((IMAGE[1] - 4) // 2 - 4) // 2
    second = nn.Conv2d(MAPS[0], MAPS[1], 5)
    with torch.no_grad():  # ConvNet4 multiplies what comes out by ten
        for weight in second.parameters():
            weight.mul_(10.0)
    return [
        nn.Conv2d(IMAGE[0], MAPS[0], 5),
        nn.MaxPool2d(2),
        second,
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(side * side * MAPS[1], spec.features),
        nn.Linear(spec.features, CLASSES, bias=False),
    ]


def snnlib_net(spec: Spec, backend: Any) -> nn.Module:
    """snnlib's net of a row: takes the input and a state, returns the output over time and the state."""
    layers: dict[str, Any] = {
        "LIF": snnlib.LIF,
        "LSNN": snnlib.LSNN,
        "LIFAdEx": snnlib.LIFAdEx,
        "Izhikevich": snnlib.Izhikevich,
        "own step": lambda backend: snnlib.Layer(square_step, backend=backend),
    }
    if spec.net == "layer":
        return layers[spec.neuron](backend=backend)  # type: ignore[no-any-return]
    if spec.net == "linear":
        return snnlib.SequentialState(linear(spec), layers[spec.neuron](backend=backend))
    if spec.net == "recurrent":
        of_input, recurrent = recurrent_weights(spec)
        made: Any = {"LIF": snnlib.LIFRecurrent, "LSNN": snnlib.LSNNRecurrent}[spec.neuron]
        return made(  # type: ignore[no-any-return]
            spec.features,
            spec.features,
            input_weights=of_input,
            recurrent_weights=recurrent,
            backend=backend,
        )
    low = snnlib.LIFParameters(v_th=0.7)
    # the maps of the first convolution in less than the 32 MB above which the C library keeps no memory
    chunk = max(1, _KEPT // (4 * spec.batch_size * MAPS[0] * (IMAGE[1] - 4) ** 2))
    first, pool, second, pool2, flat, hidden, out = (_of_spikes(layer, backend) for layer in conv_layers(spec))
    return snnlib.SequentialState(
        *(first, snnlib.LIF(low, backend=backend), pool),
        *(second, snnlib.LIF(low, backend=backend), pool2),
        *(flat, hidden, snnlib.LIF(backend=backend)),
        *(out, snnlib.LI(backend=backend)),
        chunk_size=chunk if spec.device == "cpu" else None,
    )


def _of_spikes(module: nn.Module, backend: Any) -> nn.Module:
    """The same layer, which multiplies only what is not zero."""
    backend = weigher(backend)
    if isinstance(module, nn.Conv2d):
        made: nn.Module = snnlib.SpikeConv2d(module.in_channels, module.out_channels, 5, backend=backend)
    elif isinstance(module, nn.Linear):
        sizes = module.in_features, module.out_features, module.bias is not None
        made = snnlib.SpikeLinear(*sizes, backend=backend)
    else:
        return module
    made.load_state_dict(module.state_dict())
    return made
