"""Elementary functions without a branch, which LLVM makes SIMD of; those of the C library it calls one by one.

Exponentials are made of ``exp(x) = 2^n exp(r)`` with ``n = round(x / ln 2)``: ``r = x - n ln 2`` is within
0.35 of zero, where the first terms of the series are all that count. ``ln 2`` is the sum of two numbers, and
the first has so few digits that its product with n is exact (Cody & Waite 1980, Software Manual for the
Elementary Functions).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["exp", "expm1", "tanh", "where"]

_LN2_BEHIND = 2.3190468138462996e-17
"""ln 2 beyond the digits of ``math.log(2)``."""


@intrinsic
def exp(typing, x):
    """``exp(x)``, within 0.8 units in the last place."""
    return x(x), _built(_exp)


@intrinsic
def expm1(typing, x):
    """``exp(x) - 1``, within 2 units in the last place."""
    return x(x), _built(_expm1)


@intrinsic
def tanh(typing, x):
    """``tanh(x)``, within 3 units in the last place."""
    return x(x), _built(_tanh)


@intrinsic
def where(typing, condition, a, b):
    """``a`` where ``condition`` holds, ``b`` elsewhere; both are computed."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return a(condition, a, a), build


class _Kind(NamedTuple):
    """What a type of number is made of, and how many terms of the series it sees."""

    number: Any
    integer: Any
    digits: int
    bias: int
    terms: int
    lowest: float
    """Its exponential is zero."""
    highest: float
    """Its exponential is infinite."""


_KINDS = {
    types.float32: _Kind(ir.FloatType(), ir.IntType(32), 23, 127, 9, -104.0, 89.0),
    types.float64: _Kind(ir.DoubleType(), ir.IntType(64), 52, 1023, 14, -746.0, 710.0),
}


class _Numbers:
    """Arithmetic in a function that is being built, for one type of number."""

    def __init__(self, builder: Any, kind: _Kind) -> None:
        self.builder, self.kind = builder, kind
        self.add, self.subtract, self.times, self.over = builder.fadd, builder.fsub, builder.fmul, builder.fdiv

    def number(self, value: float) -> Any:
        return ir.Constant(self.kind.number, value)

    def integer(self, value: int) -> Any:
        return ir.Constant(self.kind.integer, value)

    def add_product(self, sum: Any, a: Any, b: Any) -> Any:
        """``sum + a b`` with one rounding, where the CPU can."""
        return self.builder.fadd(sum, self.builder.fmul(a, b, flags=("contract",)), flags=("contract",))

    def call(self, name: str, *values: Any) -> Any:
        """A function of one or two numbers that LLVM knows."""
        kind = ir.FunctionType(self.kind.number, [self.kind.number] * len(values))
        function = self.builder.module.declare_intrinsic(name, [self.kind.number], kind)
        return self.builder.call(function, values)

    def power_of_two(self, n: Any) -> Any:
        raised = self.builder.shl(
            self.builder.add(n, self.integer(self.kind.bias)), self.integer(self.kind.digits)
        )
        return self.builder.bitcast(raised, self.kind.number)


def _built(function: Callable[[_Numbers, Any], Any]) -> Any:
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return function(_Numbers(builder, _KINDS[signature.args[0]]), args[0])

    return build


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
    e = _expm1(m, m.times(m.number(-2.0), m.call("llvm.fabs", x)))
    return m.call("llvm.copysign", m.over(e, m.add(m.number(2.0), e)), x)


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
    whole = m.builder.sub(m.builder.bitcast(sum, m.kind.integer), m.builder.bitcast(large, m.kind.integer))
    half = m.builder.ashr(whole, m.integer(1))
    return r, m.add_product(lost, m.times(r, r), total), [half, m.builder.sub(whole, half)]
