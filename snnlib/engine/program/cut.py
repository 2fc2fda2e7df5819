"""A traced step cut in two: a forward and a backward program, and the fewest values kept between them."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from snnlib.engine.program import Line, Program, Traced, Value, closure, is_short_power
from snnlib.engine.program.arms import Arms, arms_of, late_names
from snnlib.engine.program.bits import CONDITIONS, binary, kept_as_bits, read_from_bits
from snnlib.engine.program.flow import cheapest_cut

__all__ = ["cheapest", "following", "needs", "renamed", "split"]

_SLOW = {"cos", "log", "log1p", "pow", "sin"}
"""Operators that are not computed again for events: the C library computes one number after the other, which
takes longer than to keep them."""
_BIT = 8
"""The price of a bit a step, where a number's is 100; bits share a byte, which is a quarter of a number."""
_PACKED = 5
"""Lines for every step that take about as long as to keep a value for events, in instructions of AVX2."""


class Needs(NamedTuple):
    """What the backward half reads of the forward half.

    Attributes:
        always: the lines by name, without what is for events alone.
        steps: names of what is read for every step.
        events: of what is read for events alone.
        marks: conditions of events.
    """

    always: dict[str, Line]
    steps: set[str]
    events: set[str]
    marks: list[str]


class _Kept(NamedTuple):
    """What crosses from the forward to the backward half.

    Attributes:
        numbers: names of what is saved as it is.
        bits: of what is saved as bits.
        between: the program for events alone; its inputs are kept for these.
        marks: conditions of events; none if the output marks them.
        uses_output: whether the output is read again.
        ahead: lines by which some of this is computed in the forward half, under the names of these.
    """

    numbers: list[str]
    bits: list[str]
    between: Program
    marks: list[str]
    uses_output: bool
    ahead: Mapping[str, str]


def needs(
    lines: list[Line], tangents: tuple[str, ...], out: list[Value], grads: list[Value], sparse: bool
) -> Needs:
    """Find it; arguments as for :func:`split`, without ``sparse`` nothing is for events alone."""
    by_name, late = {line.name: line for line in lines}, late_names(lines, tangents)
    arms = arms_of(by_name, late, out[0]) if sparse else Arms(by_name, [], [], [])
    needed = closure(arms.always, grads, stop=set())
    more = closure(by_name, arms.values, stop=needed) - needed
    steps, events = _read(arms.always, late, needed, grads), _read(by_name, late, more, arms.values)
    return Needs(arms.always, steps, events, arms.marks)


def split(
    lines: list[Line],
    names: tuple[str, ...],
    tangents: tuple[str, ...],
    out: list[Value],
    grads: list[Value],
    sparse: bool,
    ahead: Mapping[str, str] = MappingProxyType({}),
) -> Traced:
    """Cut the joint program where the fewest values cross from the forward to the backward half.

    Parameters:
        lines: forward and backward in one.
        names: its inputs ``x, s0, ..., p0, ...``.
        tangents: the gradients that the backward half begins with.
        out: the output and the new states.
        grads: the gradients that the backward half ends with.
        sparse: whether what only events need, spikes say, is cut by itself, to be kept for them alone.
        ahead: of lines that are computed another way where they are kept, the line that does it.
    """
    by_name = {line.name: line for line in lines}
    parameters = {name for name in names if name.startswith("p")}
    found = needs(lines, tangents, out, grads, sparse)
    marks = set(found.marks)
    either = binary(lines)
    # of z and one more value that could be kept z is: it is an output anyway
    prices = dict.fromkeys(parameters, 0) | dict.fromkeys(either, _BIT) | {str(out[0]): 1}
    cut = cheapest(by_name, found.steps, names, prices) - parameters
    # spikes alone are marked by the output, of which the way back then has 0 and 1
    spikes_alone = out[0] in either and all(by_name[mark].operator == "ne" for mark in marks)
    known = {*cut, *parameters, *tangents, *(out[:1] if spikes_alone else [])}
    dense = cut | closure(found.always, grads, stop=known)
    between = _between(
        by_name, closure(by_name, out, stop=set()), found.events, names, parameters, dense, ahead
    )
    events = bool(between.inputs)
    marks = set() if spikes_alone or not events else marks
    uses_output = out[0] in cut or (events and not marks)
    bits = sorted((cut & either) - {out[0]})
    if bits and out[0] in cut & either and (marks or not events):
        bits, uses_output = [*bits, str(out[0])], False  # a bit more is less to read than the output
    kept = _Kept(sorted(cut - {*bits, out[0]}), bits, between, sorted(marks), uses_output, ahead)
    return _traced(lines, names, tangents, out, grads, kept)


