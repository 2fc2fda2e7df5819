"""The flags that tasks share: one name, one meaning and one bound for all of them."""

import contextlib
import copy
import io
import math
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

from snnlib.engine.scan import BACKENDS
from snnlib.functional.threshold import METHODS

__all__ = ["LIGHTNING", "fail", "largest", "needs", "parse", "positive", "restrict", "shared"]

_MAY_CHANGE = {
    *("epochs", "device", "accelerator", "plot", "save_every", "resume", "help"),
    *("episodes", "stop_when_solved", "render", "video"),
}
"""What a resumed run may be given anew; anything else would make it another run."""

_OPTIMIZERS = ("adam", "adamw", "sgd")

LIGHTNING: dict[str, Any] = {
    "accelerator": "auto",
    "devices": "auto",
    "num_nodes": 1,
    "strategy": "auto",
    "precision": "32-true",
    "accumulate_grad_batches": 1,
    "limit_train_batches": 1.0,
    "fast_dev_run": False,
    "patience": 0,
}
"""The flags of Lightning's trainer and their defaults, the same in every task that uses it."""

# name -> (how absl defines it, its help, further arguments)
_SHARED: dict[str, tuple[Callable[..., Any], str, dict[str, Any]]] = {
    "device": (
        flags.DEFINE_enum,
        "Where to compute; auto takes CUDA where there is one.",
        {"enum_values": ["auto", "cpu", "cuda"]},
    ),
    "seed": (flags.DEFINE_integer, "Seed of every random number of the run.", {"lower_bound": 0}),
    "epochs": (flags.DEFINE_integer, "Passes over the training set.", {"lower_bound": 1}),
    "batch_size": (flags.DEFINE_integer, "Examples in one optimisation step.", {"lower_bound": 1}),
    "learning_rate": (flags.DEFINE_float, "Largest learning rate of the schedule.", {"lower_bound": 0.0}),
    "weight_decay": (flags.DEFINE_float, "Weight decay of the optimiser.", {"lower_bound": 0.0}),
    "clip_grad": (
        flags.DEFINE_float,
        "Largest norm of the gradient of all weights; 0 leaves it alone.",
        {"lower_bound": 0.0},
    ),
    "optimizer": (flags.DEFINE_enum, "Optimiser.", {"enum_values": list(_OPTIMIZERS)}),
    "seq_length": (flags.DEFINE_integer, "Time steps that one example is shown.", {"lower_bound": 1}),
    "dt": (flags.DEFINE_float, "Length of a time step, s.", {"lower_bound": 0.0}),
    "tau_syn_inv": (
        flags.DEFINE_float,
        "Inverse synaptic time constant of the neurons, 1/s.",
        {"lower_bound": 0.0},
    ),
    "tau_mem_inv": (
        flags.DEFINE_float,
        "Inverse membrane time constant of the neurons, 1/s.",
        {"lower_bound": 0.0},
    ),
    "method": (
        flags.DEFINE_enum,
        "How the gradient passes a spike: by a surrogate derivative, or by the adjoint.",
        {"enum_values": sorted(METHODS)},
    ),
    "alpha": (
        flags.DEFINE_float,
        "Width or height of the surrogate derivative, see help(snnlib.spike); the method's own if not given.",
        {"lower_bound": 0.0},
    ),
    "backend": (
        flags.DEFINE_enum,
        "What runs the neurons over time, see snnlib.scan.",
        {"enum_values": ["auto", *BACKENDS]},
    ),
    "output_dir": (flags.DEFINE_string, "Runs are written to OUTPUT_DIR/TASK/TIME.", {}),
    "resume": (flags.DEFINE_string, "Folder of a run to go on with; its flags are taken over.", {}),
    "data_dir": (flags.DEFINE_string, "Where data sets are kept and downloaded to.", {}),
    "save_every": (
        flags.DEFINE_integer,
        "Also save the run every so many steps within an epoch; 0: at its end alone.",
        {"lower_bound": 0},
    ),
    "patience": (
        flags.DEFINE_integer,
        "Stop after so many epochs without a better validation result; 0 never stops early.",
        {"lower_bound": 0},
    ),
    "accelerator": (
        flags.DEFINE_string,
        "Where to compute, in Lightning's words: auto, cpu, gpu, mps, tpu, ...",
        {},
    ),
    "devices": (
        flags.DEFINE_string,
        "How many of them on a machine, or which: 2, or 0,3, or auto for all.",
        {},
    ),
    "num_nodes": (flags.DEFINE_integer, "Machines that train together.", {"lower_bound": 1}),
    "strategy": (
        flags.DEFINE_string,
        "How they do, in Lightning's words: auto, ddp, ...; --batch_size is that of one device.",
        {},
    ),
    "precision": (
        flags.DEFINE_enum,
        "Numbers to compute in; neurons integrate in float32, or with 64-true in float64.",
        {"enum_values": ["32-true", "16-mixed", "bf16-mixed", "64-true"]},
    ),
    "accumulate_grad_batches": (
        flags.DEFINE_integer,
        "Batches whose gradients make one optimisation step.",
        {"lower_bound": 1},
    ),
    "limit_train_batches": (
        flags.DEFINE_float,
        "Part of the training set that an epoch takes, up to 1, or a number of batches, above 1.",
        {"lower_bound": 0.0},
    ),
    "fast_dev_run": (
        flags.DEFINE_boolean,
        "One batch of training, validation and test each, to see that a change works; keeps no checkpoint.",
        {},
    ),
    "channels_last": (
        flags.DEFINE_boolean,
        "Keep the channels of a pixel side by side in memory, which is faster.",
        {},
    ),
    "plot": (flags.DEFINE_boolean, "Draw figures into the run's folder.", {}),
    "fast": (
        flags.DEFINE_boolean,
        "A short run on generated samples, to see that all parts work; it shows nothing about learning.",
        {},
    ),
}


