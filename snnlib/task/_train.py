"""What training takes from the flags: device, optimiser and its schedule; and when a loss ends a run."""

import math

import numpy as np
import torch
from absl import flags
from torch import Tensor, nn

from snnlib.task._error import DivergedError, RunError

__all__ = ["device", "finite", "gradients", "memory_format", "optimizer", "schedule"]


def finite(loss: Tensor) -> float:
    """The loss as a number; ends the run where it is none."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise DivergedError(f"the loss is {value}")
    return value


def gradients(net: nn.Module) -> dict[str, Tensor]:
    """The gradients of a net by the names of its parameters."""
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def device(values: flags.FlagValues) -> torch.device:
    """The device that ``--device`` names."""
    if values.device == "cuda" and not torch.cuda.is_available():
        raise RunError("--device=cuda: torch finds no CUDA device; --device=cpu or --device=auto runs without")
    return torch.device("cuda" if values.device != "cpu" and torch.cuda.is_available() else "cpu")


def memory_format(values: flags.FlagValues) -> torch.memory_format:
    """The order of a net's images in memory that ``--channels_last`` names."""
    return torch.channels_last if values.channels_last else torch.contiguous_format


def optimizer(values: flags.FlagValues, net: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that ``--optimizer``, ``--learning_rate`` and ``--weight_decay`` name."""
    rate, decay = values.learning_rate, values.weight_decay
    if values.optimizer == "sgd":
        return torch.optim.SGD(net.parameters(), rate, momentum=0.9, weight_decay=decay)
    if values.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), rate, weight_decay=decay)
    return torch.optim.AdamW(net.parameters(), rate, weight_decay=decay)


def schedule(
    optim: torch.optim.Optimizer, steps: int, warmup: float = 0.1
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over a share of the steps, then half a cosine down to zero (Loshchilov & Hutter 2017)."""
    first = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < first:
            return (step + 1) / first
        return 0.5 + 0.5 * float(np.cos(np.pi * min(1.0, (step - first) / max(1, steps - first))))

    return torch.optim.lr_scheduler.LambdaLR(optim, factor)
