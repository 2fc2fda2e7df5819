"""Products with recurrent weights, for the fused loops of :mod:`snnlib.engine.cpu`.

Sums are kept in registers: a strip of columns of one sample forward, of four samples backward. LLVM's own
vectoriser does not find this form, so the innermost loops are written with its vectors. Each sum goes in the
order of the neurons; a term may be multiplied and added with one rounding ("contract").

Nothing here counts references (``_nrt``), which two threads would do in turns at every slice, and so nothing
is allocated here either.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["add", "hear", "tell"]

_LANES = 16
"""Numbers in a vector: a register of AVX-512 in float32, and a few smaller ones elsewhere."""
_WIDE = 2 * _LANES
_SAMPLES = 4


@njit(error_model="numpy", _nrt=False)
def add(a, b, out):
    """``out = a + b`` for one block."""
    for j in range(out.shape[0]):
        out[j] = a[j] + b[j]


@njit(error_model="numpy", _nrt=False)
def hear(z, columns, x, out, active):
    """``out[s] = x[s] + sum over m of z[s, m] columns[m]``, where only those m are visited that spiked.

    Parameters:
        z: outputs of the step before, ``[samples * N]``.
        columns: what neuron m sends to all, ``[N, N]``: the transposed weights.
        x, out: ``[samples * N]``.
        active: room for N integers.
    """
    size = columns.shape[0]
    for a in range(0, z.shape[0], size):
        count = _find(z, a, size, active)
        for j in range(0, size - _WIDE + 1, _WIDE):
            _gather(z, a, columns, active, count, x, out, j)
        for j in range(size - size % _WIDE, size):
            total = x[a] - x[a]
            for k in range(count):
                total += z[a + active[k]] * columns[active[k], j]
            out[a + j] = x[a + j] + total


@njit(error_model="numpy", _nrt=False)
def tell(given, weights, gradient, out):
    """``out[s] = gradient[s] + sum over n of given[s, n] weights[n]``: the transpose of :func:`hear`.

    Parameters:
        given: gradients of the inputs of the step after, ``[samples * N]``, dense.
        weights: ``[N, N]``, to row from column.
        gradient, out: ``[samples * N]``.
    """
    size = weights.shape[0]
    fours, strips = given.shape[0] // (_SAMPLES * size) * _SAMPLES * size, size - size % _WIDE
    for a in range(0, fours, _SAMPLES * size):
        for j in range(0, strips, _WIDE):
            _strip(given, a, weights, gradient, out, j)
    for a in range(0, given.shape[0], size):
        for j in range(strips if a < fours else 0, size):
            out[a + j] = 0
        for n in range(size):
            for j in range(strips if a < fours else 0, size):
                out[a + j] += given[a + n] * weights[n, j]
        for j in range(strips if a < fours else 0, size):
            out[a + j] = gradient[a + j] + out[a + j]


@njit(error_model="numpy", _nrt=False)
def _find(z, a, size, active):
    """Write to ``active`` which of ``z[a : a + size]`` are not zero, in order; how many they are."""
    count = 0
    for m in range(0, size - _LANES + 1, _LANES):
        mask = _nonzero(z, a + m)
        while mask:
            active[count] = m + _lowest(mask)
            count += 1
            mask &= mask - 1
    for m in range(size - size % _LANES, size):
        if z[a + m] != 0:
            active[count] = m
            count += 1
    return count


# -- innermost loops, in LLVM's vectors ------------------------------------------------------------------


class _Array:
    """A C-contiguous array in a function that is being built."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        made = context.make_array(kind)(context, builder, value)
        self.builder, self.data = builder, made.data
        self.size = cgutils.unpack_tuple(builder, made.shape)[-1]
        self.number = context.get_value_type(kind.dtype)
        self.vector = ir.VectorType(self.number, _LANES)

    def scalar(self, index: Any) -> Any:
        return self.builder.load(self.builder.gep(self.data, [index]))

    def place(self, index: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(self.data, [index]), self.vector.as_pointer())

    def load(self, index: Any) -> Any:
        return self.builder.load(self.place(index), align=4)

    def store(self, value: Any, index: Any) -> None:
        self.builder.store(value, self.place(index), align=4)

    def spread(self, index: Any) -> Any:
        """A vector of one number, many times."""
        one = self.builder.insert_element(
            ir.Constant(self.vector, ir.Undefined), self.scalar(index), ir.Constant(ir.IntType(32), 0)
        )
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), None)
        return self.builder.shuffle_vector(one, ir.Constant(self.vector, ir.Undefined), lanes)


