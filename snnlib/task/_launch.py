"""A task from the command line: how it starts, and the line or the sentence that it ends with."""

import contextlib
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from absl import flags

from snnlib._console import is_task
from snnlib._words import first_line, one_line
from snnlib.dataset.error import DataError
from snnlib.engine.check import NaNInputError
from snnlib.engine.memory import keep_memory
from snnlib.engine.step import UntraceableError
from snnlib.task import _command, _flags
from snnlib.task._error import DivergedError, Interrupted, RunError
from snnlib.task._run import Run

__all__ = ["launch", "process_seconds"]

_IMPORTED = time.perf_counter()


def launch(
    values: flags.FlagValues,
    task: str,
    train: Callable[[Run], dict[str, Any]],
    usage: str,
    prepare: Callable[[flags.FlagValues], None] = lambda values: None,
) -> None:
    """Run a task from the command line: flags, run folder, ``train``, the ``result:`` line, the exit code.

    Called from a notebook, once or often, it begins with the default flags, counts the seconds of the call, and
    gives Ctrl-C and SIGTERM back. Random seeds stay set.

    Parameters:
        values: the task's flags.
        task: its name.
        train: does the work and returns the figures of the result.
        usage: what ``--help`` shows above the flags.
        prepare: fills in flags whose default depends on other flags.
    """
    started = time.perf_counter()
    _command.parse(values, usage)
    keep_memory()
    threading.excepthook = _thread_ended
    run = None
    try:
        prepare(values)
        torch.manual_seed(values.seed)
        random.seed(values.seed)
        np.random.seed(values.seed % 2**32)
        run = Run(values, task)
        figures = train(run)
        seconds = process_seconds() if is_task() else time.perf_counter() - started
        figures = {"task": task, **figures, "seconds": round(seconds, 1), "seed": values.seed}
        run.close()  # which writes what is left
        if run.chief:
            print("result: " + json.dumps({**figures, "run": str(run.folder)}), flush=True)
    except Interrupted as stop:
        number = int(stop.args[0])
        if run and run.chief:
            print(f"interrupted; go on with --resume={run.folder}", file=sys.stderr)
        sys.exit(128 + number)
    except Exception as error:
        sentence = _sentence(error, values, run)
        if sentence is None:
            raise
        _flags.fail(sentence)
    finally:
        if run:
            with contextlib.suppress(OSError):  # a disk that is full has ended the run
                run.close()


def _thread_ended(told: threading.ExceptHookArgs) -> None:
    """Tell what ended a thread, but for what ends TensorBoard's: its writer raises it again."""
    if not isinstance(told.exc_value, OSError):
        threading.__excepthook__(told)


def _sentence(error: Exception, values: flags.FlagValues, run: Run | None) -> str | None:
    """What to tell whoever started the task; None of what nobody expects, which needs its traceback."""
    match error:
        case ImportError():
            way_out = "" if "pip install" in str(error) else ": pip install 'snnlib[tasks]'"
            return f"{error}{way_out}"
        case DivergedError() | NaNInputError():
            return f"{error}{run.circumstances() if run else ''}"
        case DataError() | RunError():
            return str(error)
        case UntraceableError():
            named = f"--backend={values['backend'].value}: " if "backend" in values else ""
            return f"{named}{one_line(error)}"
        case ValueError():  # so snnlib refuses what it is given
            return one_line(error)
        case OSError():
            way_out = run.last_checkpoint() if run else ""
            return f"{error.strerror or error}: {error.filename or 'writing the run'}{way_out}"
        case MemoryError() | RuntimeError() if _no_memory(error):
            return f"there is not enough memory for {_flags.largest(values)}: {first_line(error)}"
    return None


def process_seconds() -> float:
    """Wall time of the whole process, the imports included."""
    try:
        started = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):  # not Linux
        return time.perf_counter() - _IMPORTED


def _no_memory(error: Exception) -> bool:
    """Whether memory is missing, for which torch has no class of its own on the CPU."""
    words = ("allocate memory", "out of memory", "size calculation overflowed")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
