"""The other libraries' layers, each set up as its documentation does and as near to snnlib's LIF as it goes.

snnlib's LIF: synapse 5 ms, membrane 10 ms, threshold 1, reset to 0, steps of 1 ms, SuperSpike's surrogate with
the reset out of the gradient. A peer is imported where it is built.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from snnlib.benchmark.nets import linear, recurrent_weights
from snnlib.benchmark.workloads import Spec

__all__ = ["Layer", "NotOfferedError", "peer_layer"]

_SYNAPSE, _MEMBRANE = 5.0, 10.0  # ms, which is steps
_SLOPE = 100.0


class NotOfferedError(Exception):
    """A peer has nothing of the kind."""


class Layer(NamedTuple):
    """How a peer runs a sequence."""

    run: Callable[[Tensor], Tensor]
    """``[T, B, N] -> [T, B, N]``; with ``batch_first`` both are ``[B, T, N]``."""
    module: nn.Module
    """What holds its weights."""
    gain: float = 1.0
    """What a layer without weights wants its input multiplied by, to be driven as snnlib's is."""
    batch_first: bool = False
    note: str = ""


def peer_layer(spec: Spec) -> Layer:
    """The layer of a row that is not snnlib's.

    Raises:
        ImportError: the peer is not installed.
        NotOfferedError: the peer has no such layer.
    """
    build = {
        "floor": _floor,
        "norse": _norse,
        "snntorch": _snntorch,
        "spikingjelly": _spikingjelly,
        "sinabs": _sinabs,
    }[spec.peer]
    found: Layer = build(spec)
    if spec.net != "linear":
        return found
    first = linear(spec, found.gain)
    return found._replace(run=lambda x: found.run(first(x)), module=nn.ModuleList([first, found.module]))


def _refuse(spec: Spec, name: str) -> None:
    if spec.neuron != "LIF":
        raise NotOfferedError(f"{name} has no recurrent {spec.neuron}")


def _floor(spec: Spec) -> Layer:
    if spec.net == "recurrent":
        lstm = nn.LSTM(spec.features, spec.features)
        return Layer(lambda x: lstm(x)[0], lstm, note="its outputs are no spikes")
    if spec.net == "linear":
        return Layer(lambda x: x, nn.Identity())
    return Layer(torch.clone, nn.Identity())


def _norse(spec: Spec) -> Layer:
    import norse.torch as norse

    note = "x[t] in its loop makes backward quadratic in T"
    if spec.net != "recurrent":
        layer = norse.LIF()
        return Layer(lambda x: layer(x)[0], layer, note=f"norse.torch.LIF(); {note}")
    made = {"LIF": norse.LIFRecurrent, "LSNN": norse.LSNNRecurrent}[spec.neuron]
    of_input, recurrent = map(nn.Parameter, recurrent_weights(spec))
    layer = made(spec.features, spec.features, input_weights=of_input, recurrent_weights=recurrent)
    if spec.neuron == "LSNN":
        note = f"adapts with a time constant of 800 s; {note}"
    return Layer(lambda x: layer(x)[0], layer, note=f"norse.torch.{spec.neuron}Recurrent; {note}")


def _snntorch(spec: Spec) -> Layer:
    import snntorch

    arguments: dict[str, Any] = {
        "alpha": math.exp(-1 / _SYNAPSE),
        "beta": math.exp(-1 / _MEMBRANE),
        "spike_grad": snntorch.surrogate.fast_sigmoid(slope=_SLOPE),
    }
    note = "over x.unbind(0); resets by subtraction, its default: to zero computes each step twice"
    # its membrane takes the current whole, snnlib's a tenth of it
    gain = 1 / _MEMBRANE
    if spec.net != "recurrent":
        neuron = snntorch.Synaptic(**arguments)
        return Layer(
            lambda x: _snntorch_loop(neuron, x, x.new_zeros(x.shape[1:]), 2),
            neuron,
            gain,
            note=f"Synaptic {note}",
        )
    _refuse(spec, "snnTorch")
    first, neuron = _first(spec, gain), snntorch.RSynaptic(**arguments, linear_features=spec.features)
    with torch.no_grad():
        neuron.recurrent.weight.copy_(recurrent_weights(spec, gain)[1])
        neuron.recurrent.bias.zero_()
    return Layer(
        lambda x: _snntorch_loop(neuron, first(x), x.new_zeros(x.shape[1:]), 3),
        nn.ModuleList([first, neuron]),
        note=f"RSynaptic {note}",
    )


