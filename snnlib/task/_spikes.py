"""What the layers of neurons in a net put out."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from snnlib.module.neuron import Neuron

__all__ = ["with_spikes"]


@torch.no_grad()
def with_spikes(
    net: nn.Module, input: Tensor, kept: Callable[[Tensor], Tensor] = lambda spikes: spikes
) -> tuple[Any, list[Tensor]]:
    """Run a net once as in evaluation, and look at its layers of spiking neurons.

    Parameters:
        net: left in the mode, training or evaluation, in which it is.
        input: what the net is given.
        kept: what is kept of the spikes of a layer, ``[T, B, *features]``.

    Returns:
        The net's output, and what is kept of each layer, in the order in which they ran.
    """
    spikes: list[Tensor] = []
    neurons = [module for module in net.modules() if isinstance(module, Neuron) and module.spiking]
    hooks = [n.register_forward_hook(lambda _m, _i, output: spikes.append(kept(output[0]))) for n in neurons]
    training = net.training
    try:
        return net.eval()(input), spikes
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
