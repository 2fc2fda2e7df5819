"""What a program computes for events alone: the arms of its conditions, and what is known where these are true.

The way back of the adjoint has ``where(event, value, 0)`` for each spike, and for each gate that opens. Whoever
spikes has its gates open; so in such a value much is a number, and what is left of it is short.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import NamedTuple

from snnlib.engine.program import Line, Value, closure
from snnlib.engine.program.bits import binary
from snnlib.engine.program.sums import Sum, Sums

__all__ = ["Arms", "arms_of", "known_at", "late_names", "shortened"]

_OPPOSITE = {"gt": "le", "le": "gt", "lt": "ge", "ge": "lt", "eq": "ne", "ne": "eq"}
_SAME = {"add": 0, "sub": 0, "mul": 1, "div": 1}
"""The second argument by which an operator leaves the first as it is."""


class Arms(NamedTuple):
    """What is computed for events.

    Attributes:
        always: the lines without it, by name.
        values: the ends of it.
        marks: conditions of events, one for each of these.
        names: of the lines that choose, as many.
    """

    always: dict[str, Line]
    values: list[Value]
    marks: list[str]
    names: list[str]


def late_names(lines: Sequence[Line], tangents: Sequence[str]) -> set[str]:
    """Names of what follows from the gradients with which the way back begins, and of these."""
    late = set(tangents)
    for line in lines:
        if late.intersection(line.arguments):
            late.add(line.name)
    return late


def arms_of(by_name: dict[str, Line], late: set[str], output: Value) -> Arms:
    """Find them: of what is late ``where(event, value, 0)``."""
    found = Arms(dict(by_name), [], [], [])
    for line in by_name.values():
        if line.operator == "where" and line.name in late and line.arguments[2] == 0.0:
            condition = str(line.arguments[0])
            if condition not in late and _is_event(by_name, condition, output):
                found.values.append(line.arguments[1])
                found.marks.append(condition)
                found.names.append(line.name)
                found.always[line.name] = line._replace(arguments=(condition, 0.0, 0.0))
    return found


def _is_event(by_name: dict[str, Line], condition: str, output: Value) -> bool:
    """Whether it is a spike, or the last step before a gate opens (see :mod:`snnlib.engine.adjoint`)."""
    line = by_name.get(condition)
    if line is None or line[1:] == ("ne", (output, 0)):
        return line is not None
    if line.operator != "logical_and":
        return False
    first, second = (by_name.get(str(argument)) for argument in line.arguments)
    if first is None or second is None or (first.operator, second.operator) != ("le", "gt"):
        return False
    return first.arguments[0] == second.arguments[0] and first.arguments[1] == 0


def shortened(
    lines: list[Line], tangents: Sequence[str], out: Sequence[Value], grads: Sequence[Value]
) -> tuple[list[Line], dict[str, str]]:
    """The joint program with its arms made as short as what is known at their events allows.

    Parameters:
        lines: forward and backward in one.
        tangents: the gradients that the backward half begins with.
        out: the output and the new states.
        grads: the gradients that the backward half ends with.

    Returns:
        The lines, and of new ones another line that gives the same and is shorter where the step itself runs.
    """
    by_name = {line.name: line for line in lines}
    late = late_names(lines, tangents)
    arms = arms_of(by_name, late, out[0])
    if not arms.values:
        return lines, {}
    step, always = closure(by_name, out, stop=set()), closure(arms.always, grads, stop=set())
    early = [line for line in lines if line.name not in late]
    sums = Sums(early, [line.name for line in early if line.name in step])
    stop = {*tangents, *always}
    ends: dict[str, Sum | str] = {}
    again: list[tuple[str, str, tuple[Sum | str, ...]]] = []
    for name, mark, value in zip(arms.names, arms.marks, arms.values, strict=True):
        arm = _Arm(by_name, late, stop, sums, sums.under(_facts(lines, mark)))
        ends[name] = arm.value(value)
        again += arm.lines
    wanted = [a for a in (*ends.values(), *(a for line in again for a in line[2])) if isinstance(a, Sum)]
    value_of = sums.write(wanted)

    def written(value: Sum | str) -> Value:
        return value if isinstance(value, str) else value_of(value)

    more = [Line(name, kind, tuple(map(written, arguments))) for name, kind, arguments in again]
    by_name |= {line.name: line for line in (*sums.lines, *more)}
    for name, end in ends.items():
        chooses = by_name[name]
        by_name[name] = chooses._replace(arguments=(chooses.arguments[0], written(end), chooses.arguments[2]))
    return _in_order(by_name, [*(line.name for line in lines), *sums.ahead.values()]), sums.ahead


def known_at(
    lines: Sequence[Line], condition: str, values: Sequence[Value], parameters: Container[str]
) -> list[Value | None]:
    """Of each value what it is where a condition is true: a number, a parameter, or None for anything else."""
    value_of = Sums(lines, []).under(_facts(lines, condition))
    found: list[Value | None] = []
    for total in map(value_of, values):
        alone = total.number == 0 and len(total.terms) == 1 and total.terms[0][1] == 1
        name = total.terms[0][0] if alone else ""
        found.append(total.number if not total.terms else name if name in parameters else None)
    return found


class _Arm:
    """The late lines of an arm once more.

    Parameters:
        by_name: lines of the program.
        late: names of what is late.
        stop: of these, what is as it is.
        sums: of the early lines.
        early: the sum of an early value.

    Attributes:
        lines: the new ones, with sums among their arguments.
    """

    def __init__(
        self,
        by_name: Mapping[str, Line],
        late: set[str],
        stop: set[str],
        sums: Sums,
        early: Callable[[Value], Sum],
    ) -> None:
        self._by_name, self._late, self._stop = by_name, late, stop
        self._sums, self._early = sums, early
        self._known: dict[str, Sum | str] = {}
        self.lines: list[tuple[str, str, tuple[Sum | str, ...]]] = []

    def value(self, value: Value) -> Sum | str:
        if not isinstance(value, str) or value not in self._late:
            return self._early(value)
        if value in self._stop:
            return value
        if value not in self._known:
            line = self._by_name[value]
            self._known[value] = self._line(line.operator, [self.value(a) for a in line.arguments])
        return self._known[value]

    def _line(self, name: str, arguments: list[Sum | str]) -> Sum | str:
        numbers = [a.number if isinstance(a, Sum) and not a.terms else None for a in arguments]
        early = [a for a in arguments if isinstance(a, Sum)]
        if len(early) == len(arguments):
            return self._sums.made(name, early)
        if name == "mul" and 0 in numbers:
            return Sum(0.0)
        if name in _SAME and numbers[1] == _SAME[name]:
            return arguments[0]
        if name in ("add", "mul") and numbers[0] == _SAME[name]:
            return arguments[1]
        self.lines.append((self._sums.name(), name, tuple(arguments)))
        return self.lines[-1][0]


def _facts(lines: Sequence[Line], condition: str) -> dict[str, float]:
    """What is 1 and what is 0 where a condition is true: all of a product, the opposite of what is known."""
    by_name, either = {line.name: line for line in lines}, binary(lines)
    known: dict[str, float] = {}
    todo = [condition]
    while todo:
        name = todo.pop()
        line, known[name] = by_name[name], 1.0
        asked = line.operator == "ne" and line.arguments[0] in either and line.arguments[1] == 0
        product = line.operator == "mul" and either.issuperset(line.arguments)
        if asked or product or line.operator in ("number", "logical_and"):
            todo += [a for a in line.arguments if isinstance(a, str)]
    true = {by_name[name][1:] for name in known}
    for line in lines:
        if (_OPPOSITE.get(line.operator), line.arguments) in true:
            known[line.name] = 0.0
    return known


def _in_order(by_name: Mapping[str, Line], names: Sequence[str]) -> list[Line]:
    """Lines of these names, each behind those that it needs, new ones among them."""
    found: dict[str, Line] = {}
    for name in names:
        todo = [name]
        while todo:
            line = by_name[todo[-1]]
            missing = [a for a in line.arguments if a in by_name and a not in found]
            if not missing:
                found[todo.pop()] = line
            todo += [str(a) for a in missing]
    return list(found.values())
