"""Values of a program as sums of others times numbers.

What the adjoint asks of a spike are differences between a step and itself, in which most cancels: of the leaks,
currents and exponentials of two steps one current is left, say. Sums cancel by themselves. They also show which
of their terms are always together, and so are one value to keep.
"""

import contextlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from math import exp, inf, isfinite, isnan, nan
from typing import Any, NamedTuple

from snnlib.engine.program import Line, Value

__all__ = ["Sum", "Sums"]

_ROUNDING = 1e-12
"""What is left of two numbers that cancel, as a share of them."""
_DIGITS = 9
"""By which numbers are compared."""
_MOST = 20
"""Terms of a sum; one of more is a term of its own, or a step of hundreds of lines would take minutes."""
_OF_NUMBERS: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in ("eq", "ne", "gt", "ge", "lt", "le", "abs")},
    **{"logical_not": operator.not_, "exp": exp, "number": float},
    **{"pow": operator.pow, "maximum": max, "minimum": min, "relu": lambda x: max(x, 0.0)},
}
"""Operators that are computed at once where all arguments are numbers, conditions as 0 and 1."""


class Sum(NamedTuple):
    """``number + factor * name + ...``, sorted by name."""

    number: float
    terms: tuple[tuple[str, float], ...] = ()

    def plus(self, other: "Sum", factor: float = 1.0) -> "Sum":
        """With ``factor`` times another one."""
        factors = dict(self.terms)
        for name, value in other.terms:
            factors[name] = _added(factors.get(name, 0.0), factor * value)
        terms = sorted((name, value) for name, value in factors.items() if value != 0)
        return Sum(_added(self.number, factor * other.number), tuple(terms))

    def times(self, factor: float) -> "Sum":
        return Sum(0.0).plus(self, factor) if factor != 0 else Sum(0.0)

    def key(self) -> Any:
        """The same for sums that differ by rounding."""
        return _rounded(self.number), tuple((name, _rounded(factor)) for name, factor in self.terms)

    def holds(self, other: "Sum") -> float:
        """The factor by which the terms of another one are among its own; 0 if they are not."""
        mine = dict(self.terms)
        found = {_rounded(mine.get(name, 0.0) / factor) for name, factor in other.terms}
        return mine[other.terms[0][0]] / other.terms[0][1] if len(found) == 1 and found != {0.0} else 0.0


def _added(a: float, b: float) -> float:
    total = a + b
    return 0.0 if abs(total) <= _ROUNDING * max(abs(a), abs(b)) < inf else total


def _rounded(value: float) -> float:
    return nan if isnan(value) else float(f"{value:.{_DIGITS}g}")  # one NaN, which is itself


