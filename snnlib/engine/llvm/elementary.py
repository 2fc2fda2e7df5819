"""Elementary functions without a branch, which LLVM makes SIMD of; those of the C library it calls one by one.

Exponentials are made of ``exp(x) = 2^n exp(r)`` with ``n = round(x / ln 2)``: ``r = x - n ln 2`` is within
0.35 of zero, where the first terms of the series are all that count. ``ln 2`` is the sum of two numbers, and
the first has so few digits that its product with n is exact (Cody & Waite 1980, Software Manual for the
Elementary Functions).
"""

import math
from typing import Any, NamedTuple

from llvmlite import ir

from snnlib.engine.llvm.arithmetic import alike, like, number_of
from snnlib.engine.llvm.builder import Builder, built

__all__ = ["cos", "exp", "expm1", "floor", "log", "log1p", "sin", "sqrt", "tanh", "where"]

_LN2_BEHIND = 2.3190468138462996e-17
"""ln 2 beyond the digits of ``math.log(2)``."""


@built
def exp(builder: Builder, x: Any) -> Any:
    """``exp(x)``, within 0.8 units in the last place."""
    return _exp(_Numbers(builder, x), x)


@built
def expm1(builder: Builder, x: Any) -> Any:
    """``exp(x) - 1``, within 2 units in the last place."""
    return _expm1(_Numbers(builder, x), x)


@built
def tanh(builder: Builder, x: Any) -> Any:
    """``tanh(x)``, within 3 units in the last place."""
    return _tanh(_Numbers(builder, x), x)


@built
def where(builder: Builder, condition: Any, a: Any, b: Any) -> Any:
    """``a`` where ``condition`` holds, ``b`` elsewhere; both are computed."""
    a, b = alike(builder, a, b)
    if isinstance(condition.type, ir.VectorType):
        a, b = (like(builder, value, ir.VectorType(number_of(value), condition.type.count)) for value in (a, b))
    return builder.select(condition, a, b)


def _known(name: str) -> Any:
    @built
    def function(builder: Builder, x: Any) -> Any:
        """A function that LLVM knows; where the CPU does not have it, it calls the C library's."""
        return builder.intrinsic(name, x)

    return function


cos, floor, log, sin, sqrt = map(_known, ("cos", "floor", "log", "sin", "sqrt"))


@built
def log1p(builder: Builder, x: Any) -> Any:
    """``log(1 + x)``, of the C library."""
    number = number_of(x)
    name = "log1pf" if isinstance(number, ir.FloatType) else "log1p"
    if x.type == number:
        return builder.call_named(name, number, x)
    for k in range(x.type.count):
        place = ir.Constant(ir.IntType(32), k)
        x = builder.insert_element(
            x, builder.call_named(name, number, builder.extract_element(x, place)), place
        )
    return x


class _Kind(NamedTuple):
    """What a type of number is made of, and how many terms of the series it sees."""

    integer: Any
    digits: int
    bias: int
    terms: int
    lowest: float
    """Its exponential is zero."""
    highest: float
    """Its exponential is infinite."""


_KINDS = {
    ir.FloatType(): _Kind(ir.IntType(32), 23, 127, 9, -104.0, 89.0),
    ir.DoubleType(): _Kind(ir.IntType(64), 52, 1023, 14, -746.0, 710.0),
}


class _Numbers:
    """Arithmetic in a function that is being compiled, in the type of ``x``."""

    def __init__(self, builder: Builder, x: Any) -> None:
        self.builder, self.kind, self._like = builder, _KINDS[number_of(x)], x.type
        self.add, self.subtract, self.times, self.over = builder.fadd, builder.fsub, builder.fmul, builder.fdiv
        self.add_product = builder.add_product

    def number(self, value: float) -> Any:
        return like(self.builder, value, self._like)

    def integer(self, value: int) -> Any:
        return like(self.builder, value, self.as_integers)

    @property
    def as_integers(self) -> Any:
        """The type of integers of the same size."""
        if isinstance(self._like, ir.VectorType):
            return ir.VectorType(self.kind.integer, self._like.count)
        return self.kind.integer

    def power_of_two(self, n: Any) -> Any:
        raised = self.builder.shl(
            self.builder.add(n, self.integer(self.kind.bias)), self.integer(self.kind.digits)
        )
        return self.builder.bitcast(raised, self._like)


def _exp(m: _Numbers, x: Any) -> Any:
    r, rest, halves = _reduced(m, x)
    most = m.add(m.number(1.0), r)
    lost = m.subtract(r, m.subtract(most, m.number(1.0)))
    total = m.add(most, m.add(lost, rest))
    for n in halves:
        total = m.times(total, m.power_of_two(n))
    return total


def _expm1(m: _Numbers, x: Any) -> Any:
    r, rest, halves = _reduced(m, x)
    power, other = (m.power_of_two(n) for n in halves)
    inverse = m.power_of_two(m.builder.neg(halves[1]))
    return m.times(m.add_product(m.subtract(power, inverse), m.add(r, rest), power), other)


def _tanh(m: _Numbers, x: Any) -> Any:
    """``-e / (2 + e)`` with ``e = exp(-2 |x|) - 1``, and the sign of x."""
    e = _expm1(m, m.times(m.number(-2.0), m.builder.intrinsic("fabs", x)))
    return m.builder.intrinsic("copysign", m.over(e, m.add(m.number(2.0), e)), x)


def _reduced(m: _Numbers, x: Any) -> tuple[Any, Any, list[Any]]:
    """``exp(x)`` as ``2^n (1 + r + rest)``: r, the rest, and two halves of the integer n.

    Two, because ``2^n`` may be infinite, or have lost digits, where their product with the sum is not.
    """
    for bound, outside in ((m.kind.lowest, "<"), (m.kind.highest, ">")):  # NaN stays
        x = m.builder.select(m.builder.fcmp_ordered(outside, x, m.number(bound)), m.number(bound), x)
    # so large that its last digit is one: a sum with it ends in the nearest integer
    large = m.number(1.5 * 2.0**m.kind.digits)
    sum = m.add_product(large, x, m.number(1 / math.log(2)))
    n = m.subtract(sum, large)
    few = 2.0 ** (m.kind.digits - 11)
    upper = round(math.log(2) * few) / few
    lower = math.log(2) - upper + _LN2_BEHIND
    first, second = m.subtract(x, m.times(n, m.number(upper))), m.times(n, m.number(-lower))
    r = m.add(first, second)
    lost = m.add(m.subtract(first, r), second)
    total = m.number(1 / math.factorial(m.kind.terms - 1))
    for k in range(m.kind.terms - 2, 1, -1):
        total = m.add_product(m.number(1 / math.factorial(k)), total, r)
    whole = m.builder.sub(m.builder.bitcast(sum, m.as_integers), m.builder.bitcast(large, m.as_integers))
    half = m.builder.ashr(whole, m.integer(1))
    return r, m.add_product(lost, m.times(r, r), total), [half, m.builder.sub(whole, half)]
