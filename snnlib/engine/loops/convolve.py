"""Convolutions of what is mostly zero, as spikes are, which :mod:`snnlib.engine.sparse` calls.

A dense convolution multiplies zeros. Here the numbers that are not zero are listed first, sample by sample, and
only these are multiplied. Sums are kept in registers, a strip of output channels at a time; a term may be
multiplied and added with one rounding ("contract"); the order of the sums is fixed.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from llvmlite import ir

from snnlib.engine.llvm.builder import BYTE, Array, Builder, built, lanes
from snnlib.engine.llvm.vector import strip_of
from snnlib.engine.loops.places import find
from snnlib.engine.sizes import LANES

__all__ = ["convolve", "give_back", "grow"]

_WIDE, _WIDER = 2 * LANES, 4 * LANES
"""Channels of a strip: two vectors, or four where there are enough."""


def convolve(x, weights, bias, out, chosen, maps, places, begins, start, stop, pad_y, pad_x, pool):
    """``maps[n, y, x] = bias + sum over dy, dx of x[n, y + dy - pad_y, x + dx - pad_x] weights[dy, dx]``.

    Channels of a pixel lie side by side, and pixels of a row: what a filter sees of a row is one piece of the
    list of that row, and one piece of its weights.

    Parameters:
        x: ``[N, H, W, C]``.
        weights: ``[KH, KW, C, O]``, of 32 output channels or more.
        bias: ``[O]``.
        out: the largest of each ``pool`` times ``pool`` pixels of the maps, ``[N, H' / pool, W' / pool, O]``.
        chosen: which of them it was, row by row. Of any shape if ``pool`` is 1.
        maps: ``[1, H', W', O]``, room for the maps of a sample; H' = H + 2 pad_y - KH + 1, and W' likewise.
            Of any shape if ``pool`` is 1: the maps are written to ``out``.
        places: room for ``H W C`` places and a vector of them: a number's channel in its row, which begins with
            ``pad_x`` pixels of zeros.
        begins: ``[H + 2 pad_y, W + 2 pad_x + 1]`` zeros, for where the places of each pixel begin.
        start, stop: the samples to do.
    """
    height, width, channels = x.shape[1:]
    size = weights.shape[3]
    wider = size - size % _WIDER
    made = out if pool == 1 else maps
    for n in range(start, stop):
        m = n if pool == 1 else 0
        count = 0
        for i in range(height):
            row = begins[pad_y + i]
            row[: pad_x + 1] = count
            for j in range(width):
                pixel = ((n * height + i) * width + j) * channels
                count = find(x, pixel, (pad_x + j) * channels, channels, places, count)
                row[pad_x + j + 1] = count
            row[pad_x + width + 1 :] = count
        first = (n * height * width - pad_y * width - pad_x) * channels  # where padding would begin
        for o in range(0, wider, _WIDER):  # a strip's weights stay in the second cache
            for i in range(made.shape[1]):
                for j in range(made.shape[2]):
                    _gather_wider(x, first, weights, bias, places, begins, made, m, i, j, o)
        for o in range(wider, size, _WIDE):  # the last strip goes over some channels again
            for i in range(made.shape[1]):
                for j in range(made.shape[2]):
                    _gather(x, first, weights, bias, places, begins, made, m, i, j, min(o, size - _WIDE))
        if pool > 1:
            for i in range(out.shape[1]):
                for j in range(out.shape[2]):
                    for o in range(0, size, _WIDE):
                        _choose(maps, pool, out, chosen, n, i, j, min(o, size - _WIDE))


def grow(x, given, chosen, out, padded, places, counts, spots, values, start, stop, pad_y, pad_x, pool):
    """``out[dy, dx, c] += sum over n, y, x of x[n, y + dy - pad_y, x + dx - pad_x, c] g[n, y, x]``.

    Parameters:
        x: ``[N, H, W, C]``.
        given: the gradient of the output of :func:`convolve`; g is that of its maps.
        chosen: as there.
        out: ``[KH, KW, C, whole strips of O]``.
        padded: ``[G, H + KH - 1, W + KW - 1, whole strips of O]`` zeros, for g of G samples, which are done at
            a time.
        places: room for C places and a vector of them.
        counts: room for C numbers of places.
        spots: ``[C, G H W]``: where in ``padded`` what belongs to a number of that channel begins.
        values: ``[C, G H W]``: these numbers.
        start, stop: the samples to do.
    """
    group, lines, length, size = padded.shape
    rows, columns, channels, _ = out.shape
    wider = size - size % _WIDER
    for a in range(start, stop, group):
        counts[:] = 0
        for n in range(a, min(a + group, stop)):
            _give(given, chosen, n, pool, padded, n - a, rows - 1 - pad_y, columns - 1 - pad_x)
            for i in range(x.shape[1]):
                for j in range(x.shape[2]):
                    pixel = ((n * x.shape[1] + i) * x.shape[2] + j) * channels
                    spot = (((n - a) * lines + i) * length + j) * size
                    for k in range(find(x, pixel, 0, channels, places, 0)):
                        c = places[k]
                        spots[c, counts[c]] = spot
                        values[c, counts[c]] = x[n, i, j, c]
                        counts[c] += 1
        for c in range(channels):
            for dy in range(rows if counts[c] else 0):
                for dx in range(columns):
                    to = ((dy * columns + dx) * channels + c) * size
                    shift = ((rows - 1 - dy) * length + columns - 1 - dx) * size
                    for o in range(0, wider, _WIDER):
                        _scatter_wider(padded, shift + o, spots, values, c, counts[c], out, to + o)
                    for o in range(wider, size, _WIDE):
                        _scatter(padded, shift + o, spots, values, c, counts[c], out, to + o)


def give_back(given, chosen, maps, start, stop, pool):
    """The gradient of the maps of :func:`convolve`, of those that its output was chosen from.

    Parameters:
        given: the gradient of the output.
        chosen: as there.
        maps: ``[N, H', W', O]``; what ``given`` does not reach must be zero.
        start, stop: the samples to do.
    """
    for n in range(start, stop):
        _give(given, chosen, n, pool, maps, n, 0, 0)


def _give(given, chosen, n, pool, maps, m, top, left):
    """Write the gradient of the maps of a sample to ``maps[m]``, from row ``top`` and column ``left`` on."""
    size = given.shape[3]
    for i in range(given.shape[1]):
        for j in range(given.shape[2]):
            if pool == 1:
                _copy(given[n, i, j], maps[m, top + i, left + j])
            else:
                for o in range(0, size, _WIDE):  # the last strip goes over some channels again
                    _put_back(given, chosen, n, i, j, min(o, size - _WIDE), maps, m, top, left, pool)


def _copy(given, out):
    for o in lanes(given.shape[0]):
        out[o] = given[o]


def _begin(builder: Builder, first: Array, indices: Sequence[Any]) -> list[Any]:
    """Places for sums, which begin with vectors of ``first``."""
    return [builder.room(first.vector, first.load(index)) for index in indices]


def _add(builder: Builder, sums: Sequence[Any], factor: Any, terms: Array, indices: Sequence[Any]) -> None:
    """Add ``factor`` times vectors of ``terms`` to the sums."""
    for index, place in zip(indices, sums, strict=True):
        builder.store(builder.add_product(builder.load(place), factor, terms.load(index)), place)


def _end(builder: Builder, sums: Sequence[Any], out: Array, indices: Sequence[Any]) -> None:
    """Write the sums to ``out``."""
    for index, place in zip(indices, sums, strict=True):
        out.store(builder.load(place), index)


def _gathering(vectors: int) -> Any:
    @built
    def one_strip(
        builder: Builder,
        x: Array,
        first: Any,
        weights: Array,
        bias: Array,
        places: Array,
        begins: Array,
        out: Array,
        n: Any,
        i: Any,
        j: Any,
        o: Any,
    ) -> None:
        """A strip of channels, from ``o`` on, of ``out[n, i, j]``. Place 0 of the first row is ``x[first]``."""
        add, mul = builder.add, builder.mul
        rows, columns, channels, size = weights.shape
        width = begins.shape[1]
        length, seen, left = mul(x.shape[2], channels), mul(columns, channels), mul(j, channels)
        sums = _begin(builder, bias, strip_of(builder, o, vectors))
        with builder.counted(rows) as dy:
            line = add(i, dy)
            at = add(mul(line, width), j)
            begin, end = begins.scalar(at), begins.scalar(add(at, columns))
            source = add(first, mul(line, length))
            filter = builder.sub(mul(dy, seen), left)
            with builder.counted(builder.sub(end, begin)) as k:
                place = places.scalar(add(begin, k))
                factor = x.spread(add(source, place))
                begun = add(mul(add(filter, place), size), o)
                _add(builder, sums, factor, weights, strip_of(builder, begun, vectors))
        _end(builder, sums, out, strip_of(builder, _pixel(builder, out, n, i, j, o), vectors))

    return one_strip


_gather, _gather_wider = _gathering(2), _gathering(4)


def _scattering(vectors: int) -> Any:
    @built
    def one_strip(
        builder: Builder,
        padded: Array,
        shift: Any,
        spots: Array,
        values: Array,
        c: Any,
        count: Any,
        out: Array,
        to: Any,
    ) -> None:
        """Add to a strip of channels, from ``out[to]`` on, the sum over one input channel's numbers."""
        targets = strip_of(builder, to, vectors)
        sums = _begin(builder, out, targets)
        begin = builder.mul(c, spots.shape[1])
        with builder.counted(count) as k:
            at = builder.add(begin, k)
            factor = values.spread(at)
            begun = builder.add(spots.scalar(at), shift)
            _add(builder, sums, factor, padded, strip_of(builder, begun, vectors))
        _end(builder, sums, out, targets)

    return one_strip


