"""What is either so or not so, kept for the backward pass as a bit of a byte: whether a neuron may move, say.

A number would take 32 bits, to be written and read again.
"""

from collections.abc import Mapping, Sequence

from snnlib.engine.program import Line, Program

__all__ = ["BITS", "CONDITIONS", "binary", "is_compared", "kept_as_bits", "read_from_bits"]

BITS = 8
"""Bits of a byte."""
CONDITIONS = {
    *("eq", "ne", "gt", "ge", "lt", "le", "isnan"),
    *("logical_not", "logical_and", "logical_or"),
}
"""Operators that say what is so or not so."""
_JUMPS = {*CONDITIONS, "floor", "sign"}
"""Operators whose results may be far apart where their arguments are not."""


def binary(lines: Sequence[Line]) -> set[str]:
    """Names of the lines that give a condition, or a number that is 0 or 1."""
    found: set[str] = set()
    for line in lines:
        product = line.operator == "mul" and found.issuperset(line.arguments)
        if line.operator in CONDITIONS or line.operator == "number" or product:
            found.add(line.name)
    return found


def is_compared(program: Program, *names: str) -> bool:
    """Whether a result may jump where one of these inputs or lines changes by its last bit."""
    follows = set(names)
    for line in program.lines:
        if follows.intersection(line.arguments):
            if line.operator in _JUMPS:
                return True
            follows.add(line.name)
    return False


def kept_as_bits(names: Sequence[str], by_name: Mapping[str, Line]) -> tuple[list[Line], list[str]]:
    """Lines that put what is :func:`binary` into as few bytes as it takes, and the names of these."""
    lines, bits = [], []
    known = {line[1:]: line.name for line in by_name.values()}
    for name in names:
        line, asked = by_name[name], ("ne", (name, 0))
        if line.operator in CONDITIONS:
            bits.append(name)
        elif line.operator == "number":
            bits.append(str(line.arguments[0]))
        elif asked in known:
            bits.append(known[asked])
        else:
            bits.append(f"{name}_so")
            lines.append(Line(bits[-1], *asked))
    parts = [tuple(bits[k : k + BITS]) for k in range(0, len(bits), BITS)]
    lines += [Line(f"f{k}", "bits", part) for k, part in enumerate(parts)]
    return lines, [f"f{k}" for k in range(len(parts))]


def read_from_bits(names: Sequence[str], by_name: Mapping[str, Line], bytes_: Sequence[str]) -> list[Line]:
    """Lines that undo :func:`kept_as_bits`; ``bytes_`` are the names of what it gave."""
    lines = []
    for k, name in enumerate(names):
        is_number = by_name[name].operator not in CONDITIONS
        bit = f"{name}_so" if is_number else name
        lines.append(Line(bit, f"bit{k % BITS}", (bytes_[k // BITS],)))
        lines += [Line(name, "number", (bit,))] if is_number else []
    return lines
