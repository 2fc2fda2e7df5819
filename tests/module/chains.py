"""Small chains that spike, what they are fed, and who counts the calls of their modules."""

import torch
from torch import Tensor, nn

from snnlib import LI, LIF, LIFParameters, SequentialState
from tests.neurons import same

__all__ = ["B", "Calls", "T", "close", "conv_net", "easy", "images"]

T, B = 6, 3


class Calls:
    """Counts the calls of a module and their batch sizes, by a forward hook."""

    def __init__(self, module: nn.Module) -> None:
        self.rows: list[int] = []
        module.register_forward_hook(lambda module, args, output: self.rows.append(len(args[0])))


def easy(**options) -> LIFParameters:
    """A low threshold, so that a small network spikes at every layer."""
    return LIFParameters(v_th=0.1, **options)


def conv_net() -> SequentialState:
    return SequentialState(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        LIF(easy()),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 5),
        LI(),
    )


def images(steps: int = T) -> Tensor:
    return torch.rand(steps, B, 1, 6, 6)


def close(one, other):
    same(one, other, rtol=1e-5, atol=1e-5)