class Sums:
    """The lines of a program as sums, and new lines for sums.

    Parameters:
        lines: of the program.
        free: names of lines that are computed anyway, with those that they need.

    Attributes:
        lines: the new ones.
        ahead: of new lines the one that gives the same from as few free lines as there are.
    """

    def __init__(self, lines: Sequence[Line], free: Iterable[str]) -> None:
        self._program = lines
        self._atoms: dict[Any, str] = {}
        self._new: dict[str, tuple[str, tuple[Sum, ...]]] = {}
        self._names = (f"w{k}" for k in count())
        self.lines: list[Line] = []
        self.ahead: dict[str, str] = {}
        known: dict[str, Sum] = {}
        wanted = set(free)
        for line in lines:
            if line.name in wanted:
                known[line.name] = self._of_line(line, known, line.name)
        self._free = {name: total for name, total in known.items() if total.terms}

    def under(self, facts: Mapping[str, float]) -> Callable[[Value], Sum]:
        """The sums of values where some are known."""
        known = {name: Sum(float(value)) for name, value in facts.items()}
        for line in self._program:
            if line.name not in known:
                known[line.name] = self._of_line(line, known)
        return lambda value: _sum_of(value, known)

    def made(self, name: str, arguments: Sequence[Sum], own: str = "") -> Sum:
        """An operator of sums. If it is no sum, it is a term of its own, with its ``own`` or a new name."""
        if (found := _folded(name, arguments)) is not None and len(found.terms) <= _MOST:
            return found
        key = name, tuple(argument.key() for argument in arguments)
        if key not in self._atoms:
            self._atoms[key] = own or self.name()
            if not own:
                self._new[self._atoms[key]] = name, tuple(arguments)
        return Sum(0.0, ((self._atoms[key], 1.0),))

    def name(self) -> str:
        """For a new line."""
        return next(self._names)

    def write(self, wanted: Iterable[Sum]) -> Callable[[Sum], Value]:
        """Add lines for sums; the function gives the value of each.

        Terms that are together in all of them are added up once, and so are a value for all. What is made of
        several of these is made a second time, of free lines, for who needs it where the program runs.
        """
        writer = _Writer(self._all(wanted), self._free, self._new, self._names)
        for total in reversed(writer.wanted):  # what others are made of first
            writer.value(total)
        self.lines += writer.lines
        self.ahead |= writer.ahead
        return writer.value

    def _of_line(self, line: Line, known: Mapping[str, Sum], own: str = "") -> Sum:
        return self.made(line.operator, [_sum_of(a, known) for a in line.arguments], own)

    def _all(self, wanted: Iterable[Sum]) -> list[Sum]:
        """Sums, the arguments of new terms in them, and so on."""
        found: dict[Any, Sum] = {}
        todo = list(wanted)
        while todo:
            total = todo.pop(0)
            if total.terms and total.key() not in found:
                found[total.key()] = total
                todo += [a for name, _ in total.terms for a in self._new.get(name, ("", ()))[1]]
        return list(found.values())


def _sum_of(value: Value, known: Mapping[str, Sum]) -> Sum:
    if not isinstance(value, str):
        return Sum(float(value))
    return known.get(value) or Sum(0.0, ((value, 1.0),))


def _folded(name: str, arguments: Sequence[Sum]) -> Sum | None:
    """An operator of sums, if that is a sum."""
    numbers = [None if argument.terms else argument.number for argument in arguments]
    if name in ("add", "sub"):
        return arguments[0].plus(arguments[1], 1.0 if name == "add" else -1.0)
    if name == "neg":
        return arguments[0].times(-1.0)
    if name == "mul" and (known := [k for k, number in enumerate(numbers) if number is not None]):
        factor = arguments[known[0]].number
        return arguments[1 - known[0]].times(factor) if isfinite(factor) else None
    if name == "div" and (numbers[0] == 0 or numbers[1]):
        return arguments[0].times(1.0 / (numbers[1] or 1.0))
    if name == "where" and numbers[0] is not None:
        return arguments[1 if numbers[0] else 2]
    if name in ("logical_and", "logical_or") and any(n is not None for n in numbers):
        decides = float(name == "logical_or")
        return Sum(decides) if decides in [n and 1.0 for n in numbers] else arguments[numbers[0] is not None]
    if name in _OF_NUMBERS and None not in numbers:
        with contextlib.suppress(ArithmeticError, TypeError, ValueError):  # too large, or not real
            return Sum(float(_OF_NUMBERS[name](*numbers)))
    return None