def _traced(
    lines: list[Line],
    names: tuple[str, ...],
    tangents: tuple[str, ...],
    out: list[Value],
    grads: list[Value],
    kept: _Kept,
) -> Traced:
    """The programs, with the names of :class:`snnlib.engine.program.Traced`; other arguments as above."""
    by_name = {line.name: line for line in lines}
    parameters = [name for name in names if name.startswith("p")]
    between, told, heard = _in_numbers(kept.between, by_name)
    more, bytes_ = kept_as_bits(kept.bits, by_name)
    saved, events = (*kept.numbers, *bytes_), between.inputs
    made_saved, made_events = (tuple(kept.ahead.get(n, n) for n in some) for some in (saved, events))
    ends = (*out, *made_saved, *made_events)
    ahead, marked = _joined(following([*lines, *more, *told], (*ends, *kept.marks)), kept.marks)
    again = {name: f"k{k}" for k, name in enumerate(saved)}
    again |= {str(name): f"b{k}" for k, name in enumerate(between.outputs)}
    again |= {str(out[0]): "z"} if kept.uses_output else {}
    read = [*read_from_bits(kept.bits, by_name, bytes_), *heard]
    others = [line for line in lines if line.name not in {*kept.bits, *(line.name for line in heard)}]
    behind = [*read, *others]
    backward = tuple(following(behind, grads, stop={*again, *parameters, *tangents}))
    inputs = (*again.values(), *parameters, *tangents)
    between = renamed(between, {name: f"e{k}" for k, name in enumerate(events)})
    return Traced(
        Program(names, ahead, (*ends, *([marked] if marked else []))),
        renamed(Program(inputs, backward, tuple(grads)), again),
        made_saved,
        kept.uses_output,
        events=made_events,
        between=between._replace(inputs=tuple(f"e{k}" for k in range(len(events)))),
        marked=marked,
        bytes=len(bytes_),
    )


def _in_numbers(between: Program, by_name: dict[str, Line]) -> tuple[Program, list[Line], list[Line]]:
    """The program between two others with numbers for what is so or not so in its inputs and outputs, and lines
    that make such numbers in the first program, and that undo them in the second."""

    def truths(names: Iterable[Value]) -> list[str]:
        return [n for n in names if isinstance(n, str) and n in by_name and by_name[n].operator in CONDITIONS]

    given, made = truths(between.inputs), truths(between.outputs)
    number = {name: f"{name}_number" for name in (*given, *made)}
    undone = {name: Line(name, "ne", (number[name], 0.0)) for name in number}
    counted = {name: Line(number[name], "number", (name,)) for name in number}
    lines = [undone[name] for name in given] + list(between.lines)
    lines += [counted[name] for name in made if name not in given]
    inputs = tuple(number.get(name, name) for name in between.inputs)
    outputs = tuple(number.get(str(value), value) for value in between.outputs)
    program = Program(inputs, tuple(lines), outputs)
    return program, [counted[name] for name in given], [undone[name] for name in made]


def following(lines: Sequence[Line], ends: Iterable[Value], stop: Iterable[Value] = ()) -> list[Line]:
    """Of the lines those that ``ends`` follow from, not looking past ``stop``."""
    found = closure({line.name: line for line in lines}, ends, set(stop))
    return [line for line in lines if line.name in found]