def shared(**defaults: Any) -> flags.FlagValues:
    """Flags of a task: the shared ones that it names, with its defaults, in their order.

    They live in a FlagValues of the task's own, so that importing a task defines nothing globally.
    """
    values = flags.FlagValues()
    for name, default in defaults.items():
        define, text, arguments = _SHARED[name]
        define(name, default, help=text, flag_values=values, **arguments)
    if "accelerator" in values:
        flags.DEFINE_alias("device", "accelerator", flag_values=values)
    flags.DEFINE_boolean("help", False, "Show this help.", short_name="h", flag_values=values)
    for name in ("learning_rate", "dt", "tau_syn_inv", "tau_mem_inv", "alpha", "limit_train_batches"):
        if name in values:
            positive(name, values)
    return values


def positive(name: str, values: flags.FlagValues) -> None:
    """Refuse zero where a bound of absl's would let it pass."""
    restrict(name, lambda value: value > 0, "a positive number", values)


def restrict(name: str, allowed: Callable[[Any], bool], wanted: str, values: flags.FlagValues) -> None:
    """Refuse values that are not allowed; ``wanted`` says what is, in ``--help`` too."""
    parser = copy.copy(values[name].parser)  # absl has one for all flags of the same bounds
    parser.syntactic_help = wanted
    values[name].parser = parser
    flags.register_validator(
        name, lambda value: value is None or allowed(value), f"must be {wanted}", flag_values=values
    )


def parse(values: flags.FlagValues, usage: str) -> None:
    """Read the command line, and with ``--resume`` the flags of that run before it.

    Ends the process with a sentence where a flag is wrong, and after ``--help``.
    """
    program, *arguments = sys.argv
    try:
        _read(values, [program, *arguments])
        if values.help:
            print(f"{usage.strip()}\n\n{_help(values)}")
            sys.exit(0)
        if "resume" in values and values["resume"].value:
            _take_over(values, program, arguments)
        _refuse_code(values, arguments)
    except flags.Error as error:
        # absl shows the tuple that it raises
        said = re.sub(r"\('Non-boolean argument to boolean flag', .*\)$", "must be true or false", str(error))
        fail(" ".join(said.splitlines()), code=2)


def _read(values: flags.FlagValues, argv: list[str]) -> None:
    warned = io.StringIO()
    try:
        with contextlib.redirect_stderr(warned):  # absl goes on where a file of flags includes itself
            rest = values(argv)[1:]
    except (OSError, RecursionError, ValueError) as error:
        raise flags.Error(f"a file of flags cannot be read: {error}") from error
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
    return "" if whole else "one line of text"  # else flags.txt could not hold it


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
    folder = Path(values.resume)
    try:
        found = (folder / "flags.txt").is_file()
    except OSError as error:
        raise flags.Error(f"--resume={values.resume}: {error.strerror}") from error
    if not found:
        raise flags.Error(f"--resume={folder}: there is no run in that folder (flags.txt is missing)")
    asked = {name: values[name].value for name in values if values[name].present}
    values.unparse_flags()
    for name in values:
        values[name].unparse()
    _read(values, [program, f"--flagfile={folder / 'flags.txt'}"])
    for name, value in asked.items():
        before = values[name].value
        if name not in _MAY_CHANGE and value != before:
            raise flags.Error(f"--{name}={value}: the run in {folder} has --{name}={before} and keeps it")
    _read(values, [program, f"--flagfile={folder / 'flags.txt'}", *arguments])


def largest(values: flags.FlagValues) -> str:
    """The largest sizes among the flags, for a sentence about what is too large."""
    sizes = {
        name: max(map(int, value)) if isinstance(value, list) else value
        for name, value in ((name, values[name].value) for name in values if name != "seed")
        if isinstance(value, list) or type(value) is int
    }
    chosen = sorted(sizes, key=lambda name: -sizes[name])[:3]
    return ", ".join(f"--{name}={sizes[name]}" for name in chosen)


def needs(error: ImportError) -> NoReturn:
    """Where a package is missing: end with a sentence if a task is the program, raise if it is imported."""
    told = f"{error}; this task needs it: pip install 'snnlib[tasks]'"
    program = getattr(sys.modules["__main__"], "__spec__", None)
    if program is not None and program.name.startswith("snnlib.task."):
        fail(told)
    raise ImportError(told) from error


def fail(message: str, code: int = 1) -> NoReturn:
    """End the process with a sentence on standard error."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
