"""Arithmetic of :mod:`snnlib.engine.llvm.compiler`: of values that are known while it compiles, and of LLVM's.

What Python knows it computes itself. Types are LLVM's: integers of 64 bits, bytes, truth values of one bit,
float32 and float64, and vectors of them. A value is widened where none of it is lost; other values of two types
have no sum.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from snnlib.engine.llvm.builder import BIT, BYTE, INTEGER, Builder

__all__ = [
    "FLOATS",
    "alike",
    "at_run_time",
    "binary",
    "compared",
    "like",
    "negative",
    "number_of",
    "truth",
]

FLOATS = (ir.FloatType(), ir.DoubleType())

_PYTHON: dict[type[ast.AST], Callable[..., Any]] = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv},
    **{ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow},
    **{ast.LShift: operator.lshift, ast.RShift: operator.rshift},
    **{ast.BitAnd: operator.and_, ast.BitOr: operator.or_},
    **{ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge},
    **{ast.Eq: operator.eq, ast.NotEq: operator.ne},
}
_INTEGERS: dict[type[ast.AST], str] = {
    **{ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.FloorDiv: "sdiv", ast.Mod: "srem"},
    **{ast.LShift: "shl", ast.RShift: "ashr", ast.BitAnd: "and_", ast.BitOr: "or_"},
}
_NUMBERS: dict[type[ast.AST], str] = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}
_ORDERS: dict[type[ast.AST], str] = {
    **{ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="},
    **{ast.Eq: "==", ast.NotEq: "!="},
}


def binary(builder: Builder, kind: type[ast.AST], a: Any, b: Any) -> Any:
    """``a + b`` and the like; ``kind`` is Python's class for it."""
    if not isinstance(a, ir.Value) and not isinstance(b, ir.Value):
        return _PYTHON[kind](a, b)
    a, b = alike(builder, a, b)
    if a.type == BIT and kind not in (ast.BitAnd, ast.BitOr):  # True + True is 2
        a, b = (like(builder, value, INTEGER) for value in (a, b))
    if number_of(a) not in FLOATS:
        return getattr(builder, _INTEGERS[kind])(a, b)
    if kind is ast.Pow:
        return builder.intrinsic("pow", a, b)
    return getattr(builder, _NUMBERS[kind])(a, b)


def compared(builder: Builder, kind: type[ast.AST], a: Any, b: Any) -> Any:
    """``a < b`` and the like. Of NaN nothing is true but that it is another."""
    if not isinstance(a, ir.Value) and not isinstance(b, ir.Value):
        return _PYTHON[kind](a, b)
    a, b = alike(builder, a, b)
    if number_of(a) not in FLOATS:
        compare = builder.icmp_unsigned if number_of(a) in (BIT, BYTE) else builder.icmp_signed
        return compare(_ORDERS[kind], a, b)
    compare = builder.fcmp_unordered if kind is ast.NotEq else builder.fcmp_ordered
    return compare(_ORDERS[kind], a, b)


def negative(builder: Builder, value: Any) -> Any:
    """``-value``."""
    if not isinstance(value, ir.Value):
        return -value
    return builder.fneg(value) if number_of(value) in FLOATS else builder.neg(value)


def truth(builder: Builder, value: Any) -> Any:
    """Whether a value is other than zero."""
    if not isinstance(value, ir.Value):
        return bool(value)
    if number_of(value) == BIT:
        return value
    return compared(builder, ast.NotEq, value, 0)


def like(builder: Builder, value: Any, kind: Any) -> Any:
    """A value in another type; one number as a vector of it.

    Raises:
        TypeError: some of it would be lost.
    """
    if isinstance(kind, ir.VectorType) and not isinstance(getattr(value, "type", None), ir.VectorType):
        return builder.spread(like(builder, value, kind.element), kind.count)
    if not isinstance(value, ir.Value):
        return ir.Constant(kind, float(value) if kind in FLOATS else int(value))
    if value.type == kind:
        return value
    if value.type in (BIT, BYTE) and kind == INTEGER:
        return builder.zext(value, kind)
    raise TypeError(f"{value} cannot be {kind}")


def alike(builder: Builder, a: Any, b: Any) -> tuple[Any, Any]:
    """Both in the type of the wider one, where Python's own numbers have the other's."""
    kinds = {value.type for value in (a, b) if isinstance(value, ir.Value)}
    vectors = {kind for kind in kinds if isinstance(kind, ir.VectorType)}
    if vectors:
        kinds = vectors
    elif len(kinds) > 1 or (BIT in kinds and not all(_is_truth(value) for value in (a, b))):
        kinds = {INTEGER}
    (kind,) = kinds
    return like(builder, a, kind), like(builder, b, kind)


def number_of(value: Any) -> Any:
    """The type of a value, or of the numbers in a vector."""
    return value.type.element if isinstance(value.type, ir.VectorType) else value.type


def at_run_time(builder: Builder, value: Any) -> Any:
    """What Python knows, an integer or whether something is so, as an integer of LLVM's.

    Raises:
        TypeError: it is a number of no type yet.
    """
    if isinstance(value, float):
        raise TypeError(f"{value} may be float32 or float64; np.float32({value}) is one")
    return builder.integer(int(value)) if isinstance(value, int) else value


def _is_truth(value: Any) -> bool:
    return value.type == BIT if isinstance(value, ir.Value) else isinstance(value, bool)