def _read(by_name: dict[str, Line], late: set[str], needed: set[str], ends: Iterable[Value]) -> set[str]:
    """Values of the forward half that the backward half reads, of which ``needed`` are the lines that count."""
    arguments = [a for name in needed & late for a in by_name[name].arguments]
    return {a for a in (*arguments, *ends) if isinstance(a, str) and a not in late}


def _joined(lines: list[Line], marks: list[str]) -> tuple[tuple[Line, ...], str]:
    """The lines, and behind them one for a number that is not 0 where a mark is true; its name."""
    if not marks:
        return tuple(lines), ""
    lines = list(lines)
    any_mark = marks[0]
    for k, mark in enumerate(marks[1:]):
        lines.append(Line(f"m{k}", "logical_or", (any_mark, mark)))
        any_mark = f"m{k}"
    return (*lines, Line("m", "number", (any_mark,))), "m"


def _between(
    by_name: dict[str, Line],
    forward: set[str],
    wanted: set[str],
    names: tuple[str, ...],
    parameters: set[str],
    dense: set[str],
    ahead: Mapping[str, str],
) -> Program:
    """The cheapest values from which all that events want can be computed again, and the lines that do.

    They run for events alone; what is computed to be kept, beside the step itself, runs for every step. Lines
    that need a parameter, which is not kept for each event, are left for the backward program.

    Parameters:
        forward: names of the lines that the step itself needs.
        wanted: what the backward half reads for events alone.
        dense: what the backward half knows for every step.
        ahead: as for :func:`split`.
    """
    slow = [name for name in sorted(forward) if by_name[name].operator in _SLOW]
    slow = [name for name in slow if not is_short_power(by_name[name])]
    work = {name: 1 for name in by_name if name not in forward and name not in ahead}
    prices = dict.fromkeys(by_name, _PACKED) | dict.fromkeys(names, _PACKED) | dict.fromkeys(parameters, 0)
    events = cheapest(by_name, wanted, (*names, *slow), prices, work, ahead) - parameters
    known, others = set(events), set[str]()
    again = closure(by_name, wanted, stop=events)
    for line in by_name.values():
        if line.name in again:
            arguments = {a for a in line.arguments if isinstance(a, str)}
            (known if arguments <= known else others).add(line.name)
    read = (wanted | {str(a) for name in others for a in by_name[name].arguments}) & known
    inner = {name: line for name, line in by_name.items() if name in known - events}
    outputs = tuple(sorted(read - dense))
    lines = closure(inner, outputs, stop=events)
    used = {*outputs, *(a for name in lines for a in inner[name].arguments)}
    if not events & used:  # constants and parameters are at hand anyway
        return Program((), (), ())
    return Program(tuple(sorted(events & used)), tuple(inner[n] for n in inner if n in lines), outputs)


def cheapest(
    by_name: dict[str, Line],
    read: set[str],
    given: tuple[str, ...],
    prices: dict[str, int],
    work: Mapping[str, int] = MappingProxyType({}),
    ahead: Mapping[str, str] = MappingProxyType({}),
) -> set[str]:
    """The fewest values from which all that is ``read`` can be computed again; some have a price of their own.

    A tie goes to the values nearest to what is read, after which the least is left to compute.
    """
    reach = closure(by_name, read, stop=set()) | set(given)
    costs = {name: prices.get(name, 100) for name in sorted(reach)}
    reach |= closure(by_name, ahead.values(), stop=set())
    arguments = {n: [a for a in by_name[n].arguments if isinstance(a, str)] for n in reach if n in by_name}
    return cheapest_cut(costs, arguments, given, read, work, ahead)


def renamed(program: Program, names: dict[str, str]) -> Program:
    def rename(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(names.get(v, v) if isinstance(v, str) else v for v in values)

    lines = tuple(line._replace(arguments=rename(line.arguments)) for line in program.lines)
    return Program(program.inputs, lines, rename(program.outputs))
