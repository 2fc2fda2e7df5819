"""Sums over strips of the columns of a matrix, for functions that are being built.

:mod:`snnlib.engine.product` multiplies weights that lie in strips of ``LANES`` columns, ``[strips, N, LANES]``,
each by itself: row after row of one is read from one end to the other and stays in the first cache, where rows
of the whole matrix would drive each other out. The last strip has the last columns, some of which another one
has too; of fewer than ``LANES`` columns there is one strip, and anything behind them.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from snnlib.engine.emit_loops import LANES
from snnlib.engine.vector import Array, add_product, arrays, has_wide_registers, known, least

__all__ = ["Strip", "rows_at_a_time", "rows_of", "strips_at_a_time", "strips_from", "strips_of", "sums"]


class Strip(NamedTuple):
    """One strip of a matrix.

    Attributes:
        index: from a row to where its numbers begin.
        column: the first of its columns.
    """

    index: Callable[[Any], Any]
    column: Any


def strips_from(builder: Any, matrix: Array, width: Any, first: Any, count: int) -> list[Strip]:
    """Strips from ``first`` on; in the place of one that is not there the last one.

    Parameters:
        width: the columns of the whole matrix.
    """

    def strip(k: int) -> Strip:
        one, lanes = ir.Constant(first.type, 1), ir.Constant(first.type, LANES)
        number = least(
            builder, builder.add(first, ir.Constant(first.type, k)), builder.sub(matrix.shape[0], one)
        )
        start = builder.mul(number, matrix.shape[1])
        column = least(builder, builder.mul(number, lanes), builder.sub(width, lanes))
        return Strip(lambda row: builder.mul(builder.add(start, row), lanes), column)

    return [strip(k) for k in range(count)]


def strips_of(context: Any) -> int:
    """How many strips are summed together.

    With the rows that are summed together their sums fill eight registers: as many as are in work at a time,
    and with what is multiplied no more than there are.
    """
    return 2 if has_wide_registers(context) else 1


def rows_of(factors: Array) -> int:
    """How many rows are summed together, see :func:`strips_of`."""
    return 2 if isinstance(factors.number, ir.DoubleType) else 4


strips_at_a_time = known(types.int64, strips_of)
"""See :func:`strips_of`."""


@intrinsic
def rows_at_a_time(typing, factors):
    """See :func:`rows_of`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.int64, rows_of(*arrays(context, builder, signature, args)))

    return types.int64(factors), build


def sums(
    builder: Any, factors: Array, terms: Array, count: Any, visit: Any, rows: int, vectors: int
) -> list[list[Any]]:
    """For each row vectors of ``sum over k of factor[row, k] term[k]``.

    Parameters:
        count: how many terms there are.
        visit: from k to where the vectors of its term begin, and to where its factor is for each row.
        rows, vectors: how many there are.
    """
    nothing = ir.Constant(factors.vector, None)
    places = [[cgutils.alloca_once_value(builder, nothing) for _ in range(vectors)] for _ in range(rows)]
    for place in itertools.chain(*places):  # "once" is at the entry of the function, which may come here again
        builder.store(nothing, place)
    with cgutils.for_range(builder, count) as loop:
        starts, indices = visit(loop.index)
        term = [terms.load(start) for start in starts]
        for row, index in zip(places, indices, strict=True):
            factor = factors.spread(index)
            for place, vector in zip(row, term, strict=True):
                builder.store(add_product(builder, builder.load(place), factor, vector), place)
    return [[builder.load(place) for place in row] for row in places]
