"""Products with recurrent weights, which the fused loops of :mod:`snnlib.engine.cpu` call.

Each works on a block of samples at one time step; what belongs to one sample lies together, samples one after
the other. Sums are kept in registers, a strip of columns of a few rows at a time; the innermost loops are
written with LLVM's vectors (:mod:`snnlib.engine.vector`). A term may be multiplied and added with one rounding
("contract"); the order of the sums is fixed.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from snnlib.engine.emit_loops import LANES
from snnlib.engine.vector import Array, add_product, apart, arrays, bare, find, nonzero, ones, strip_of

__all__ = ["add", "copy", "grow", "multiply", "push"]

_WIDE, _WIDER = 2 * LANES, 4 * LANES
"""Columns of a strip: two vectors, or four where there are enough."""
_ROWS = 4
"""Rows that are summed at a time, so that what they share is read once for all."""


@apart
def add(a, out):
    """``out += a`` for one block."""
    for j in range(out.shape[0]):
        out[j] += a[j]


@apart
def copy(a, out):
    """``out = a`` for one block."""
    for j in range(out.shape[0]):
        out[j] = a[j]


@bare()
def multiply(heard, weights, out, active):
    """``out[s] = sum over m of heard[s, m] weights[m]``; where most are zero, only over those that are not.

    Parameters:
        heard: ``[samples * M]``.
        weights: ``[M, N]``, from row to column.
        out: ``[samples * N]``.
        active: room for M integers, and a vector of them.
    """
    size, width = weights.shape
    if width < _WIDE or not _is_sparse(heard):
        push(heard, weights, out)
        return
    wider = width - width % _WIDER
    for s in range(heard.shape[0] // size):
        count = find(heard, s * size, 0, size, active, 0)
        for j in range(0, wider, _WIDER):
            _gather_wider(heard, s * size, weights, active, count, out, s * width, j)
        for j in range(wider, width, _WIDE):  # the last strip goes over some columns again
            _gather(heard, s * size, weights, active, count, out, s * width, min(j, width - _WIDE))


@bare()
def push(given, weights, out):
    """``out[s] = sum over n of given[s, n] weights[n]``, dense.

    Parameters:
        given: ``[samples * N]``.
        weights: ``[N, M]``.
        out: ``[samples * M]``.
    """
    size, width = weights.shape
    samples = given.shape[0] // size
    fours = samples - samples % _ROWS
    if width < _WIDE:
        out[:] = 0
        for s in range(samples):
            for n in range(size):
                for j in range(width):
                    out[s * width + j] += given[s * size + n] * weights[n, j]
        return
    for j in range(0, width, _WIDE):
        column = min(j, width - _WIDE)  # the last strip goes over some columns again
        for s in range(0, fours, _ROWS):
            _push_four(given, s, weights, out, column)
        for s in range(fours, samples):
            _push_one(given, s, weights, out, column)


@bare()
def grow(heard, given, out, active):
    """``out[m] += sum over s of heard[s, m] given[s]``: the gradient of weights, of one step's samples.

    Parameters:
        heard: what the weights were multiplied by, ``[samples * M]``.
        given: gradients of the inputs of the neurons, ``[samples * N]``.
        out: ``[M, N]``, from row to column.
        active: room for M integers, and a vector of them.
    """
    size, width = out.shape
    samples = given.shape[0] // width
    if _is_sparse(heard):
        wider, wide = width - width % _WIDER, width - width % _WIDE
        for s in range(samples):
            count = find(heard, s * size, 0, size, active, 0)
            for j in range(0, wider, _WIDER):
                _scatter_wider(heard, s * size, given, s * width, active, count, out, j)
            for j in range(wider, wide, _WIDE):
                _scatter(heard, s * size, given, s * width, active, count, out, j)
            for k in range(count if wide < width else 0):
                for j in range(wide, width):
                    out[active[k], j] += heard[s * size + active[k]] * given[s * width + j]
        return
    fours, strips = size - size % _ROWS, width - width % _WIDE
    for m in range(0, fours, _ROWS):
        for j in range(0, strips, _WIDE):
            _grow_four(heard, given, samples, out, m, j)
    for s in range(samples):
        for m in range(size):
            for j in range(strips if m < fours else 0, width):
                out[m, j] += heard[s * size + m] * given[s * width + j]


@bare()
def _is_sparse(values):
    """Whether fewer than a quarter are other than zero, so that to look for them pays."""
    count, rest = 0, values.shape[0] % LANES
    for j in range(0, values.shape[0] - rest, LANES):
        count += ones(nonzero(values, j))
    for j in range(values.shape[0] - rest, values.shape[0]):
        count += values[j] != 0
    return 4 * count < values.shape[0]


# -- innermost loops, in LLVM's vectors ------------------------------------------------------------------


def _put(builder: Any, out: Array, begin: Any, vectors: Sequence[Any]) -> None:
    """Write the vectors of a strip."""
    for index, vector in zip(strip_of(builder, begin, len(vectors)), vectors, strict=True):
        out.store(vector, index)


def _sums(
    builder: Any, factors: Array, terms: Array, count: Any, visit: Any, rows: int, vectors: int = 2
) -> list[Any]:
    """Strips of ``sum over k of factor[row, k] term[k]``, some vectors for each row.

    Parameters:
        count: how many terms there are.
        visit: from k to the index of the term's strip, and to that of its factor for each row.
        rows, vectors: how many there are.
    """
    nothing = ir.Constant(factors.vector, None)
    places = [cgutils.alloca_once_value(builder, nothing) for _ in range(vectors * rows)]
    for place in places:  # "once" is at the entry of the function, which may come here again
        builder.store(nothing, place)
    with cgutils.for_range(builder, count) as loop:
        start, indices = visit(loop.index)
        strip = [terms.load(index) for index in strip_of(builder, start, vectors)]
        for k, index in enumerate(indices):
            factor = factors.spread(index)
            for place, part in zip(places[vectors * k : vectors * (k + 1)], strip, strict=True):
                builder.store(add_product(builder, builder.load(place), factor, part), place)
    return [builder.load(place) for place in places]


def _gathering(vectors: int) -> Any:
    @intrinsic
    def one_strip(typing, heard, a, weights, active, count, out, b, j):
        """One strip of columns of :func:`multiply` for the sample at ``heard[a]``, to ``out[b]``."""

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            heard, a, weights, active, count, out, b, j = arrays(context, builder, signature, args)

            def visit(k: Any) -> Any:
                row = active.scalar(k)
                return builder.add(builder.mul(row, weights.shape[1]), j), [builder.add(a, row)]

            _put(builder, out, builder.add(b, j), _sums(builder, heard, weights, count, visit, 1, vectors))
            return context.get_dummy_value()

        place = types.int64
        return types.void(heard, place, weights, active, place, out, place, place), build

    return one_strip


_gather, _gather_wider = _gathering(2), _gathering(4)


def _scattering(vectors: int) -> Any:
    @intrinsic
    def one_strip(typing, heard, a, given, b, active, count, out, j):
        """One strip of columns of :func:`grow` for the sample at ``heard[a]`` and ``given[b]``."""

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            heard, a, given, b, active, count, out, j = arrays(context, builder, signature, args)
            terms = [given.load(index) for index in strip_of(builder, builder.add(b, j), vectors)]
            with cgutils.for_range(builder, count) as loop:
                row = active.scalar(loop.index)
                factor = heard.spread(builder.add(a, row))
                begin = builder.add(builder.mul(row, out.shape[1]), j)
                for index, term in zip(strip_of(builder, begin, vectors), terms, strict=True):
                    out.store(add_product(builder, out.load(index), factor, term), index)
            return context.get_dummy_value()

        place = types.int64
        return types.void(heard, place, given, place, active, place, out, place), build

    return one_strip


_scatter, _scatter_wider = _scattering(2), _scattering(4)


def _pushing(rows: int) -> Any:
    @intrinsic
    def one_strip(typing, given, s, weights, out, j):
        """One strip of columns of :func:`push` for ``rows`` samples from ``s`` on."""

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            given, s, weights, out, j = arrays(context, builder, signature, args)
            size, width = weights.shape
            samples = [builder.add(s, ir.Constant(s.type, k)) for k in range(rows)]
            starts = [builder.mul(sample, size) for sample in samples]

            def visit(k: Any) -> Any:
                return builder.add(builder.mul(k, width), j), [builder.add(start, k) for start in starts]

            sums = _sums(builder, given, weights, size, visit, rows)
            for k, sample in enumerate(samples):
                begin = builder.add(builder.mul(sample, width), j)
                _put(builder, out, begin, sums[2 * k : 2 * k + 2])
            return context.get_dummy_value()

        return types.void(given, types.int64, weights, out, types.int64), build

    return one_strip


_push_four, _push_one = _pushing(_ROWS), _pushing(1)


@intrinsic
def _grow_four(typing, heard, given, samples, out, m, j):
    """One strip of columns of four rows of :func:`grow`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        heard, given, samples, out, m, j = arrays(context, builder, signature, args)
        size, width = out.shape
        rows = [builder.add(m, ir.Constant(m.type, k)) for k in range(_ROWS)]

        def visit(s: Any) -> Any:
            start = builder.mul(s, size)
            return builder.add(builder.mul(s, width), j), [builder.add(start, row) for row in rows]

        sums = _sums(builder, heard, given, samples, visit, _ROWS)
        for k, row in enumerate(rows):
            begin = builder.add(builder.mul(row, width), j)
            for index, total in zip(strip_of(builder, begin, 2), sums[2 * k : 2 * k + 2], strict=True):
                out.store(builder.fadd(out.load(index), total), index)
        return context.get_dummy_value()

    return types.void(heard, given, types.int64, out, types.int64, types.int64), build
