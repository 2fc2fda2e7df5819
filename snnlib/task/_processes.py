"""Several processes that train one net: who is who, sums over all of them, batch norms over all of them."""

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from snnlib.engine.state import integration_dtype

__all__ = ["is_chief", "place", "share_batch_norms", "summed"]


def is_chief() -> bool:
    """Whether this process is the first of those that train one net, or the only one."""
    ranks = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def share_batch_norms(net: nn.Module) -> nn.Module:
    """Let every batch norm take mean and variance over the batches of all processes.

    ``torch.nn.SyncBatchNorm`` does it on GPUs only. With one process nothing changes.
    """
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.forward = _SharedNorm(module)  # type: ignore[method-assign,assignment]
    return net


class _SharedNorm:
    """The forward of a batch norm over all processes.

    ::

        m = sum x / n
        v = sum (x - m)^2 / n          over the n values of a channel in all processes
        y = weight (x - m) / sqrt(v + eps) + bias

    It is computed in float32 at least, and y has the dtype of x.
    """

    def __init__(self, norm: Any) -> None:
        self.norm, self.alone = norm, norm.forward

    def __call__(self, x: Tensor) -> Tensor:
        norm = self.norm
        if not norm.training or place()[1] == 1:
            return self.alone(x)  # type: ignore[no-any-return]
        over = [d for d in range(x.dim()) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(x.dim())]
        dtype = x.dtype
        x = x.to(integration_dtype(dtype))  # bfloat16 counts to 256, and sums as badly
        n = summed(x.new_tensor(float(x.numel() // x.shape[1])))
        mean = summed(x.sum(over)) / n
        centred = x - mean.view(shape)
        var = summed(centred.square().sum(over)) / n
        with torch.no_grad():
            norm.num_batches_tracked += 1
            for kept, now in ((norm.running_mean, mean), (norm.running_var, var * n / (n - 1))):
                kept.lerp_(now.to(kept.dtype), norm.momentum)
        scale = norm.weight * (var + norm.eps).rsqrt()
        return (centred * scale.view(shape) + norm.bias.view(shape)).to(dtype)  # type: ignore[no-any-return]


def place() -> tuple[int, int]:
    """Which process this is, and of how many."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class _Sum(torch.autograd.Function):
    """The sum over all processes, in which each has the same part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Sum.forward(ctx, grads[0].contiguous())


def summed(x: Tensor) -> Tensor:
    return x if place()[1] == 1 else _Sum.apply(x)
