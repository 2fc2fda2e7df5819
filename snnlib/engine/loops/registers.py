"""The numbers of spikes picked out of registers and put back, many at a time.

AVX-512 makes a list of the places of a word's bits, and picks 16 numbers at a time out of the registers that
they were computed in; on the way back it puts them in their places in registers, 16 neurons at a time, whether
there are bits or not. AVX2 does so on the way back, with 8. The words, and loops that go from bit to bit, are
those of :mod:`snnlib.engine.loops.events`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from llvmlite import ir

from snnlib.engine.llvm.arithmetic import like
from snnlib.engine.llvm.builder import BIT, BYTE, Array, Builder, Lanes, built
from snnlib.engine.llvm.vector import of_byte
from snnlib.engine.sizes import LANES, WORD

__all__ = [
    "as_marks",
    "expand",
    "from_registers",
    "moves_vectors",
    "part",
    "pick",
    "placed",
    "to_registers",
]

_FEW = 10
"""Bits of a word up to which a loop over them is faster than to spread vectors by AVX-512 (Genoa)."""
_INDEX, _BYTES = ir.IntType(32), ir.VectorType(BYTE, WORD)


@built
def from_registers(builder: Builder, squeezed: Array) -> bool:
    """Whether numbers are picked out of registers: of float32, where AVX-512 is not of the first kind."""
    return "+avx512vbmi2" in builder.features and isinstance(squeezed.number, ir.FloatType)


@built
def to_registers(builder: Builder, squeezed: Array) -> bool:
    """Whether numbers are placed in registers: the same, and where there is AVX2 alone."""
    narrow = "+avx2" in builder.features and not builder.has_wide_registers
    return from_registers(builder, squeezed) or (narrow and isinstance(squeezed.number, ir.FloatType))


@built
def pick(builder: Builder, bits: Any, squeezed: Array, at: Any, j: Any, *values: Any) -> Any:
    """Write the numbers of the neurons ``j`` that have a bit to ``squeezed``, each of ``values`` to a row.

    Parameters:
        bits: of these neurons: a word, a vector or one.
        squeezed: ``[values, events + LANES]``: whole vectors are written.
        at: the column that the first goes to.

    Returns:
        The column for the next ones.
    """
    rows = [squeezed.index(builder.integer(e), at) for e in range(len(values))]
    count = builder.ctpop(bits)
    values = tuple(like(builder, value, squeezed.kind_at(j)) for value in values)
    if not isinstance(j, Lanes):
        for row, value in zip(rows, values, strict=True):
            squeezed.put(value, row)
        return builder.add(at, count)
    if j.width == LANES:
        for row, value in zip(rows, values, strict=True):
            squeezed.store(_by_avx512(builder, "compress", value, bits), row)
        return builder.add(at, count)
    parts = [
        [_lanes_of(builder, value, range(k, k + LANES)) for k in range(0, WORD, LANES)] for value in values
    ]
    every = ir.Constant(_BYTES, [ir.Constant(BYTE, k) for k in range(WORD)])
    places = _by_avx512(builder, "compress", every, bits)

    def store(places: Any, done: Any) -> None:
        which = builder.zext(_lanes_of(builder, places, range(LANES)), ir.VectorType(_INDEX, LANES))
        for row, four in zip(rows, parts, strict=True):
            squeezed.store(_chosen(builder, which, four), builder.add(row, done))

    store(places, builder.integer(0))  # without a branch: there are seldom more, and nobody knows when
    left = builder.room(_BYTES, places)
    width = builder.integer(LANES)
    with builder.counted(count, start=width, step=width) as done:
        turned = _lanes_of(builder, builder.load(left), [(k + LANES) % WORD for k in range(WORD)])
        store(turned, done)
        builder.store(turned, left)
    return builder.add(at, count)


@built
def placed(builder: Builder, squeezed: Array, e: Any, at: Any, word: Any, j: Any) -> Any:
    """The numbers of the neurons ``j`` that have a bit in ``word``, from row ``e`` and column ``at`` of
    ``squeezed`` on; others get any number."""
    index = squeezed.index(e, at)
    if not isinstance(j, Lanes):
        return squeezed.scalar(index)
    parts, lanes = [], builder.lanes(1)
    permutation = "llvm.x86.avx512.permvar.sf.512" if builder.has_wide_registers else "llvm.x86.avx2.permps"
    for k in range(0, j.width, lanes):
        bits = part(builder, word, builder.add(j.first, builder.integer(k)), lanes)
        some = squeezed.load(index, ir.VectorType(squeezed.number, lanes))
        parts.append(builder.call_named(permutation, some.type, some, _ranks(builder, bits, lanes)))
        index = builder.add(index, builder.ctpop(bits))
    while len(parts) > 1:
        both = range(2 * parts[0].type.count)
        parts = [_lanes_of(builder, a, both, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _ranks(builder: Builder, bits: Any, lanes: int) -> Any:
    """Of each place in a register how many bits there are before it."""
    if not builder.has_wide_registers:
        rows = [[(byte & (1 << k) - 1).bit_count() for k in range(lanes)] for byte in range(256)]
        return builder.zext(of_byte(builder, "ranks", rows, bits), ir.VectorType(_INDEX, lanes))
    below = ir.Constant(ir.VectorType(_INDEX, lanes), [ir.Constant(_INDEX, (1 << k) - 1) for k in range(lanes)])
    before = builder.and_(builder.spread(builder.trunc(bits, _INDEX), lanes), below)
    return builder.call_named("llvm.ctpop.v16i32", before.type, before)


def _chosen(builder: Builder, which: Any, four: Sequence[Any]) -> Any:
    """Of the numbers in four registers those of these places."""
    name = "llvm.x86.avx512.vpermi2var.ps.512"
    lower, upper = (builder.call_named(name, a.type, a, which, b) for a, b in (four[:2], four[2:]))
    half = ir.Constant(which.type, [ir.Constant(_INDEX, WORD // 2)] * LANES)
    return builder.select(builder.icmp_unsigned("<", which, half), lower, upper)


def _lanes_of(builder: Builder, vector: Any, order: Iterable[int], behind: Any = None) -> Any:
    """Numbers of a vector, and of one behind it, in this order."""
    order = [ir.Constant(_INDEX, k) for k in order]
    places = ir.Constant(ir.VectorType(_INDEX, len(order)), order)
    return builder.shuffle_vector(vector, vector if behind is None else behind, places)


@built
def moves_vectors(builder: Builder, word: Any) -> Any:
    """Whether numbers are spread by whole vectors: where there is AVX-512 and there are not few bits."""
    if not builder.has_wide_registers:
        return False
    return builder.icmp_signed(">", builder.ctpop(word), builder.integer(_FEW))


@built
def expand(builder: Builder, squeezed: Array, e: Any, at: Any, bits: Any, rows: Array, first: Any) -> None:
    """Numbers from column ``at`` on to those from ``first`` on that have a bit; others get any number."""
    begin, to = squeezed.index(e, at), rows.index(e, first)
    for places, own in _registers(builder, squeezed, bits):
        some = squeezed.load(begin, ir.VectorType(squeezed.number, len(places)))
        rows.store(_by_avx512(builder, "expand", some, own), builder.add(to, builder.integer(places[0])))
        begin = builder.add(begin, builder.ctpop(own))


def _registers(builder: Builder, array: Array, bits: Any) -> list[tuple[range, Any]]:
    """The numbers of a vector that are in one register, and their bits."""
    lanes = 8 if isinstance(array.number, ir.DoubleType) else 16
    starts = range(0, LANES, lanes)
    return [(range(k, k + lanes), part(builder, bits, builder.integer(k), lanes)) for k in starts]


def _by_avx512(builder: Builder, name: str, values: Any, bits: Any) -> Any:
    """An instruction of AVX-512 that moves the numbers or bytes of a register."""
    kind = values.type
    size = {ir.DoubleType(): "f64", ir.FloatType(): "f32", BYTE: "i8"}[kind.element]
    function = f"llvm.x86.avx512.mask.{name}.v{kind.count}{size}"
    nothing = ir.Constant(kind, None)
    return builder.call_named(function, kind, values, nothing, as_marks(builder, bits, kind.count))


def as_marks(builder: Builder, bits: Any, lanes: int) -> Any:
    """The lowest bits of an integer as a vector of them."""
    lowest = bits if lanes == WORD else builder.trunc(bits, ir.IntType(lanes))
    return builder.bitcast(lowest, ir.VectorType(BIT, lanes))


def part(builder: Builder, word: Any, first: Any, count: int) -> Any:
    """So many bits of a word, from one on."""
    return builder.and_(builder.lshr(word, first), builder.integer((1 << count) - 1))
