"""One time step of a program as a function of rows of neurons, which the loops call for a word of them."""

from collections.abc import Collection, Mapping, Sequence

from snnlib.engine.emit.expression import expression, literal
from snnlib.engine.emit.template import filled
from snnlib.engine.program import Program, Value, closure, numbers_of

__all__ = ["call_of", "function_of", "in_rows", "kept_in_place", "rooms_of"]

_LONG = {"exp", "expm1", "sigmoid", "tanh"}
"""Operators of some twenty instructions, of which each waits for the one before."""

_STEP = """

def _{name}({arguments}):
    <first>
    for j in lanes({row}_.shape[0]{registers}):
        <lines>
    <last>
"""


def call_of(name: str, given: Sequence[str], program: Program) -> str:
    """A call of the function of that name."""
    return f"_{name}({', '.join([*given, *numbers_of(program)])})"


def function_of(
    name: str,
    rows: Sequence[str],
    program: Program,
    lines: Sequence[str],
    first: Sequence[str] = (),
    last: Sequence[str] = (),
    more: Sequence[str] = (),
) -> str:
    """The function of one time step of some neurons.

    Parameters:
        rows: names of its arrays.
        program: what the lines say; its numbers are arguments too.
        lines: for each neuron.
        first, last: lines before and after all neurons.
        more: arguments between arrays and numbers.
    """
    waits = any(line.operator in _LONG for line in program.lines)
    registers = ""
    if waits:
        registers = ", REGISTERS, 1" if name == "forward" else ", REGISTERS_BACK"
    elif name == "forward" and more:  # numbers are picked out of those of a whole word
        registers = ", REGISTERS if from_registers(squeezed) else 1, 1"
    arguments = ", ".join([*(f"{row}_" for row in rows), *more, *numbers_of(program)])
    blocks = {"first": first, "lines": lines, "last": last}
    return filled(_STEP, blocks, name=name, arguments=arguments, row=rows[0], registers=registers)


def in_rows(
    program: Program,
    rows: Sequence[str],
    written: Sequence[str],
    sums: Sequence[str] = (),
    ways: Mapping[str, str] | None = None,
    reads: Mapping[str, str] | None = None,
) -> list[str]:
    """What the program reads of rows, its lines, and its outputs into rows.

    States are written in place, so all is loaded first. What follows from few lines is written first: until
    then it takes registers, which one exponential alone could fill.

    Parameters:
        rows: what is read is in these.
        written: where its outputs go.
        sums: what the outputs after those are added to.
        ways: for some of ``written`` how, as a format of their name and the value.
        reads: for some of ``rows`` how, as a line.
    """
    by_name = {line.name: line for line in program.lines}
    used = {a for line in program.lines for a in line.arguments} | set(program.outputs)
    read = [name for name in program.inputs if name in used and name in rows]
    lines = [(reads or {}).get(name, f"{name} = {name}_[j]") for name in read]
    stores = [
        (closure(by_name, [value], stop=set()), way.format(target, literal(value)))
        for target, way, value in _targets(program, written, sums, ways or {})
    ]

    def written_out(names: Collection[str]) -> list[str]:
        return [f"{name} = {expression(line)}" for name, line in by_name.items() if name in names]

    done: set[str] = set()
    for needed, store in sorted(stores, key=lambda item: len(item[0])):
        lines += [*written_out(needed - done), store]
        done |= needed
    return [*lines, *written_out(by_name.keys() - done)]


def _targets(
    program: Program, written: Sequence[str], sums: Sequence[str], ways: Mapping[str, str]
) -> list[tuple[str, str, Value]]:
    """Where outputs go, how, and which."""
    targets = [(target, ways.get(target, "{}_[j] = {}")) for target in written]
    targets += [(target, "{}_[j] += {}") for target in sums]
    found = [(target, way, value) for (target, way), value in zip(targets, program.outputs, strict=False)]
    # a state that stays is there
    return [(t, way, value) for t, way, value in found if value != t or value not in program.inputs]


def kept_in_place(program: Program, states: Sequence[str]) -> tuple[Program, list[str]]:
    """The program without writing states that become the gradient of the output, and their names: one step on
    they are where that came from."""
    first, *ends = program.outputs
    later = [name for name, value in zip(states, ends, strict=False) if value == "gz"]
    still = [name if name in later else value for name, value in zip(states, ends, strict=False)]
    return program._replace(outputs=(first, *still, *ends[len(states) :])), later


def rooms_of(events: Sequence[str]) -> list[str]:
    """Where a word's columns of what is kept for events are."""
    return [f"events[{k}, here : here + v - u]" for k in range(len(events))]
