"""A residual network of spiking neurons."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import log_softmax

from snnlib.module.sequential import Lift, SequentialState, is_stateful

__all__ = ["ResNet", "Residual"]


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
        dropout: probability with which an input of the readout is dropped in training.

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
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(shape[0], width, 3, 1, gain), neuron()]
        maps = width
        for stage, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(Residual(maps, width * 2**stage, stride, neuron, gain))
                maps = width * 2**stage
        readout = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(maps, classes)]
        self.layers = SequentialState(*layers, *(Lift(module) for module in readout))

    def forward(self, input: Tensor) -> Tensor:
        voltage, _ = self.layers(input)
        return log_softmax(voltage.mean(0), dim=-1)


class Residual(nn.Module):
    """Two convolutions with a way around them.

    ::

        current        = norm(conv(neurons(norm(conv(input)))))
        output, state  = neurons(current + shortcut(input))

    The shortcut is the identity, or where the shape changes a convolution of size 1 with a batch norm. As
    two currents meet, the batch norms before the sum begin with ``gain / sqrt(2)`` (Zheng et al. 2021).

    Parameters:
        maps, wanted: channels of the input and of the output.
        stride: of the first convolution.
        neuron: makes a layer of neurons.
        gain: what the weights of the batch norms begin with.

    Shapes:
        input ``[T, B, maps, H, W]``, output ``[T, B, wanted, H / stride, W / stride]``, rounded up.
    """

    over_time = True

    def __init__(
        self, maps: int, wanted: int, stride: int, neuron: Callable[[], nn.Module], gain: float = 1.0
    ) -> None:
        super().__init__()
        half = gain / 2**0.5
        first, second = _convolution(maps, wanted, 3, stride, gain), _convolution(wanted, wanted, 3, 1, half)
        self.path = SequentialState(first, neuron(), second)
        same = maps == wanted and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(maps, wanted, 1, stride, half)
        self.neurons = neuron()

    def forward(self, input: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        path, neurons = (None, None) if state is None else state
        current, path = self.path(input, path)
        current = current + self.shortcut(input)
        if not is_stateful(self.neurons):
            return self.neurons(current), (path, None)
        output, neurons = self.neurons(current, neurons)
        return output, (path, neurons)


def _convolution(maps: int, wanted: int, size: int, stride: int, gain: float) -> Lift:
    norm = nn.BatchNorm2d(wanted)
    nn.init.constant_(norm.weight, gain)
    return Lift(nn.Sequential(nn.Conv2d(maps, wanted, size, stride, size // 2, bias=False), norm))
