"""Products with recurrent weights, which the fused loops of :mod:`snnlib.engine.cpu` call.

Each works on a block of samples at one time step; what belongs to one sample lies together, samples one after
the other. Sums are kept in registers, strips of columns of a few rows at a time; the innermost loops are
written with LLVM's vectors (:mod:`snnlib.engine.llvm.vector`). A term may be multiplied and added with one
rounding ("contract"); the order of the sums is fixed.
"""

from typing import Any

from snnlib.engine.llvm.builder import Array, Builder, built, lanes
from snnlib.engine.llvm.vector import nonzero, ones, strip_of
from snnlib.engine.loops.places import find
from snnlib.engine.loops.strips import rows_at_a_time, strips_at_a_time, strips_from, sums
from snnlib.engine.sizes import LANES

__all__ = ["add", "copy", "grow", "multiply", "push"]

_WIDE, _WIDER = 2 * LANES, 4 * LANES
"""Columns of a strip of a gradient: two vectors, or four where there are enough."""
_ROWS = 4
"""Rows of a gradient that are summed at a time, so that what they share is read once for all."""
_STRIPS = 4
"""Strips of weights that a sparse product takes at a time."""


def add(a, out):
    """``out += a`` for one block."""
    for j in lanes(out.shape[0]):
        out[j] += a[j]


def copy(a, out):
    """``out = a`` for one block."""
    for j in lanes(out.shape[0]):
        out[j] = a[j]


def multiply(heard, weights, out, active):
    """``out[s] = sum over m of heard[s, m] weights[m]``; where most are zero, only over those that are not.

    Parameters:
        heard: ``[samples * M]``.
        weights: ``[M, N]``, from row to column, in strips (:mod:`snnlib.engine.loops.strips`).
        out: ``[samples * N]``.
        active: room for M integers, and a vector of them.
    """
    strips, size, _ = weights.shape
    samples = heard.shape[0] // max(size, 1)
    width = out.shape[0] // max(samples, 1)
    if width < LANES or not _is_sparse(heard):
        push(heard, weights, out)
        return
    many = strips - strips % _STRIPS
    for s in range(samples):
        count = find(heard, s * size, 0, size, active, 0)
        for j in range(0, many, _STRIPS):
            _gather_strips(heard, s * size, weights, active, count, out, s * width, width, j)
        for j in range(many, strips):
            _gather(heard, s * size, weights, active, count, out, s * width, width, j)


def push(given, weights, out):
    """``out[s] = sum over n of given[s, n] weights[n]``, dense.

    Parameters:
        given: ``[samples * N]``.
        weights: ``[N, M]``, in strips.
        out: ``[samples * M]``.
    """
    strips, size, _ = weights.shape
    if size == 0:
        out[:] = 0
        return
    samples = given.shape[0] // size
    width = out.shape[0] // samples
    if width < LANES:
        out[:] = 0
        for s in range(samples):
            for n in range(size):
                for j in range(width):
                    out[s * width + j] += given[s * size + n] * weights[0, n, j]
        return
    for j in range(0, strips, strips_at_a_time()):
        for s in range(0, samples, rows_at_a_time(given)):
            _push(given, s, samples, weights, out, width, j)


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
    fours, strips = size - size % _ROWS, width - width % LANES
    for m in range(0, fours, _ROWS):
        for j in range(0, strips, LANES):
            _grow_four(heard, given, samples, out, m, j)
    for s in range(samples):
        for m in range(size):
            for j in range(strips if m < fours else 0, width):
                out[m, j] += heard[s * size + m] * given[s * width + j]


def _is_sparse(values):
    """Whether fewer than a quarter are other than zero, so that to look for them pays."""
    count, rest = 0, values.shape[0] % LANES
    for j in range(0, values.shape[0] - rest, LANES):
        count += ones(nonzero(values, j))
    for j in range(values.shape[0] - rest, values.shape[0]):
        count += values[j] != 0
    return 4 * count < values.shape[0]


def _gathering(count: int) -> Any:
    @built
    def some_strips(
        builder: Builder,
        heard: Array,
        a: Any,
        weights: Array,
        active: Array,
        found: Any,
        out: Array,
        b: Any,
        width: Any,
        j: Any,
    ) -> None:
        """Strips of :func:`multiply` from ``j`` on, for the sample at ``heard[a]``, to ``out[b]``."""
        strips = strips_from(builder, weights, width, j, count)

        def visit(k: Any) -> Any:
            row = active.scalar(k)
            return [strip.at(row) for strip in strips], [builder.add(a, row)]

        (totals,) = sums(builder, heard, weights, found, visit, 1, count)
        for strip, total in zip(strips, totals, strict=True):
            out.store(total, builder.add(b, strip.column))

    return some_strips


_gather, _gather_strips = _gathering(1), _gathering(_STRIPS)


def _scattering(vectors: int) -> Any:
    @built
    def one_strip(
        builder: Builder,
        heard: Array,
        a: Any,
        given: Array,
        b: Any,
        active: Array,
        count: Any,
        out: Array,
        j: Any,
    ) -> None:
        """One strip of columns of :func:`grow` for the sample at ``heard[a]`` and ``given[b]``."""
        terms = [given.load(index) for index in strip_of(builder, builder.add(b, j), vectors)]
        with builder.counted(count) as k:
            row = active.scalar(k)
            factor = heard.spread(builder.add(a, row))
            begin = builder.add(builder.mul(row, out.shape[1]), j)
            for index, term in zip(strip_of(builder, begin, vectors), terms, strict=True):
                out.store(builder.add_product(out.load(index), factor, term), index)

    return one_strip


_scatter, _scatter_wider = _scattering(2), _scattering(4)


@built
def _push(
    builder: Builder, given: Array, s: Any, samples: Any, weights: Array, out: Array, width: Any, j: Any
) -> None:
    """Strips of :func:`push` from ``j`` on, for samples from ``s`` on; in the place of more the last one."""
    rows, count, size = rows_at_a_time(builder, given), strips_at_a_time(builder), weights.shape[1]
    strips = strips_from(builder, weights, width, j, count)
    last = builder.sub(samples, builder.integer(1))
    chosen = [builder.chosen("<", builder.add(s, builder.integer(k)), last) for k in range(rows)]
    starts = [builder.mul(sample, size) for sample in chosen]

    def visit(k: Any) -> Any:
        return [strip.at(k) for strip in strips], [builder.add(start, k) for start in starts]

    for sample, totals in zip(chosen, sums(builder, given, weights, size, visit, rows, count), strict=True):
        begin = builder.mul(sample, width)
        for strip, total in zip(strips, totals, strict=True):
            out.store(total, builder.add(begin, strip.column))


@built
def _grow_four(builder: Builder, heard: Array, given: Array, samples: Any, out: Array, m: Any, j: Any) -> None:
    """One vector of columns of four rows of :func:`grow`."""
    size, width = out.shape
    rows = [builder.add(m, builder.integer(k)) for k in range(_ROWS)]

    def visit(s: Any) -> Any:
        start = builder.mul(s, size)
        return [builder.add(builder.mul(s, width), j)], [builder.add(start, row) for row in rows]

    for row, (total,) in zip(rows, sums(builder, heard, given, samples, visit, _ROWS, 1), strict=True):
        index = builder.add(builder.mul(row, width), j)
        out.store(builder.fadd(out.load(index), total), index)
