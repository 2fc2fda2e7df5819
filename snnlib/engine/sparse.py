"""Products with weights that on the CPU multiply only what is not zero, forward and for the weights' gradient.

Of a layer of spikes a tenth is not zero, and that share of the multiplications is enough. The gradient of the
input is a product with what comes from behind, which is dense: that one is torch's.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from snnlib.engine.check import check_backend
from snnlib.engine.llvm.machine import Array, as_array, shared, unavailable
from snnlib.engine.llvm.team import together
from snnlib.engine.memory import empty, on_cpu, zeros_on_cpu
from snnlib.engine.sizes import LANES
from snnlib.engine.threads import DEAR, shares_of
from snnlib.engine.watched import is_compiled, is_concrete

__all__ = ["BACKENDS", "conv2d", "linear"]

BACKENDS = ("auto", "reference", "cpu")
"""Who multiplies: whoever is faster, torch, or loops of snnlib's own where they can."""

_STRIP = 2 * LANES
"""Output channels that are done at a time, the least that there must be."""
_SPARSE = 4
"""One number of so many may be other than zero."""
_LOOKED_AT = 1 << 15
"""Numbers that are looked at for that, or a few more."""
_WORTH = 1 << 24
"""Multiplications of the dense product from which looking for zeros is worth its while."""
_GROUP = 1 << 17
"""Bytes of the gradient that are taken at a time, which stay in the second cache."""
_LARGEST_POOL = 16
"""Pixels on a side of a window: which of all was the largest is a number of 8 bits."""

_Pair = Sequence[int]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Pair = (1, 1),
    padding: str | _Pair = (0, 0),
    dilation: _Pair = (1, 1),
    groups: int = 1,
    backend: str = "auto",
    pool: int = 1,
) -> Tensor:
    """:func:`torch.nn.functional.conv2d`, of spikes.

    ::

        output[n, o, y, x] = bias[o] + sum over c, i, j of input[n, c, y + i - padding, x + j - padding]
                                                            weight[o, c, i, j]

    On the CPU only what is not zero is multiplied: where less than a quarter is, of float32 or float64, with a
    stride and a dilation of 1, one group and 32 output channels or more. All else is torch's own convolution,
    and so is what a compiler, ``torch.func``, autocast or forward-mode differentiation follows. Fastest with
    ``memory_format=torch.channels_last``, other maps are copied. A weight that is not finite makes NaN only
    where it meets a number that is not zero.

    Parameters:
        input: ``[N, C, H, W]``.
        weight: ``[O, C / groups, KH, KW]``.
        bias: ``[O]``.
        stride, padding, dilation, groups: as in torch, pairs.
        backend: "auto", "reference" for torch's convolution always, or "cpu" for multiplying what is not zero
            wherever that can be done, be it slower.
        pool: return the largest of each ``pool`` times ``pool`` pixels, as an ``nn.MaxPool2d(pool)`` behind it.
            The maps of all samples are then never in memory; their gradient is.

    Raises:
        ValueError: ``backend`` is another.
    """
    check_backend(backend, BACKENDS)
    if backend != "reference" and not is_compiled() and input.dim() == weight.dim() == 4:
        whole = weight.shape[2:] == input.shape[2:]
        large = backend == "cpu" or len(input) * input.shape[2:].numel() * weight.numel() >= _WORTH
        ones = *stride, *dilation, groups
        if (whole or large) and _is_possible(input, weight, bias, padding, ones, pool):
            if whole and not any(padding):  # a linear map of all that there is
                flat, weights = (_last(value).flatten(1) for value in (input, weight))
                return linear(flat, weights, bias, backend)[..., None, None]
            if large and (backend == "cpu" or _is_sparse(input)):
                output = _Sparse.apply(input, weight, bias, padding, pool).permute(0, 3, 1, 2)
                last = _lies_last(input) or _lies_last(weight)
                return cast(Tensor, output if last else output.contiguous())
    maps = functional.conv2d(input, weight, bias, stride, padding, dilation, groups)
    return maps if pool == 1 else functional.max_pool2d(maps, pool)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, backend: str = "auto") -> Tensor:
    """:func:`torch.nn.functional.linear`, of spikes. When only what is not zero is multiplied: :func:`conv2d`.

    ::

        output = input weight^T + bias

    Parameters:
        input: ``[..., N]``.
        weight: ``[M, N]``.
        bias: ``[M]``.
        backend: as in :func:`conv2d`.

    Raises:
        ValueError: ``backend`` is another.
    """
    check_backend(backend, BACKENDS)
    if backend == "reference" or is_compiled():
        return functional.linear(input, weight, bias)
    large = backend == "cpu" or input.numel() * len(weight) >= _WORTH
    strided = input.layout == weight.layout == torch.strided
    if large and input.dim() > 1 and weight.dim() == 2 and strided:  # maps of one pixel
        pixels, filters = input.flatten(0, -2)[..., None, None], weight[..., None, None]
        possible = _is_possible(pixels, filters, bias, (0, 0), (), 1)
        if possible and (backend == "cpu" or _is_sparse(pixels)):
            output: Tensor = _Sparse.apply(pixels, filters, bias, (0, 0), 1)
            return output.view(*input.shape[:-1], -1)
    return functional.linear(input, weight, bias)


