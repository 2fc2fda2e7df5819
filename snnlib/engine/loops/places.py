"""Where numbers are that are not zero, for loops that multiply only these."""

from typing import Any

from llvmlite import ir

from snnlib.engine.llvm.builder import INTEGER, Array, Builder, built
from snnlib.engine.llvm.vector import bits_of, nonzero, of_byte
from snnlib.engine.sizes import LANES

__all__ = ["find"]


def find(z, a, first, size, places, count):
    """Which of the numbers from ``z[a]`` on, ``size`` of them, are not zero, in order.

    Parameters:
        z: of any shape; ``a`` counts from its first number.
        first: the place of ``z[a]``.
        places: where their places are written to, behind ``count`` others; with room for a vector more.

    Returns:
        How many places there are then.
    """
    for m in range(0, size - LANES + 1, LANES):
        count = _append(nonzero(z, a + m), first + m, places, count)
    for m in range(size - size % LANES, size):
        places[count] = first + m
        count += _differs(z, a + m)
    return count


@built
def _differs(builder: Builder, z: Array, a: Any) -> Any:
    """Whether the number ``z[a]`` is not zero, 1 or 0."""
    return bits_of(builder, z.scalar(a))


@built
def _append(builder: Builder, mask: Any, first: Any, places: Array, count: Any) -> Any:
    """Write ``first`` plus the place of each bit that is set to ``places[count]`` and on, others behind them.

    Without a branch: which bits are set nobody can predict.

    Returns:
        How many there are then.
    """
    eight = ir.VectorType(INTEGER, 8)
    rows = [_first_set(bits, 8) for bits in range(256)]
    for _ in range(LANES // 8):
        bits = builder.and_(mask, builder.integer(255))
        found = builder.zext(of_byte(builder, "order", rows, bits), eight)
        places.store(builder.add(found, builder.spread(first, 8)), count)
        count = builder.add(count, builder.ctpop(bits))
        first = builder.add(first, builder.integer(8))
        mask = builder.lshr(mask, builder.integer(8))
    return count


def _first_set(bits: int, count: int) -> list[int]:
    """The places of the bits that are set, and any others behind them."""
    return sorted(range(count), key=lambda place: not bits >> place & 1)
