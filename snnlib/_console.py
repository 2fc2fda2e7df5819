"""A command of the library's while it starts, and what it says when nobody listens any more.

``snnlib/__init__.py`` imports this before what takes seconds: Ctrl-C in ``python -m snnlib...`` ends the
process with 130 and without a traceback, until the command says what else it is to do. For who imports the
library nothing changes.
"""

import os
import signal
import sys
from typing import Any

__all__ = ["is_task", "say"]


def _end(number: int, frame: Any) -> None:
    os._exit(128 + number)


# while python -m looks for a script, and imports the packages that it is in
_STARTING = sys.argv[:1] == ["-m"] and " -m snnlib." in " ".join(sys.orig_argv)
if _STARTING and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)


def is_task() -> bool:
    """Whether this process is a task and ends with it, unlike a notebook that calls one."""
    program = getattr(sys.modules["__main__"], "__spec__", None)
    return program is not None and program.name.startswith("snnlib.task.")


def say(text: str) -> None:
    """Print on standard output; end the process where nobody reads it any more, such as ``head``."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os._exit(128 + signal.SIGPIPE)  # Python would try to write again, and complain