_scatter, _scatter_wider = _scattering(2), _scattering(4)


@built
def _choose(
    builder: Builder, maps: Array, pool: Any, out: Array, chosen: Array, n: Any, i: Any, j: Any, o: Any
) -> None:
    """The largest of the pixels of ``maps[0]`` that ``out[n, i, j]`` stands for, and which it is.

    Of equals the first, and NaN before all, as torch has it.
    """
    to = _pixel(builder, out, n, i, j, o)
    first = _pixel(builder, maps, None, builder.mul(i, pool), builder.mul(j, pool), o)
    small = ir.VectorType(BYTE, LANES)
    for shift in (0, LANES):
        begin, target = (builder.add(at, builder.integer(shift)) for at in (first, to))
        best = builder.room(maps.vector, maps.load(begin))
        which = builder.room(small, ir.Constant(small, None))
        for at, k in _window(builder, maps, begin, pool):
            seen, so_far = maps.load(at), builder.load(best)
            larger = builder.fcmp_ordered(">", seen, so_far)
            better = builder.or_(larger, builder.fcmp_unordered("uno", seen, seen))
            builder.store(builder.select(better, seen, so_far), best)
            number = builder.spread(builder.trunc(k, BYTE), LANES)
            builder.store(builder.select(better, number, builder.load(which)), which)
        out.store(builder.load(best), target)
        chosen.store(builder.load(which), target)


