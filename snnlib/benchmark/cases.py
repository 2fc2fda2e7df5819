"""A row made ready to run: its net, its input, and what one pass is."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

import snnlib
from snnlib.benchmark.nets import CLASSES, conv_layers, input_of, random, snnlib_net
from snnlib.benchmark.peers import NotOfferedError, peer_layer
from snnlib.benchmark.workloads import Spec

__all__ = ["Case", "build"]


class Case(NamedTuple):
    """One row, ready to run."""

    run: Callable[[Tensor], Tensor]
    """The forward pass; backward starts from what it returns."""
    input: Tensor
    module: nn.Module
    """What holds the weights."""
    note: str = ""
    finish: Callable[[], None] = lambda: None
    """What is left to do after backward: the optimiser's step, where the workload has one."""
    spiking: Sequence[nn.Module] = ()
    """Modules whose outputs are counted for the spike rate; none: the output of ``run`` is spikes."""

    def clear(self) -> None:
        """Forget the gradients of the pass before."""
        self.input.grad = None
        self.module.zero_grad()

    def gradient(self, output: Tensor, seed: int) -> Tensor:
        """What backward starts from: a fixed gradient without structure, 1 for a loss."""
        if output.dim() == 0:
            return torch.ones_like(output)
        drawn = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed))
        return drawn.to(output.device)


def build(spec: Spec) -> Case:
    """Make a row ready to run, on its device.

    Raises:
        ImportError: its library is not installed.
        NotOfferedError: its library has no such layer.
    """
    torch.manual_seed(spec.seed)
    if spec.net == "conv":
        return _conv(spec)
    x = input_of(spec)
    if spec.backend:
        net = snnlib_net(spec, spec.backend).to(spec.device)
        note = "plain loop over x.unbind(0)" if spec.backend == "reference" else ""
        return Case(lambda x: net(x)[0], x.to(spec.device).requires_grad_(), net, note)
    layer = peer_layer(spec)
    if spec.net == "layer":
        x = x * layer.gain
    if layer.batch_first:
        x = x.transpose(0, 1).contiguous()
    module = layer.module.to(spec.device)
    return Case(layer.run, x.to(spec.device).requires_grad_(), module, layer.note)


def _conv(spec: Spec) -> Case:
    """A training step; the images are data, and no gradient reaches them."""
    spiking: list[nn.Module] = []
    note = ""
    if spec.peer == "floor":
        net: nn.Module = _AllSteps(*conv_layers(spec))
        note = "all steps in one call to each layer"
    elif spec.backend:
        net = snnlib_net(spec, spec.backend)
        note = f"{net.chunk_size} steps at a time" if net.chunk_size else "all steps in one call to each layer"
        spiking = [module for module in net.modules() if isinstance(module, snnlib.LIF)]
    elif spec.peer == "norse":
        net, spiking = _norse_net(spec)
        note = "ConvNet4, a step at a time"
    else:
        raise NotOfferedError("the net of this workload is Norse's; nobody else has it")
    net.to(spec.device)
    optimizer = torch.optim.Adam(net.parameters(), 1e-4)
    labels = torch.randint(CLASSES, (spec.batch_size,), generator=random(spec, 2)).to(spec.device)

    def loss(x: Tensor) -> Tensor:
        output: Any = net(x)
        voltage: Tensor = output[0] if isinstance(output, tuple) else output
        return nn.functional.cross_entropy(voltage.amax(0), labels)

    def finish() -> None:
        optimizer.step()

    return Case(loss, input_of(spec).to(spec.device), net, note, finish, spiking)


class _AllSteps(nn.Sequential):
    """Layers without time, run once over ``[T*B, ...]``."""

    def forward(self, input: Tensor) -> Tensor:
        steps, batch = input.shape[:2]
        return cast(Tensor, super().forward(input.flatten(0, 1)).unflatten(0, (steps, batch)))


def _norse_net(spec: Spec) -> tuple[nn.Module, list[nn.Module]]:
    import norse.torch as norse
    from norse.torch.models.conv import ConvNet4

    net = ConvNet4()
    net.conv1, _, second, _, _, net.fc1, _ = conv_layers(spec)
    with torch.no_grad():
        for own, ours in zip(net.conv2.parameters(), second.parameters(), strict=True):
            own.copy_(ours / 10.0)  # it multiplies by ten itself
    net.out = norse.LILinearCell(spec.features, CLASSES)
    return net, [net.lif0, net.lif1, net.lif2]
