"""The small convolutional network of the image tasks."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import log_softmax

from snnlib.engine.scan import Backend
from snnlib.functional.li import LIParameters
from snnlib.functional.lif import LIFParameters
from snnlib.module.li import LI
from snnlib.module.lif import LIF
from snnlib.module.neuron import check_maker
from snnlib.module.sequential import SequentialState
from snnlib.module.sparse import SpikeConv2d, weigher

__all__ = ["ConvNet"]


class ConvNet(nn.Module):
    """Spiking convolutions, a spiking hidden layer, a leaky readout.

    ::

        [convolution, max pooling, batch norm, LIF] for each of channels
        linear, batch norm, LIF
        linear, LI, maximum over time, log-softmax

    A map smaller than 8 pixels on a side is not pooled further, so any size of image serves.

    Parameters:
        shape: of one image, (C, H, W).
        classes: number of classes.
        channels: of the convolutions.
        hidden_size: neurons of the hidden layer.
        p: of the spiking neurons.
        readout: of the readout.
        dt: time step in s.
        kernel_size: of the convolutions, odd.
        dropout: probability with which a hidden spike is dropped in training.
        backend: what runs the neurons, see :func:`snnlib.engine.scan`; of the convolutions :func:`.weigher`.
        neuron: makes what stands in for a layer of ``LIF(p)``, such as ``nn.ReLU``.
        gain: what the weights of the batch norms begin with, see :class:`.ResNet`.

    Raises:
        ValueError: ``neuron`` is a layer, not what makes one, or ``kernel_size`` is even.

    Shapes:
        input ``[T, B, C, H, W]``, output log-probabilities ``[B, classes]``.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        channels: Sequence[int] = (32, 64),
        hidden_size: int = 256,
        p: LIFParameters = LIFParameters(),
        readout: LIParameters = LIParameters(),
        dt: float = 0.001,
        kernel_size: int = 3,
        dropout: float = 0.0,
        backend: Backend = "auto",
        neuron: Callable[[], nn.Module] | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_maker(neuron)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got kernel_size={kernel_size}")
        neuron = neuron or (lambda: LIF(p, dt, backend=backend))
        unbiased: dict[str, Any] = {"bias": False, "backend": weigher(backend)}
        maps, height, width = shape
        layers: list[nn.Module] = []
        for wanted in channels:
            pool = 2 if min(height, width) >= 8 else 1
            sizes = maps, wanted, kernel_size, 1, kernel_size // 2
            layers.append(SpikeConv2d(*sizes, pool=pool, **unbiased))
            layers += [nn.BatchNorm2d(wanted), neuron()]
            maps, height, width = wanted, height // pool, width // pool
        layers += [
            # a linear map of all that there is, in the order in which it lies in memory
            SpikeConv2d(maps, hidden_size, (height, width), **unbiased),
            nn.Flatten(),
            nn.BatchNorm1d(hidden_size),
            neuron(),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, classes),
            LI(readout, dt, backend=backend),
        ]
        for layer in layers:
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.constant_(layer.weight, gain)
        self.layers = SequentialState(*layers)

    def forward(self, input: Tensor) -> Tensor:
        voltage, _ = self.layers(input)
        return log_softmax(voltage.amax(0), dim=-1)