@built
def _put_back(
    builder: Builder,
    given: Array,
    chosen: Array,
    n: Any,
    i: Any,
    j: Any,
    o: Any,
    maps: Array,
    m: Any,
    top: Any,
    left: Any,
    pool: Any,
) -> None:
    """To the pixels that ``given[n, i, j]`` stands for: it to the chosen one, 0 to the others."""
    add, mul = builder.add, builder.mul
    source = _pixel(builder, given, n, i, j, o)
    first = _pixel(builder, maps, m, add(top, mul(i, pool)), add(left, mul(j, pool)), o)
    for shift in (0, LANES):
        begin, at = (add(index, builder.integer(shift)) for index in (first, source))
        value = given.load(at)
        which = chosen.load(at, ir.VectorType(BYTE, LANES))
        for to, k in _window(builder, maps, begin, pool):
            here = builder.icmp_unsigned("==", which, builder.spread(builder.trunc(k, BYTE), LANES))
            maps.store(builder.select(here, value, ir.Constant(value.type, None)), to)


def _pixel(builder: Builder, maps: Array, n: Any, i: Any, j: Any, o: Any) -> Any:
    """The index of ``maps[n, i, j, o]``, of the first sample without ``n``."""
    row = i if n is None else builder.add(builder.mul(n, maps.shape[1]), i)
    return builder.add(builder.mul(builder.add(builder.mul(row, maps.shape[2]), j), maps.shape[3]), o)


def _window(builder: Builder, maps: Array, first: Any, pool: Any) -> Iterator[tuple[Any, Any]]:
    """A loop over ``pool`` times ``pool`` pixels: the index of each, and its number."""
    line = builder.mul(maps.shape[2], maps.shape[3])
    with builder.counted(pool) as a, builder.counted(pool) as b:
        at = builder.add(builder.mul(a, line), builder.mul(b, maps.shape[3]))
        yield builder.add(first, at), builder.add(builder.mul(a, pool), b)
