"""Modules without a state as nodes of NIR, and back."""

from collections.abc import Sequence
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import skip_init

from snnlib.exchange.scale import Scale
from snnlib.module.sparse import SpikeConv2d, SpikeLinear

__all__ = ["STATELESS", "array", "module_of", "stateless_node", "tensor"]


def array(given: Tensor) -> NDArray[Any]:
    """A tensor's values; NumPy has no bfloat16."""
    given = given.detach().cpu()
    return (given.float() if given.dtype == torch.bfloat16 else given).numpy()


def tensor(values: Any, dtype: torch.dtype) -> Tensor:
    """A node's values: an array, or a tensor, which some programs leave in their graphs."""
    given = torch.as_tensor(values).detach()
    if given.is_complex():
        raise ValueError(f"values must be real, got {given.dtype}")
    return given.to(dtype, copy=True)


def stateless_node(module: nn.Module, features: Sequence[int]) -> nir.NIRNode:
    """A module as a node.

    Parameters:
        module: one of :data:`STATELESS`.
        features: shape of its input without the batch.

    Raises:
        ValueError: NIR has it not with these options.
    """
    return _WRITERS[type(module)](module, tuple(features))


def _linear(module: nn.Linear, features: tuple[int, ...]) -> nir.NIRNode:
    if len(features) != 1:
        raise ValueError(f"NIR has it for one dimension [features], got shape {list(features)}")
    weight = array(module.weight)
    return nir.Linear(weight) if module.bias is None else nir.Affine(weight, array(module.bias))


def _conv2d(module: nn.Conv2d, features: tuple[int, ...]) -> nir.NIRNode:
    if len(features) != 3:
        raise ValueError(f"it takes [C, H, W], got shape {list(features)}")
    if module.padding_mode != "zeros":
        raise ValueError(f"NIR pads with zeros, got padding_mode={module.padding_mode!r}")
    if getattr(module, "pool", 1) > 1:
        raise ValueError(f"NIR has no max pooling, got pool={module.pool}")
    weight = array(module.weight)
    bias = np.zeros(len(weight), weight.dtype) if module.bias is None else array(module.bias)
    return nir.Conv2d(features[1:], weight, module.stride, module.padding, module.dilation, module.groups, bias)


def _flatten(module: nn.Flatten, features: tuple[int, ...]) -> nir.NIRNode:
    # NIR does not count the batch
    start, end = (dim % (len(features) + 1) - 1 for dim in (module.start_dim, module.end_dim))
    if not 0 <= start <= end:
        got = f"start_dim={module.start_dim}, end_dim={module.end_dim}"
        raise ValueError(f"NIR has no batch that could be flattened, got {got}")
    return nir.Flatten(np.array(features), start, end if end < len(features) - 1 else -1)


def _avg_pool2d(module: nn.AvgPool2d, features: tuple[int, ...]) -> nir.NIRNode:
    padding = _pair(module.padding)
    if module.ceil_mode or (any(padding) and not module.count_include_pad):
        raise ValueError("NIR has neither ceil_mode=True nor padding with count_include_pad=False")
    if module.divisor_override not in (None, 1):
        raise ValueError(f"NIR has the mean and the sum, got divisor_override={module.divisor_override}")
    kind = nir.AvgPool2d if module.divisor_override is None else nir.SumPool2d
    return kind(*(np.array(_pair(size)) for size in (module.kernel_size, module.stride, padding)))


def _lp_pool2d(module: nn.LPPool2d, features: tuple[int, ...]) -> nir.NIRNode:
    if module.norm_type != 1 or module.ceil_mode:
        got = f"norm_type={module.norm_type}, ceil_mode={module.ceil_mode}"
        raise ValueError(f"NIR has the sum, norm_type=1 without ceil_mode, got {got}")
    stride = module.kernel_size if module.stride is None else module.stride
    return nir.SumPool2d(*(np.array(_pair(size)) for size in (module.kernel_size, stride, 0)))


def _scale(module: Scale, features: tuple[int, ...]) -> nir.NIRNode:
    return nir.Scale(np.broadcast_to(array(module.scale), features).copy())


_WRITERS: dict[type[nn.Module], Any] = {
    nn.AvgPool2d: _avg_pool2d,
    nn.Conv2d: _conv2d,
    nn.Flatten: _flatten,
    nn.LPPool2d: _lp_pool2d,
    nn.Linear: _linear,
    Scale: _scale,
    SpikeConv2d: _conv2d,
    SpikeLinear: _linear,
}

STATELESS = tuple(_WRITERS)
"""The modules that :func:`stateless_node` knows."""


def module_of(node: nir.NIRNode, dtype: torch.dtype) -> nn.Module:
    """A node as a module.

    Raises:
        ValueError: there is none, or its values have shapes that do not fit.
    """
    if isinstance(node, nir.Affine | nir.Linear):
        return _read_linear(node, dtype)
    if isinstance(node, nir.Conv2d):
        return _read_conv2d(node, dtype)
    if isinstance(node, nir.Flatten):
        return nn.Flatten(*(int(dim) + (dim >= 0) for dim in (node.start_dim, node.end_dim)))
    if isinstance(node, nir.AvgPool2d | nir.SumPool2d):
        size, stride, padding = (_pair(value) for value in (node.kernel_size, node.stride, node.padding))
        divisor = 1 if isinstance(node, nir.SumPool2d) else None
        return nn.AvgPool2d(size, stride, padding, divisor_override=divisor)
    if isinstance(node, nir.Scale):
        return Scale(tensor(node.scale, dtype))
    raise ValueError("it has no counterpart in snnlib")


def _read_linear(node: nir.NIRNode, dtype: torch.dtype) -> nn.Module:
    weight, bias = tensor(node.weight, dtype), getattr(node, "bias", None)
    if weight.dim() != 2:
        raise ValueError(f"weight must be [to, from], got shape {list(weight.shape)}")
    module: nn.Module = skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None)
    _fill(module, weight, bias)
    return module


def _read_conv2d(node: nir.Conv2d, dtype: torch.dtype) -> nn.Module:
    weight, groups = tensor(node.weight, dtype), int(node.groups)
    if weight.dim() != 4:
        raise ValueError(f"weight must be [C_out, C_in, H, W], got shape {list(weight.shape)}")
    module: nn.Module = skip_init(
        nn.Conv2d,
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=_pair(node.stride),
        padding=node.padding if isinstance(node.padding, str) else _pair(node.padding),
        dilation=_pair(node.dilation),
        groups=groups,
    )
    _fill(module, weight, node.bias)
    return module


def _fill(module: nn.Module, weight: Tensor, bias: Any) -> None:
    module.weight = nn.Parameter(weight)
    if bias is not None:
        bias = tensor(bias, weight.dtype)
        if bias.shape != (len(weight),):
            raise ValueError(f"bias must be [{len(weight)}], got shape {list(bias.shape)}")
        module.bias = nn.Parameter(bias)


def _pair(value: Any) -> tuple[int, int]:
    values = np.asarray(value).reshape(-1)
    if len(values) not in (1, 2):
        raise ValueError(f"a size must be one number or (height, width), got {value}")
    return int(values[0]), int(values[-1])
