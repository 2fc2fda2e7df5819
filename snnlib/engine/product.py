"""What the fused loops of :mod:`snnlib.engine.cpu` call: products with recurrent weights, and the packing of
what is kept for spikes alone.

Each works on a block of samples at one time step; what belongs to one sample lies together, samples one after
the other. Sums are kept in registers, a strip of columns of a few rows at a time. LLVM's own vectoriser does
not find this form, so the innermost loops are written with its vectors. A term may be multiplied and added
with one rounding ("contract"); the order of the sums is fixed.

Nothing here counts references (``_nrt``), which two threads would do in turns at every slice, and so nothing
is allocated here either.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["add", "copy", "grow", "multiply", "pack", "push", "unpack"]

_LANES = 16
"""Numbers in a vector: a register of AVX-512 in float32, and a few smaller ones elsewhere."""
_WIDE = 2 * _LANES
_ROWS = 4
"""Rows that are summed at a time, so that what they share is read once for all."""


@njit(error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def add(a, b, out):
    """``out = a + b`` for one block."""
    for j in range(out.shape[0]):
        out[j] = a[j] + b[j]


@njit(error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def copy(a, out):
    """``out = a`` for one block."""
    for j in range(out.shape[0]):
        out[j] = a[j]


@njit(error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def multiply(heard, weights, out, active):
    """``out[s] = sum over m of heard[s, m] weights[m]``; where most are zero, only over those that are not.

    Parameters:
        heard: ``[samples * M]``.
        weights: ``[M, N]``, from row to column.
        out: ``[samples * N]``.
        active: room for M integers.
    """
    size, width = weights.shape
    if width < _WIDE or not _is_sparse(heard):
        push(heard, weights, out)
        return
    for s in range(heard.shape[0] // size):
        count = _find(heard, s * size, size, active)
        for j in range(0, width, _WIDE):  # the last strip goes over some columns again
            _gather(heard, s * size, weights, active, count, out, s * width, min(j, width - _WIDE))


@njit(error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
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


@njit(error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def grow(heard, given, out, active):
    """``out[m] += sum over s of heard[s, m] given[s]``: the gradient of weights, of one step's samples.

    Parameters:
        heard: what the weights were multiplied by, ``[samples * M]``.
        given: gradients of the inputs of the neurons, ``[samples * N]``.
        out: ``[M, N]``, from row to column.
        active: room for M integers.
    """
    size, width = out.shape
    samples = given.shape[0] // width
    if _is_sparse(heard):
        for s in range(samples):
            for k in range(_find(heard, s * size, size, active)):
                _add_times(heard[s * size + active[k]], given[s * width : (s + 1) * width], out[active[k]])
        return
    fours, strips = size - size % _ROWS, width - width % _WIDE
    for m in range(0, fours, _ROWS):
        for j in range(0, strips, _WIDE):
            _grow_four(heard, given, samples, out, m, j)
    for s in range(samples):
        for m in range(size):
            for j in range(strips if m < fours else 0, width):
                out[m, j] += heard[s * size + m] * given[s * width + j]


@njit(error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _add_times(factor, row, out):
    for j in range(out.shape[0]):
        out[j] += factor * row[j]


@njit(error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _is_sparse(values):
    """Whether fewer than a quarter are other than zero, so that to look for them pays."""
    count, rest = 0, values.shape[0] % _LANES
    for j in range(0, values.shape[0] - rest, _LANES):
        count += _ones(_nonzero(values, j))
    for j in range(values.shape[0] - rest, values.shape[0]):
        count += values[j] != 0
    return 4 * count < values.shape[0]


@njit(error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
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


@njit(error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def pack(z, rows, packed, place):
    """Append the columns of ``rows`` where ``z`` is not zero to ``packed``; where it ends now.

    Parameters:
        z: spikes of one step, ``[N]``.
        rows: ``[E, N]`` or wider.
        packed: ``[E, spikes]``.
        place: where ``packed`` ended before.
    """
    count = rows.shape[0]
    for j in range(0, z.shape[0] - _LANES + 1, _LANES):
        mask = _nonzero(z, j)
        while mask:
            lane = j + _lowest(mask)
            for e in range(count):
                packed[e, place] = rows[e, lane]
            place += 1
            mask &= mask - 1
    for j in range(z.shape[0] - z.shape[0] % _LANES, z.shape[0]):
        if z[j] != 0:
            for e in range(count):
                packed[e, place] = rows[e, j]
            place += 1
    return place


@njit(error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def unpack(z, packed, place, rows):
    """Undo :func:`pack` for one step, the last before ``place``; where the steps before it end."""
    count, rest = rows.shape[0], z.shape[0] % _LANES
    for j in range(z.shape[0] - 1, z.shape[0] - rest - 1, -1):
        if z[j] != 0:
            place -= 1
            for e in range(count):
                rows[e, j] = packed[e, place]
    for j in range(z.shape[0] - rest - _LANES, -1, -_LANES):
        mask = _nonzero(z, j)
        if mask:
            place -= _ones(mask)
            at = place
            while mask:
                lane = j + _lowest(mask)
                for e in range(count):
                    rows[e, lane] = packed[e, at]
                at += 1
                mask &= mask - 1
    return place


# -- innermost loops, in LLVM's vectors ------------------------------------------------------------------


class _Array:
    """A C-contiguous array in a function that is being built; an index counts from its first number."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        made = context.make_array(kind)(context, builder, value)
        self.builder, self.data = builder, made.data
        self.shape = cgutils.unpack_tuple(builder, made.shape)
        self.vector = ir.VectorType(context.get_value_type(kind.dtype), _LANES)

    def scalar(self, index: Any) -> Any:
        return self.builder.load(self.builder.gep(self.data, [index]))

    def load(self, index: Any) -> Any:
        return self.builder.load(self._place(index), align=4)

    def store(self, value: Any, index: Any) -> None:
        self.builder.store(value, self._place(index), align=4)

    def _place(self, index: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(self.data, [index]), self.vector.as_pointer())

    def spread(self, index: Any) -> Any:
        """A vector of one number, many times."""
        nothing = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(nothing, self.scalar(index), ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), None)
        return self.builder.shuffle_vector(one, nothing, lanes)


