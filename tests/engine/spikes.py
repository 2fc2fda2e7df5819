"""Spikes for products that leave zeros out, what comes of those, and whether they did."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["everything", "is_sparse", "plain", "spikes"]


def spikes(*shape: int, share: float = 0.2, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers of which a share is not zero, and not all 1."""
    return torch.randn(shape, dtype=dtype) * (torch.rand(shape) < share)


def everything(product: Callable[..., Tensor], *tensors: Tensor, **options) -> list[Tensor]:
    """The output, and the gradients of a random projection of it."""
    inputs = [value.detach().clone().requires_grad_() for value in tensors]
    output = product(*inputs, **options)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(5), dtype=output.dtype)
    return [output, *torch.autograd.grad((output * weights).sum(), inputs)]


def is_sparse(output: Tensor) -> bool:
    """Whether zeros were left out."""
    seen, waiting = set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return any(node.name().startswith("_Sparse") for node in seen)


def plain(*tensors: Tensor, padding: tuple[int, int] = (0, 0), pool: int = 1) -> Tensor:
    """Torch's convolution, and its pooling."""
    maps = functional.conv2d(*tensors, padding=padding)
    return functional.max_pool2d(maps, pool) if pool > 1 else maps
