"""A residual network of spiking neurons."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import log_softmax

from snnlib.engine.scan import Backend
from snnlib.module.lift import Lift
from snnlib.module.neuron import check_maker
from snnlib.module.sequential import SequentialState
from snnlib.module.sparse import SpikeConv2d, weigher

__all__ = ["JOINS", "ResNet", "Residual"]

JOINS = ("current", "spikes")
"""What the two ways through a block add up."""


class ResNet(nn.Module):
    """Spiking residual blocks and a readout that is averaged over time.

    ::

        convolution, batch norm, neurons                                             width channels
        blocks[k] times Residual, the first of each stage k > 0 with stride 2        width 2^k channels
        mean over the map, dropout, linear, mean over time, log-softmax

    A batch norm takes mean and variance over time, batch and map together, and its weight begins with
    ``gain``: Zheng et al. let the current of a neuron begin with a standard deviation of one threshold, so that
    some neurons of every layer spike. With :class:`.LIF` at rest a current moves the membrane by
    ``dt tau_mem_inv`` of itself in one step, which makes it ``gain = v_th / (dt tau_mem_inv)``.

    Parameters:
        shape: of one image, (C, H, W).
        classes: number of classes.
        neuron: makes a layer of neurons, such as ``LIF`` or ``nn.ReLU``.
        width: channels of the first stage.
        blocks: number of blocks in each stage; (3, 3, 2) is the ResNet-19 of Zheng et al. without its hidden
            linear layer.
        gain: what the weights of the batch norms begin with.
        join: see :class:`Residual`.
        dropout: probability with which an input of the readout is dropped in training.
        backend: of the convolutions, see :func:`.weigher`.

    Raises:
        ValueError: ``neuron`` is a layer, or ``join`` is another.

    Shapes:
        input ``[T, B, C, H, W]``, output log-probabilities ``[B, classes]``.

    Source:
        Zheng et al. 2021, Going deeper with directly-trained larger spiking neural networks; Fang et al. 2021,
        Deep residual learning in spiking neural networks.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        neuron: Callable[[], nn.Module],
        width: int = 128,
        blocks: Sequence[int] = (3, 3, 2),
        gain: float = 1.0,
        join: str = "current",
        dropout: float = 0.0,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        check_maker(neuron)
        layers: list[nn.Module] = [_convolution(shape[0], width, 3, 1, gain, backend), neuron()]
        maps = width
        for stage, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(Residual(maps, width * 2**stage, stride, neuron, gain, join, backend))
                maps = width * 2**stage
        readout = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(maps, classes)]
        self.layers = SequentialState(*layers, *(Lift(module) for module in readout))

    def forward(self, input: Tensor) -> Tensor:
        voltage, _ = self.layers(input)
        return log_softmax(voltage.mean(0), dim=-1)


class Residual(nn.Module):
    """Two convolutions with a way around them, which joins them before the last neurons or after.

    ::

        inner          = norm(conv(neurons(norm(conv(input)))))
        output, state  = neurons(inner + shortcut(input))                     join="current"
        output, state  = neurons(inner) + shortcut(input)                     join="spikes"

    The shortcut is the identity, or where the shape changes a convolution of size 1 with a batch norm, for
    spikes with neurons too. As two currents meet, the batch norms before their sum begin with
    ``gain / sqrt(2)`` (Zheng et al. 2021). Sums of spikes may be 2 and more; with inner neurons that are silent
    such a block is the identity, which neurons at the end are not (Fang et al. 2021).

    Parameters:
        maps, wanted: channels of the input and of the output.
        stride: of the first convolution.
        neuron: makes a layer of neurons.
        gain: what the weights of the batch norms begin with.
        join: "current" or "spikes".
        backend: of the convolutions, see :func:`.weigher`.

    Shapes:
        input ``[T, B, maps, H, W]``, output ``[T, B, wanted, H / stride, W / stride]``, rounded up.

    Raises:
        ValueError: ``neuron`` is a layer, or ``join`` is another.
    """

    over_time = True

    def __init__(
        self,
        maps: int,
        wanted: int,
        stride: int,
        neuron: Callable[[], nn.Module],
        gain: float = 1.0,
        join: str = "current",
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        if join not in JOINS:
            raise ValueError(f"join must be one of {JOINS}, got {join!r}")
        check_maker(neuron)
        spikes = join == "spikes"
        last = gain if spikes else gain / 2**0.5
        path: list[nn.Module] = [_convolution(maps, wanted, 3, stride, gain, backend), neuron()]
        path.append(_convolution(wanted, wanted, 3, 1, last, backend))
        around: list[nn.Module] = []
        if maps != wanted or stride != 1:
            around.append(_convolution(maps, wanted, 1, stride, last, backend))
        if spikes:
            path.append(neuron())
            around += [neuron()] if around else []
        self.path, self.shortcut = SequentialState(*path), SequentialState(*around)
        self.neurons = SequentialState(*([] if spikes else [neuron()]))

    def forward(self, input: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        path, around, after = (None, None, None) if state is None else state
        inner, path = self.path(input, path)
        beside, around = self.shortcut(input, around)
        output, after = self.neurons(inner + beside, after)
        return output, (path, around, after)


def _convolution(maps: int, wanted: int, size: int, stride: int, gain: float, backend: Backend) -> Lift:
    norm = nn.BatchNorm2d(wanted)
    nn.init.constant_(norm.weight, gain)
    layers: list[nn.Module] = []
    if size == 1 and stride > 1:
        # a convolution that steps over pixels, with few channels that lie side by side, writes beyond memory
        # in oneDNN's backward pass (uxlfoundation/oneDNN, issue 6035): the pixels are picked before it
        layers, stride = [nn.AvgPool2d(1, stride)], 1
    options: dict[str, Any] = {"padding": size // 2, "bias": False, "backend": weigher(backend)}
    return Lift(nn.Sequential(*layers, SpikeConv2d(maps, wanted, size, stride, **options), norm))