class _Writer:
    """Lines for sums that are wanted together; see :meth:`Sums.write`."""

    def __init__(
        self,
        wanted: list[Sum],
        free: Mapping[str, Sum],
        new: dict[str, tuple[str, tuple[Sum, ...]]],
        names: Iterator[str],
    ) -> None:
        self.wanted, self._free, self._new, self._names = wanted, free, new, names
        self._asked = {total.key() for total in wanted}
        self._parts = _together(wanted)
        self._free_by_term: dict[str, list[str]] = {}
        for name, line in free.items():
            self._free_by_term.setdefault(line.terms[0][0], []).append(name)
        self._pieces: dict[Any, tuple[list[tuple[float, str]], float]] = {}
        self._values: dict[Any, Value] = {}
        self._known: dict[tuple[Value, ...], str] = {}
        self.lines: list[Line] = []
        self.ahead: dict[str, str] = {}

    def value(self, total: Sum) -> Value:
        key = total.key()
        if not total.terms:
            return total.number
        if key not in self._values:
            parts = {
                id(part): (part, shared) for part, shared in (self._parts[name] for name, _ in total.terms)
            }
            terms, number = [], total.number
            for part, shared in parts.values():
                factor = total.holds(part)
                pieces, rest = self._of_free(part)
                if len(pieces) > 1 and part.key() != key and shared:
                    pieces, rest = [(1.0, str(self.value(part)))], 0.0
                terms += [(factor * scale, name) for scale, name in pieces]
                number += factor * rest
            name = self._values[key] = self._line(terms, number)
            if len(parts) > 1 and (ahead := self._line(*self._of_free(total))) != name:
                self.ahead[name] = ahead
        return self._values[key]

    def _of_free(self, total: Sum) -> tuple[list[tuple[float, str]], float]:
        """A sum as factors of free lines and of single terms, and a number."""
        key = total.key()
        if key not in self._pieces:
            terms, left = [], total
            while left.terms:
                name = self._best(left)
                line = self._free.get(name, Sum(0.0, ((name, 1.0),)))
                factor = left.holds(line)
                left = left.plus(line, -factor)
                terms.append((factor, self._atom(name)))
            self._pieces[key] = terms, left.number
        return self._pieces[key]

    def _best(self, total: Sum) -> str:
        """The free line with the most terms of a sum, rather one that is wanted itself, or else the first term.

        A line of one term is of use if it saves a multiplication.
        """
        found = [(1, False, 0, total.terms[0][0])]
        for name in (name for term, _ in total.terms for name in self._free_by_term.get(term, ())):
            line = self._free[name]
            if factor := total.holds(line):
                ready = line.number == 0 and _rounded(abs(factor)) == 1
                if ready or len(line.terms) > 1:
                    found.append((len(line.terms), line.key() in self._asked, 1 + ready, name))
        return max(found, key=lambda each: each[:3])[3]

    def _atom(self, name: str) -> str:
        if name in self._new:
            operator_name, arguments = self._new.pop(name)
            self.lines.append(Line(name, operator_name, tuple(map(self.value, arguments))))
        return name

    def _line(self, terms: Sequence[tuple[float, str]], number: float) -> str:
        """A line for factors of others and a number, if it is not one of them."""
        terms = sorted(terms, key=lambda term: term[0] < 0)  # what is subtracted comes last
        if number == 0 and len(terms) == 1 and _rounded(terms[0][0]) == 1:
            return terms[0][1]
        flat = [value for factor, name in terms for value in (_exact(factor), name)]
        arguments = (number, *flat)
        if arguments not in self._known:
            self._known[arguments] = next(self._names)
            self.lines.append(Line(self._known[arguments], "sum", arguments))
        return self._known[arguments]


def _exact(factor: float) -> float:
    """1 and -1 without rounding."""
    return float(round(factor)) if _rounded(abs(factor)) == 1 else factor


def _together(wanted: Sequence[Sum]) -> dict[str, tuple[Sum, bool]]:
    """Terms that have the same proportion wherever they are, as a sum whose first factor is 1, by each of them;
    and whether they are in more than one."""
    columns: dict[str, list[tuple[int, float]]] = {}
    for k, total in enumerate(wanted):
        for name, factor in total.terms:
            columns.setdefault(name, []).append((k, factor))
    groups: dict[Any, list[tuple[str, float]]] = {}
    for name, column in sorted(columns.items()):
        key = tuple((k, _rounded(factor / column[0][1])) for k, factor in column)
        groups.setdefault(key, []).append((name, column[0][1]))
    found: dict[str, tuple[Sum, bool]] = {}
    for key, terms in groups.items():
        part = Sum(0.0, tuple((name, factor / terms[0][1]) for name, factor in terms)), len(key) > 1
        found |= {name: part for name, _ in terms}
    return found
