"""Operators of a program in the words of :mod:`snnlib.engine.llvm.compiler`, unless others are given."""

from snnlib.engine.program import Line, Value
from snnlib.engine.program.bits import BITS

__all__ = ["CALLED", "INFIX", "POWERS", "expression", "literal"]

# "where" and not "if": LLVM does not always take a branch out
INFIX = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "abs": "abs({0})",
    "reciprocal": "F(1.0) / {0}",
    "number": "where({0}, F(1.0), F(0.0))",
    "where": "where({0}, {1}, {2})",
    "relu": "where({0} < F(0.0), F(0.0), {0})",
    # a comparison with NaN is false: both ways around keep NaN, as torch does
    "maximum": "where(({0} < {1}) | ({1} != {1}), {1}, {0})",
    "minimum": "where(({0} > {1}) | ({1} != {1}), {1}, {0})",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "isnan": "{0} != {0}",
    "logical_not": "not {0}",
    "logical_and": "{0} & {1}",
    "logical_or": "{0} | {1}",
    "sign": "where({0} > F(0.0), F(1.0), F(0.0)) - where({0} < F(0.0), F(1.0), F(0.0))",
    "sigmoid": "F(1.0) / (F(1.0) + exp(-{0}))",
    "sigmoid_backward": "{0} * (F(1.0) - {1}) * {1}",
    "tanh_backward": "{0} * (F(1.0) - {1} * {1})",
    "rsqrt": "F(1.0) / sqrt({0})",
    "pow": "{0} ** {1}",
    # a sum of numbers is turned into a byte once, a condition each by itself
    "bits": "where({0}, F({1}.0), F(0.0))",
    **{f"bit{k}": f"({{0}} & {1 << k}) != 0" for k in range(BITS)},
}
CALLED = {"cos", "exp", "expm1", "floor", "log", "log1p", "sin", "sqrt", "tanh"}
POWERS = {
    1.0: "{0}",
    2.0: "{0} * {0}",
    3.0: "{0} * {0} * {0}",
    0.5: "sqrt({0})",
    1.5: "{0} * sqrt({0})",
    -0.5: "F(1.0) / sqrt({0})",
    -1.0: "F(1.0) / {0}",
    -1.5: "F(1.0) / ({0} * sqrt({0}))",
    -2.0: "F(1.0) / ({0} * {0})",
}


def literal(value: Value) -> str:
    """A name, or a number, which is a finite one: the others are arguments."""
    return value if isinstance(value, str) else f"F({float(value)!r})"


def expression(line: Line, infix: dict[str, str] = INFIX, powers: dict[float, str] = POWERS) -> str:
    """A line's right side, in the words of :data:`INFIX` unless others are given."""
    arguments = [literal(a) for a in line.arguments]
    exponent = line.arguments[1] if line.operator == "pow" else None
    if isinstance(exponent, int | float) and exponent in powers:
        return powers[exponent].format(*arguments)
    if line.operator == "bits":
        return " + ".join(infix["bits"].format(argument, 1 << k) for k, argument in enumerate(arguments))
    if line.operator == "sum":
        return _sum(*line.arguments)
    if line.operator in CALLED:
        return f"{line.operator}({arguments[0]})"
    return infix[line.operator].format(*arguments)


def _sum(number: Value, *others: Value) -> str:
    """Values times factors, and a number."""
    text = ""
    for factor, name in zip(others[::2], others[1::2], strict=True):
        if factor == -1:
            text = f"{text} - {name}" if text else f"{literal(-1.0)} * {name}"
        else:
            term = str(name) if factor == 1 else f"{name} * {literal(factor)}"
            text = f"{text} + {term}" if text else term
    return text if number == 0 else f"{text} + {literal(number)}"
