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
    "arrive", "cos", "div", "exp", "expm1", "floor", "last_bit", "log", "log1p", "part", "power", "product",
    "products", "rows", "rows_of", "sin", "sqrt", "tanh", "wait", "whole", "with_last_bit",
]  # fmt: skip

C = tl.constexpr


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
def with_last_bit(value, on):
    """The number with its last bit set where ``on`` is not 0, and unset elsewhere."""
    if value.dtype == tl.float64:
        bits = (value.to(tl.int64, bitcast=True) & -2) | tl.where(on != 0, 1, 0)
        return bits.to(tl.float64, bitcast=True)
    else:  # noqa: RET505
        bits = (value.to(tl.int32, bitcast=True) & -2) | tl.where(on != 0, 1, 0)
        return bits.to(tl.float32, bitcast=True)


@triton.jit
def last_bit(value):
    """1 where the last bit of the number is set, else 0."""
    if value.dtype == tl.float64:
        return tl.where((value.to(tl.int64, bitcast=True) & 1) != 0, 1.0, 0.0).to(tl.float64)
    else:  # noqa: RET505
        return tl.where((value.to(tl.int32, bitcast=True) & 1) != 0, 1.0, 0.0).to(tl.float32)


@triton.jit
def rows(pointer, at, inside, stride, first, steps, COUNT: C):  # noqa: N803
    """Rows ``first, first + 1, ...`` of a sequence of ``steps``, COUNT of them, zero after the last."""
    found = ()
    for k in tl.static_range(COUNT):
        found = found + (tl.load(pointer + k * stride + at, inside & (first + k < steps), 0.0),)  # noqa: RUF005
    return found


@triton.jit
def part(values, first: C, COUNT: C):  # noqa: N803
    """COUNT of a tuple, from the first on."""
    found = ()
    for k in tl.static_range(COUNT):
        found = found + (values[first + k],)  # noqa: RUF005
    return found


@triton.jit
def product(v, weights):
    """``out[n] = sum over k of v[k] weights[k, n]`` for one sample, weights in registers."""
    return tl.sum(v[:, None] * weights, axis=0)


@triton.jit
def rows_of(weights_, column, size, DEEP: C, CHUNKS: C):  # noqa: N803
    """Rows ``column`` of weights ``[size, size]``, DEEP numbers at a time: CHUNKS tiles ``[columns, DEEP]``."""
    found = ()
    for chunk in tl.static_range(CHUNKS):
        k = chunk * DEEP + tl.arange(0, DEEP)
        inside = (column < size)[:, None] & (k < size)[None, :]
        at = column.to(tl.int64)[:, None] * size + k[None, :]
        found = found + (tl.load(weights_ + at, inside, 0.0),)  # noqa: RUF005
    return found


@triton.jit
def products(v_, weights, first, samples, size, SAMPLES: C, COLUMNS: C, DEEP: C):  # noqa: N803
    """``out[s, n] = sum over k of v[first + s, k] weights[n, k]``.

    Parameters:
        v_: pointer to ``[samples, size]``.
        weights: of COLUMNS neurons n, from :func:`rows_of`.
    """
    sample = tl.arange(0, SAMPLES)[:, None]
    total = tl.zeros([SAMPLES, COLUMNS], v_.dtype.element_ty)
    for s in tl.static_range(SAMPLES):
        parts = tl.zeros([COLUMNS, DEEP], v_.dtype.element_ty)
        for chunk in tl.static_range(len(weights)):
            k = chunk * DEEP + tl.arange(0, DEEP)
            at = (first + s).to(tl.int64) * size + k
            v = tl.load(v_ + at, (k < size) & (first + s < samples), 0.0)
            parts = tl.fma(tl.broadcast_to(v[None, :], [COLUMNS, DEEP]), weights[chunk], parts)
        total = tl.where(sample == s, tl.sum(parts, axis=1)[None, :], total)
    return total


@triton.jit
def arrive(meeting_):
    """All that this program has stored can be seen by those that :func:`wait` for it."""
    tl.debug_barrier()
    tl.atomic_add(meeting_, 1, sem="release", scope="gpu")


@triton.jit
def wait(meeting_, number):
    """Until so many programs arrived."""
    while tl.atomic_add(meeting_, 0, sem="acquire", scope="gpu") < number:
        pass
    tl.debug_barrier()