def _arrays(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """The arguments of an intrinsic, arrays made usable."""
    return [
        _Array(context, builder, kind, value) if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, args, strict=True)
    ]


def _halves(builder: Any, index: Any) -> list[Any]:
    """Where the two vectors of a strip begin."""
    return [index, builder.add(index, ir.Constant(index.type, _LANES))]


def _sums(builder: Any, factors: _Array, terms: _Array, count: Any, visit: Any, rows: int) -> list[Any]:
    """Strips of ``sum over k of factor[row, k] term[k]``, two vectors for each row.

    Parameters:
        count: how many terms there are.
        visit: from k to the index of the term's strip, and to that of its factor for each row.
        rows: how many there are.
    """
    places = [cgutils.alloca_once_value(builder, ir.Constant(factors.vector, None)) for _ in range(2 * rows)]
    for place in places:  # "once" is at the entry of the function, which may come here again
        builder.store(ir.Constant(factors.vector, None), place)
    with cgutils.for_range(builder, count) as loop:
        start, indices = visit(loop.index)
        strip = [terms.load(index) for index in _halves(builder, start)]
        for k, index in enumerate(indices):
            factor = factors.spread(index)
            for place, half in zip(places[2 * k : 2 * k + 2], strip, strict=True):
                term = builder.fmul(factor, half, flags=("contract",))
                builder.store(builder.fadd(builder.load(place), term, flags=("contract",)), place)
    return [builder.load(place) for place in places]


@intrinsic
def _gather(typing, heard, a, weights, active, count, out, b, j):
    """One strip of columns of :func:`multiply` for the sample at ``heard[a]``, to ``out[b]``."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        heard, a, weights, active, count, out, b, j = _arrays(context, builder, signature, args)

        def visit(k: Any) -> Any:
            row = active.scalar(k)
            return builder.add(builder.mul(row, weights.shape[1]), j), [builder.add(a, row)]

        sums = _sums(builder, heard, weights, count, visit, 1)
        for index, total in zip(_halves(builder, builder.add(b, j)), sums, strict=True):
            out.store(total, index)
        return context.get_dummy_value()

    place = types.int64
    return types.void(heard, place, weights, active, place, out, place, place), build


def _pushing(rows: int) -> Any:
    @intrinsic
    def one_strip(typing, given, s, weights, out, j):
        """One strip of columns of :func:`push` for ``rows`` samples from ``s`` on."""

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            given, s, weights, out, j = _arrays(context, builder, signature, args)
            size, width = weights.shape
            samples = [builder.add(s, ir.Constant(s.type, k)) for k in range(rows)]
            starts = [builder.mul(sample, size) for sample in samples]

            def visit(k: Any) -> Any:
                return builder.add(builder.mul(k, width), j), [builder.add(start, k) for start in starts]

            sums = _sums(builder, given, weights, size, visit, rows)
            for k, sample in enumerate(samples):
                begin = builder.add(builder.mul(sample, width), j)
                for index, total in zip(_halves(builder, begin), sums[2 * k : 2 * k + 2], strict=True):
                    out.store(total, index)
            return context.get_dummy_value()

        return types.void(given, types.int64, weights, out, types.int64), build

    return one_strip


_push_four, _push_one = _pushing(_ROWS), _pushing(1)


@intrinsic
def _grow_four(typing, heard, given, samples, out, m, j):
    """One strip of columns of four rows of :func:`grow`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        heard, given, samples, out, m, j = _arrays(context, builder, signature, args)
        size, width = out.shape
        rows = [builder.add(m, ir.Constant(m.type, k)) for k in range(_ROWS)]

        def visit(s: Any) -> Any:
            start = builder.mul(s, size)
            return builder.add(builder.mul(s, width), j), [builder.add(start, row) for row in rows]

        sums = _sums(builder, heard, given, samples, visit, _ROWS)
        for k, row in enumerate(rows):
            begin = builder.add(builder.mul(row, width), j)
            for index, total in zip(_halves(builder, begin), sums[2 * k : 2 * k + 2], strict=True):
                out.store(builder.fadd(out.load(index), total), index)
        return context.get_dummy_value()

    return types.void(heard, given, types.int64, out, types.int64, types.int64), build


@intrinsic
def _nonzero(typing, z, a):
    """One bit for each of the numbers from ``z[a]`` on that fill a vector: whether it is not zero."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        z, a = _arrays(context, builder, signature, args)
        bits = builder.fcmp_unordered("!=", z.load(a), ir.Constant(z.vector, None))
        return builder.zext(builder.bitcast(bits, ir.IntType(_LANES)), ir.IntType(64))

    return types.int64(z, types.int64), build


@intrinsic
def _lowest(typing, mask):
    """The place of the lowest bit that is set."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), build


@intrinsic
def _ones(typing, mask):
    """How many bits are set."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), build
