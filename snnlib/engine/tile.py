"""What generated GPU kernels call: arithmetic on tiles, rounded as torch's own CUDA kernels round it.

Compiled, exp, tanh and their kin are those of NVIDIA's libdevice, which torch's CUDA kernels use too. Triton's
interpreter has no libdevice: there a tile is a NumPy array, and NumPy's functions of the same names serve.
Triton's own ``/``, ``tl.sqrt`` and ``tl.exp`` are approximations in float32, so they are not used.
"""

import numpy as np
import triton
import triton.language as tl
from triton.language.extra import libdevice

__all__ = [
    "cos", "div", "dots", "exp", "expm1", "floor", "log", "log1p", "power", "product", "rows", "sin", "sqrt",
    "tanh", "whole",
]  # fmt: skip


def _by_numpy(function):
    """A function of tiles for the interpreter."""
    from triton.runtime.interpreter import TensorHandle

    def apply(*tiles):
        values = np.broadcast_arrays(*(tile.handle.data for tile in tiles))
        like = max(tiles, key=lambda tile: len(tile.shape))
        return tl.tensor(TensorHandle(function(*values), like.handle.dtype), like.type)

    return apply


if triton.knobs.runtime.interpret:
    cos, exp, expm1, floor = map(_by_numpy, (np.cos, np.exp, np.expm1, np.floor))
    log, log1p, power = map(_by_numpy, (np.log, np.log1p, np.power))
    sin, tanh = map(_by_numpy, (np.sin, np.tanh))

    def whole(number):
        """An integer that ``range`` takes; Triton 3.6 makes none of an array since NumPy 2.5."""
        return int(number.handle.data.item())

else:
    cos, exp, expm1, floor = libdevice.cos, libdevice.exp, libdevice.expm1, libdevice.floor
    log, log1p, power = libdevice.log, libdevice.log1p, libdevice.pow
    sin, tanh = libdevice.sin, libdevice.tanh

    @triton.jit
    def whole(number):
        return number


@triton.jit
def div(a, b):
    """``a / b``, rounded once."""
    if b.dtype == tl.float64:
        return a / b
    else:  # noqa: RET505 (only one branch is compiled)
        return tl.div_rn(a, b)


@triton.jit
def sqrt(a):
    """The square root, rounded once."""
    if a.dtype == tl.float64:
        return tl.sqrt(a)
    else:  # noqa: RET505
        return tl.sqrt_rn(a)


@triton.jit
def rows(pointer, at, inside, stride, first, steps, COUNT: tl.constexpr):  # noqa: N803
    """Rows ``first, first + 1, ...`` of a sequence of ``steps``, COUNT of them, zero after the last."""
    found = ()
    for k in tl.static_range(COUNT):
        found = found + (tl.load(pointer + k * stride + at, inside & (first + k < steps), 0.0),)  # noqa: RUF005
    return found


@triton.jit
def product(v, weights):
    """``out[n] = sum over k of v[k] weights[k, n]`` for one sample, weights in registers."""
    return tl.sum(v[:, None] * weights, axis=0)


@triton.jit
def dots(v_, weights_, b, n, samples, size, SAMPLES: tl.constexpr, TILE: tl.constexpr, DEEP: tl.constexpr):  # noqa: N803
    """``out[b, n] = sum over k of v[b, k] weights[k, n]`` for a few samples, all read from memory.

    Parameters:
        v_, weights_: pointers to ``[samples, size]`` and ``[size, size]``.
        b, n: which samples ``[SAMPLES, 1]`` and columns ``[1, TILE]``.
        DEEP: how many k are read at once.
    """
    total = tl.zeros([SAMPLES, TILE], v_.dtype.element_ty)
    for start in tl.range(0, whole(size), DEEP):
        k = start + tl.arange(0, DEEP)
        v = tl.load(v_ + b * size + k[None, :], (b < samples) & (k[None, :] < size), 0.0)
        w = tl.load(weights_ + k[:, None] * size + n, (k[:, None] < size) & (n < size), 0.0)
        total += tl.dot(v, w, input_precision="ieee", out_dtype=v_.dtype.element_ty)
    return total
