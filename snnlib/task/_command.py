"""The command line of a task: flags are read, from files too, ``--help`` is shown, ``--resume`` taken over."""

import contextlib
import io
import math
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from absl import flags

from snnlib._console import say
from snnlib.task._flags import fail

__all__ = ["parse"]

_MAY_CHANGE = {
    *("epochs", "device", "accelerator", "plot", "save_every", "resume", "help", "data_dir"),
    *("episodes", "stop_when_solved", "render", "video"),
}
"""What a resumed run may be given anew; anything else would make it another run."""


def parse(values: flags.FlagValues, usage: str) -> None:
    """Read the command line, and with ``--resume`` the flags of that run before it.

    Ends the process with a sentence where a flag is wrong, and after ``--help``.
    """
    program, *arguments = sys.argv
    _forget(values)
    try:
        _read(values, [program, *arguments])
        if values.help:
            say(f"{usage.strip()}\n\n{_help(values)}")
            sys.exit(0)
        if "resume" in values and values["resume"].present:
            _take_over(values, program, arguments)
        _refuse_code(values, arguments)
    except flags.Error as error:
        # absl shows the tuple that it raises
        said = re.sub(r"\('Non-boolean argument to boolean flag', .*\)$", "must be true or false", str(error))
        fail(" ".join(said.splitlines()), code=2)


def _forget(values: flags.FlagValues) -> None:
    """Leave nothing of a command line that was read before: one process may run a task twice."""
    values.unparse_flags()
    for name in values:
        values[name].unparse()


def _read(values: flags.FlagValues, argv: list[str]) -> None:
    warned = io.StringIO()
    try:
        with contextlib.redirect_stderr(warned):  # absl goes on where a file of flags includes itself
            rest = values(argv)[1:]
    except (OSError, RecursionError, ValueError) as error:
        where = "" if str(error).endswith("does not take an argument") else "a file of flags cannot be read: "
        raise flags.Error(f"{where}{error}") from error
    if warned.getvalue():
        raise flags.Error(f"a file of flags includes itself: {warned.getvalue().split(': ')[-1].strip()}")
    if rest:
        raise flags.Error(f"unexpected argument {rest[0]!r}; flags are given as --name=value")
    for name in values:
        wrong = _beyond_bounds(values[name].value)
        if wrong:
            raise flags.IllegalFlagValueError(f"flag --{name}={str(values[name].value)!a:.80}: must be {wrong}")


def _beyond_bounds(value: Any) -> str:
    """What a value must be and is not, where absl lets it pass; such numbers overflow in torch."""
    if isinstance(value, float):
        return "finite" if not math.isfinite(value) else "less than 1e38" if abs(value) >= 1e38 else ""
    if isinstance(value, int):
        return "less than 2**32" if abs(value) >= 2**32 else ""
    texts = value if isinstance(value, list) else [value or ""]
    whole = all(c not in "\0\r\n" and not "\ud800" <= c <= "\udfff" for text in texts for c in text)
    if not whole:
        return "one line of text"  # else flags.txt could not hold it
    return "" if texts == [text.rstrip() for text in texts] else "text without a space at its end"


def _refuse_code(values: flags.FlagValues, arguments: list[str]) -> None:
    """Let an environment's name import a module only where the command line has it, and not a file alone."""
    name = values.environment if "environment" in values else ""
    if ":" in name and name not in [argument.split("=", 1)[-1] for argument in arguments]:
        raise flags.Error(
            f"--environment={name} is in a file and imports code: give it on the command line too"
        )


def _help(values: flags.FlagValues) -> str:
    """Every flag in the order of the script, with what it takes and its default."""
    lines = ["flags (also --flagfile=FILE with one flag a line):"]
    for name in values:
        flag = values[name]
        if name == flag.short_name:
            continue
        shown = f"--[no]{name}" if flag.boolean else f"--{name}"
        text = "one of these" if hasattr(flag.parser, "enum_values") else "text"
        takes = "" if flag.boolean else f" ({flag.parser.syntactic_help or text})"
        default = "" if flag.default is None else f" [{str(flag.default_as_str).strip(chr(39))}]"
        lines += [
            f"  {shown}{takes}{default}",
            *textwrap.wrap(flag.help, 100, initial_indent=" " * 6, subsequent_indent=" " * 6),
        ]
    return "\n".join(lines)


def _take_over(values: flags.FlagValues, program: str, arguments: list[str]) -> None:
    if not values.resume:
        raise flags.Error("--resume= names no folder; leave it out for a new run")
    folder = Path(values.resume)
    try:
        found = (folder / "flags.txt").is_file()
    except OSError as error:
        raise flags.Error(f"--resume={values.resume}: {error.strerror}") from error
    if not found:
        raise flags.Error(f"--resume={folder}: there is no run in that folder (flags.txt is missing)")
    asked = {name: values[name].value for name in values if values[name].present}
    _forget(values)
    _read(values, [program, f"--flagfile={folder / 'flags.txt'}"])
    for name, value in asked.items():
        before = values[name].value
        if name not in _MAY_CHANGE and value != before:
            raise flags.Error(f"--{name}={value}: the run in {folder} has --{name}={before} and keeps it")
    _read(values, [program, f"--flagfile={folder / 'flags.txt'}", *arguments])