def _snntorch_loop(neuron: Any, x: Tensor, rest: Tensor, fields: int) -> Tensor:
    """The loop of snnTorch's tutorials; they index x[t], which would make backward quadratic in T."""
    spikes, state = [], (rest,) * fields
    for step in x.unbind(0):
        found = neuron(step, *state)
        spikes.append(found[0])
        state = found[-fields:]
    return torch.stack(spikes)


def _spikingjelly(spec: Spec) -> Layer:
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    # without a synapse: the current of one step stands for the five that a synapse makes of it
    gain = _SYNAPSE
    recurrent = spec.net == "recurrent"
    lif = neuron.LIFNode(
        tau=_MEMBRANE,
        v_reset=0.0,
        surrogate_function=surrogate.SuperSpike(_SLOPE),
        detach_reset=True,
        step_mode="s" if recurrent else "m",
    )
    net: Any = lif
    if recurrent:
        _refuse(spec, "SpikingJelly")
        net = layer.LinearRecurrentContainer(lif, spec.features, spec.features, bias=False, step_mode="m")
        with torch.no_grad():
            net.rc.weight.copy_(torch.cat(recurrent_weights(spec, gain), 1))

    def run(x: Tensor) -> Tensor:
        functional.reset_net(net)
        return net(x)  # type: ignore[no-any-return]

    name = "LIFNode, many steps at once"
    if spec.device == "cuda":
        kernels = functional.neuron_implementation("lif", torch.device("cuda", torch.cuda.current_device()))
        name += f" ({kernels['implementation']})"
    if recurrent:
        name = "LinearRecurrentContainer(LIFNode), whose x[t] makes backward quadratic in T"
    return Layer(run, net, gain, note=f"{name}; one state: no synapse")


def _sinabs(spec: Spec) -> Layer:
    import sinabs.activation
    from sinabs import layers

    arguments: dict[str, Any] = {
        "tau_mem": _MEMBRANE,
        "tau_syn": _SYNAPSE,
        "spike_fn": sinabs.activation.SingleSpike,
        "reset_fn": sinabs.activation.MembraneReset(),
    }
    if spec.net != "recurrent":
        neuron = layers.LIF(**arguments)
        first: nn.Module = nn.Identity()
    else:
        first, connect = _first(spec, 1.0), nn.Linear(spec.features, spec.features, bias=False)
        if spec.neuron == "LSNN":
            neuron = layers.ALIFRecurrent(tau_adapt=700.0, rec_connect=connect, **arguments)
        else:
            neuron = layers.LIFRecurrent(rec_connect=connect, **arguments)
        with torch.no_grad():
            connect.weight.copy_(recurrent_weights(spec)[1])
    for value in neuron.parameters(recurse=False):
        value.requires_grad_(False)  # its time constants learn unless told otherwise; nobody else's do

    def run(x: Tensor) -> Tensor:
        neuron.reset_states()
        return neuron(first(x))  # type: ignore[no-any-return]

    note = f"{type(neuron).__name__}, batch first, time constants that do not learn"
    return Layer(run, nn.ModuleList([first, neuron]), batch_first=True, note=note)


def _first(spec: Spec, gain: float) -> nn.Linear:
    """The input weights of a recurrent layer for peers that leave them to the user."""
    module = nn.Linear(spec.features, spec.features, bias=False)
    with torch.no_grad():
        module.weight.copy_(recurrent_weights(spec, gain)[0])
    return module
