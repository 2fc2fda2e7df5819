"""One time step of a program as a function of rows of neurons, which the loops call for a word of them."""

from collections.abc import Sequence

from snnlib.engine.emit.expression import expression, literal
from snnlib.engine.emit.template import filled
from snnlib.engine.program import Program, numbers_of

__all__ = ["call_of", "function_of", "kept_in_place", "loads", "rooms_of", "stores"]

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
    registers = ", REGISTERS, 1" if name == "forward" else ", REGISTERS_BACK"
    arguments = ", ".join([*(f"{row}_" for row in rows), *more, *numbers_of(program)])
    blocks = {"first": first, "lines": lines, "last": last}
    return filled(
        _STEP, blocks, name=name, arguments=arguments, row=rows[0], registers=registers if waits else ""
    )


def loads(program: Program, rows: Sequence[str]) -> list[str]:
    """What the program reads of rows, then its lines: states are written in place, so all is loaded first."""
    used = {a for line in program.lines for a in line.arguments} | set(program.outputs)
    loads = [f"{name} = {name}_[j]" for name in program.inputs if name in used and name in rows]
    return [*loads, *(f"{line.name} = {expression(line)}" for line in program.lines)]


def stores(
    program: Program, written: Sequence[str], sums: Sequence[str] = (), past: Sequence[str] = ()
) -> list[str]:
    """Its outputs into rows: written, past the caches or not, and after those added to."""
    lines = []
    for target, value in zip(written, program.outputs, strict=False):
        if value != target or value not in program.inputs:  # a state that stays is there
            way = "put_past({}_, j, {})" if target in past else "{}_[j] = {}"
            lines.append(way.format(target, literal(value)))
    for target, value in zip(sums, program.outputs[len(written) :], strict=False):
        lines.append(f"{target}_[j] += {literal(value)}")
    return lines


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
