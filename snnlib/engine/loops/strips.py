"""Sums over strips of the columns of a matrix, for functions that are being built.

:mod:`snnlib.engine.loops.product` multiplies weights that lie in strips of ``LANES`` columns, ``[strips, N,
LANES]``, each by itself: row after row of one is read from one end to the other and stays in the first cache,
where rows of the whole matrix would drive each other out. The last strip has the last columns, some of which
another one has too; of fewer than ``LANES`` columns there is one strip, and anything behind them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir

from snnlib.engine.llvm.builder import Array, Builder, built
from snnlib.engine.sizes import LANES

__all__ = ["rows_at_a_time", "strips_at_a_time", "strips_from", "sums"]


class Strip(NamedTuple):
    """One strip of a matrix.

    Attributes:
        at: from a row to where its numbers begin.
        column: the first of its columns.
    """

    at: Callable[[Any], Any]
    column: Any


def strips_from(builder: Builder, matrix: Array, width: Any, first: Any, count: int) -> list[Strip]:
    """Strips from ``first`` on; in the place of one that is not there the last one.

    Parameters:
        width: the columns of the whole matrix.
    """

    def strip(k: int) -> Strip:
        last, lanes = builder.sub(matrix.shape[0], builder.integer(1)), builder.integer(LANES)
        number = builder.chosen("<", builder.add(first, builder.integer(k)), last)
        start = builder.mul(number, matrix.shape[1])
        column = builder.chosen("<", builder.mul(number, lanes), builder.sub(width, lanes))
        return Strip(lambda row: builder.mul(builder.add(start, row), lanes), column)

    return [strip(k) for k in range(count)]


@built
def strips_at_a_time(builder: Builder) -> int:
    """How many strips are summed together.

    With the rows that are summed together their sums fill eight registers: as many as are in work at a time,
    and with what is multiplied no more than there are.
    """
    return 2 if builder.has_wide_registers else 1


@built
def rows_at_a_time(builder: Builder, factors: Array) -> int:
    """How many rows are summed together, see :func:`strips_at_a_time`."""
    return 2 if isinstance(factors.number, ir.DoubleType) else 4


def sums(
    builder: Builder, factors: Array, terms: Array, count: Any, visit: Any, rows: int, vectors: int
) -> list[list[Any]]:
    """For each row vectors of ``sum over k of factor[row, k] term[k]``.

    Parameters:
        count: how many terms there are.
        visit: from k to where the vectors of its term begin, and to where its factor is for each row.
        rows, vectors: how many there are.
    """
    nothing = ir.Constant(factors.vector, None)
    places = [[builder.room(factors.vector, nothing) for _ in range(vectors)] for _ in range(rows)]
    with builder.counted(count) as k:
        starts, indices = visit(k)
        term = [terms.load(start) for start in starts]
        for row, index in zip(places, indices, strict=True):
            factor = factors.spread(index)
            for place, vector in zip(row, term, strict=True):
                builder.store(builder.add_product(builder.load(place), factor, vector), place)
    return [[builder.load(place) for place in row] for row in places]