def _sums(builder: Any, factors: _Array, rows: _Array, terms: Any, samples: int, column: Any) -> Any:
    """Two vectors of sums for each sample: ``sum of factors[index of the factor] rows[row, column:]``.

    Parameters:
        terms: ``(count, visit)``: how many there are, and a function from k to the row and to the index of
            its factor for each sample.
        samples: how many samples are taken along.
    """
    count, visit = terms
    zero = ir.Constant(factors.vector, None)
    kept = [cgutils.alloca_once_value(builder, zero) for _ in range(2 * samples)]
    for place in kept:
        builder.store(zero, place)
    with cgutils.for_range(builder, count) as loop:
        row, indices = visit(loop.index)
        start = builder.add(builder.mul(row, rows.size), column)
        halves = [rows.load(start), rows.load(builder.add(start, ir.Constant(start.type, _LANES)))]
        for k, index in enumerate(indices):
            factor = factors.spread(index)
            for place, half in zip(kept[2 * k : 2 * k + 2], halves, strict=True):
                term = builder.fmul(factor, half, flags=("contract",))
                builder.store(builder.fadd(builder.load(place), term, flags=("contract",)), place)
    return [builder.load(place) for place in kept]


def _add_to(builder: Any, base: _Array, out: _Array, sums: Any, index: Any) -> None:
    """``out = base + sums`` for two vectors."""
    for half, total in enumerate(sums):
        place = builder.add(index, ir.Constant(index.type, half * _LANES))
        out.store(builder.fadd(base.load(place), total), place)


@intrinsic
def _gather(typing, z, a, columns, active, count, x, out, j):
    """One strip of columns of :func:`hear` for the sample that begins at ``a``."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        z_, columns_, active_, x_, out_ = (_Array(context, builder, kinds[k], args[k]) for k in (0, 2, 3, 5, 6))
        _, start, _, _, many, _, _, column = args

        def visit(k: Any) -> Any:
            row = active_.scalar(k)
            return row, [builder.add(start, row)]

        sums = _sums(builder, z_, columns_, (many, visit), 1, column)
        _add_to(builder, x_, out_, sums, builder.add(start, column))
        return context.get_dummy_value()

    return types.void(z, types.int64, columns, active, types.int64, x, out, types.int64), build


@intrinsic
def _strip(typing, given, a, weights, gradient, out, j):
    """One strip of columns of :func:`tell` for the four samples that begin at ``a``."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given_, weights_, gradient_, out_ = (
            _Array(context, builder, signature.args[k], args[k]) for k in (0, 2, 3, 4)
        )
        column, size = args[5], weights_.size
        starts = [args[1]]
        for _ in range(_SAMPLES - 1):
            starts.append(builder.add(starts[-1], size))

        def visit(k: Any) -> Any:
            return k, [builder.add(start, k) for start in starts]

        sums = _sums(builder, given_, weights_, (size, visit), _SAMPLES, column)
        for k, start in enumerate(starts):
            _add_to(builder, gradient_, out_, sums[2 * k : 2 * k + 2], builder.add(start, column))
        return context.get_dummy_value()

    return types.void(given, types.int64, weights, gradient, out, types.int64), build


@intrinsic
def _nonzero(typing, z, a):
    """One bit for each of the numbers from ``z[a]`` on that fill a vector: whether it is not zero."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = _Array(context, builder, signature.args[0], args[0])
        bits = builder.fcmp_unordered("!=", values.load(args[1]), ir.Constant(values.vector, None))
        return builder.zext(builder.bitcast(bits, ir.IntType(_LANES)), ir.IntType(64))

    return types.int64(z, types.int64), build


@intrinsic
def _lowest(typing, mask):
    """The place of the lowest bit that is set."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), build