def _is_possible(
    input: Tensor, weight: Tensor, bias: Tensor | None, padding: str | _Pair, ones: Sequence[int], pool: int
) -> bool:
    tensors = [value for value in (input, weight, bias) if value is not None]
    return (
        all(is_concrete(value) and value.layout == torch.strided for value in tensors)
        and set(ones) <= {1}
        and not isinstance(padding, str)
        and all(type(value) in (Tensor, torch.nn.Parameter) and not value.is_neg() for value in tensors)
        and input.shape[1] == weight.shape[1]
        and len(weight) >= _STRIP
        and (bias is None or bias.shape == weight.shape[:1])
        and all(0 <= p < k for p, k in zip(padding, weight.shape[2:], strict=True))
        and 1 <= pool <= min(_LARGEST_POOL, *_sides(input, weight, padding))
        and input.dtype in (torch.float32, torch.float64)
        and {value.dtype for value in tensors} == {input.dtype}
        and not torch.is_autocast_enabled("cpu")
        and input.numel() > 0
        and not unavailable()
    )


def _is_sparse(input: Tensor) -> bool:
    """Whether most are zero of some of the numbers."""
    looked_at = -(-_LOOKED_AT // input[0].numel())
    some = input[:: -(-len(input) // looked_at)]
    return _SPARSE * int(torch.count_nonzero(some)) < some.numel()


class _Sparse(torch.autograd.Function):
    """The maps ``[N, H, W, O]``, pooled. They are put in torch's order outside of this: in a function of one's
    own they would be a view that nobody may write to."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, padding: _Pair, pool: int
    ) -> Tensor:
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        output, chosen = _convolve(input, weight, bias, padding, pool)
        ctx.save_for_backward(input, weight, chosen)
        ctx.padding, ctx.pool = padding, pool
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        input, weight, chosen = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        gradient = gradient.resolve_neg().permute(0, 3, 1, 2)
        many = not (is_concrete(gradient) and torch._C._has_storage(gradient))  # gradients at once
        if torch.is_grad_enabled() or many:  # or somebody may want the gradient of the gradient
            maps = _unpooled(gradient, chosen, _sides(input, weight, ctx.padding), ctx.pool)
            return *_dense(maps, input, weight, ctx.padding, wanted), None, None
        given = None
        if wanted[0]:
            maps = _of_maps(gradient, chosen, _sides(input, weight, ctx.padding), ctx.pool)
            given, *_ = _dense(maps, input, weight, ctx.padding, (True, False, False))
        grown = _grow(input, gradient, chosen, weight, ctx.padding, ctx.pool) if wanted[1] else None
        if grown is not None and not math.isfinite(grown.sum()):  # infinity may have met a zero of the margin
            maps = _of_maps(gradient, chosen, _sides(input, weight, ctx.padding), ctx.pool)
            _, grown, _ = _dense(maps, input, weight, ctx.padding, (False, True, False))
        return given, grown, gradient.sum((0, 2, 3)) if wanted[2] else None, None, None


def _dense(
    gradient: Tensor, input: Tensor, weight: Tensor, padding: _Pair, wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradients of input, weight and bias that are wanted, by torch."""
    if not any(wanted):
        return None, None, None
    if input.shape[2:] == weight.shape[2:] == (1, 1) and not any(wanted[1:]):  # a linear map
        return (gradient.flatten(1) @ weight.flatten(1))[..., None, None], None, None
    sizes = [len(weight)] if wanted[2] else None
    back = torch.ops.aten.convolution_backward
    made = back(gradient, input, weight, sizes, (1, 1), padding, (1, 1), False, (0, 0), 1, list(wanted))
    return tuple(made)


def _sides(input: Tensor, weight: Tensor, padding: _Pair) -> list[int]:
    """Height and width of the maps of a convolution."""
    sizes = zip(input.shape[2:], weight.shape[2:], padding, strict=True)
    return [n + 2 * p - k + 1 for n, k, p in sizes]


def _convolve(input: Tensor, weight: Tensor, bias: Tensor, padding: _Pair, pool: int) -> tuple[Tensor, Tensor]:
    """The output, channels last, and which pixel each number is, see :mod:`snnlib.engine.loops.convolve`."""
    count, size, (height, width) = len(input), len(weight), _sides(input, weight, padding)
    x, weights = _last(input), weight.permute(2, 3, 1, 0).contiguous()
    out = empty((count, height // pool, width // pool, size), input.dtype)
    chosen = on_cpu(*(out.shape if pool > 1 else (1, 1, 1, 1)), dtype=torch.uint8)
    bounds = x.shape[1] + 2 * padding[0], x.shape[2] + 2 * padding[1] + 1

    def room() -> list[Array]:
        maps = on_cpu(1, *((height, width, size) if pool > 1 else (1, 1, 1)), dtype=x.dtype)
        places = on_cpu(x[0].numel() + LANES, dtype=torch.int64)
        return [*map(as_array, (maps, places, zeros_on_cpu(*bounds, dtype=torch.int64)))]

    arrays = [*map(as_array, (x, weights, bias.contiguous(), out, chosen))]
    shares = shares_of(DEAR * count * height * width * size, count, 1)
    parts = [(room(), (*share, *padding, pool)) for share in shares]
    together(shared("convolve", "convolve", x.dtype).calls(arrays, parts))
    return out, chosen


def _grow(input: Tensor, gradient: Tensor, chosen: Tensor, weight: Tensor, padding: _Pair, pool: int) -> Tensor:
    """See :func:`snnlib.engine.loops.convolve.grow`."""
    (count, channels, height, width), (size, _, *filter) = input.shape, weight.shape
    x, given, strips = _last(input), _last(gradient), -(-size // _STRIP) * _STRIP
    plane = height + filter[0] - 1, width + filter[1] - 1, strips
    group = max(1, _GROUP // (math.prod(plane) * x.dtype.itemsize))

    def room() -> list[Array]:
        shapes = (*filter, channels, strips), (group, *plane)
        places = [on_cpu(n, dtype=torch.int64) for n in (channels + LANES, channels)]
        listed = channels, group * height * width
        lists = [on_cpu(*listed, dtype=torch.int64), on_cpu(*listed, dtype=x.dtype)]
        sums = (zeros_on_cpu(*shape, dtype=x.dtype) for shape in shapes)
        return [*map(as_array, (*sums, *places, *lists))]

    arrays = [*map(as_array, (x, given, chosen))]
    parts = [(room(), (*share, *padding, pool)) for share in shares_of(DEAR * given.numel(), count, 1)]
    together(shared("convolve", "grow", x.dtype).calls(arrays, parts))
    grown = functools.reduce(torch.add, [own[0][0] for own, _ in parts])[..., :size].permute(3, 2, 0, 1)
    return grown.contiguous(
        memory_format=torch.channels_last if _lies_last(weight) else torch.contiguous_format
    )


def _unpooled(gradient: Tensor, chosen: Tensor, sides: Sequence[int], pool: int) -> Tensor:
    """The gradient of the maps in torch's operators, which can be differentiated."""
    if pool == 1:
        return gradient
    here = functional.one_hot(chosen.permute(0, 3, 1, 2).long(), pool * pool)
    count, size, height, width = gradient.shape
    windows = (gradient[..., None] * here).reshape(count, size, height, width, pool, pool)
    maps = windows.transpose(3, 4).reshape(count, size, height * pool, width * pool)
    return functional.pad(maps, (0, sides[1] % pool, 0, sides[0] % pool))


def _of_maps(gradient: Tensor, chosen: Tensor, sides: Sequence[int], pool: int) -> Tensor:
    """The gradient of the maps, see :func:`snnlib.engine.loops.convolve.give_back`."""
    if pool == 1:
        return gradient
    given = _last(gradient)
    maps = empty((len(given), *sides, given.shape[-1]), given.dtype)
    for dim, side in enumerate(sides, start=1):  # what no window has
        maps.narrow(dim, side - side % pool, side % pool).zero_()

    arrays = [*map(as_array, (given, chosen, maps))]
    parts = [((), (*share, pool)) for share in shares_of(maps.numel(), len(maps), 1)]
    together(shared("convolve", "give_back", given.dtype).calls(arrays, parts))
    return maps.permute(0, 3, 1, 2)


def _lies_last(value: Tensor) -> bool:
    """Whether the channels of a pixel lie side by side, and the pixels of a row."""
    return value.stride(1) == 1 and value.stride(3) == value.shape[1]


def _last(value: Tensor) -> Tensor:
    """``[N, H, W, C]``, contiguous."""
    return value.permute(0, 2, 3, 1).contiguous()
