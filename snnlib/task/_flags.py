"""The flags that tasks share: one name, one meaning and one bound for all of them."""

import copy
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from absl import flags

from snnlib._console import is_task
from snnlib.engine.scan import BACKENDS
from snnlib.functional.threshold import METHODS

__all__ = [
    "FASTEST",
    "LIGHTNING",
    "POSITIVE",
    "Bound",
    "at_least",
    "between",
    "define",
    "fail",
    "fill",
    "largest",
    "needs",
    "one_of",
    "refuse_beside",
    "restrict",
    "shared",
]

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

_Row = tuple[Any, ...]
"""A flag: its default, its help, and its bound. A switch and a text may have none, a number has one."""


class Bound(NamedTuple):
    """What a flag takes: how absl defines it, and what else a value must be."""

    define: Callable[..., Any]
    arguments: dict[str, Any]
    allowed: Callable[[Any], bool] | None = None
    wanted: str = ""
    """What is allowed, in words."""


def at_least(low: float) -> Bound:
    """As :func:`between`, without an upper bound."""
    return between(low, None)


def between(low: float, high: float | None) -> Bound:
    """A whole number where ``low`` is one, else any."""
    define = flags.DEFINE_integer if isinstance(low, int) else flags.DEFINE_float
    return Bound(define, {"lower_bound": low, "upper_bound": high})


def one_of(*names: str) -> Bound:
    return Bound(flags.DEFINE_enum, {"enum_values": [*names]})


POSITIVE = Bound(flags.DEFINE_float, {"lower_bound": 0.0}, lambda value: value > 0, "a positive number")
"""Zero is refused too, which a bound of absl's would let pass."""

FASTEST = 1e30
"""The largest learning rate: torch computes steps in float32, and Adam's first has ten times the rate."""

# fmt: off
_SHARED: dict[str, _Row] = {
    "device": ("Where to compute; auto takes CUDA where there is one.", one_of("auto", "cpu", "cuda")),
    "seed": ("Seed of every random number of the run.", at_least(0)),
    "epochs": ("Passes over the training set.", at_least(1)),
    "batch_size": ("Examples in one optimisation step.", at_least(1)),
    "learning_rate": ("Largest learning rate of the schedule.",
        Bound(flags.DEFINE_float, {}, lambda rate: 0 < rate <= FASTEST, f"a positive number up to {FASTEST}")),
    "weight_decay": ("Weight decay of the optimiser.", at_least(0.0)),
    "clip_grad": ("Largest norm of the gradient of all weights; 0 leaves it alone.", at_least(0.0)),
    "optimizer": ("Optimiser.", one_of("adam", "adamw", "sgd")),
    "seq_length": ("Time steps that one example is shown.", at_least(1)),
    "dt": ("Length of a time step, s.", POSITIVE),
    "tau_syn_inv": ("Inverse synaptic time constant of the neurons, 1/s.", POSITIVE),
    "tau_mem_inv": ("Inverse membrane time constant of the neurons, 1/s.", POSITIVE),
    "method": ("How the gradient passes a spike: by a surrogate derivative, or by the adjoint.",
        one_of(*sorted(METHODS))),
    "alpha": (
        "Width or height of the surrogate derivative, see help(snnlib.spike); the method's own if not given.",
        POSITIVE),
    "backend": ("What runs the neurons over time, see snnlib.scan.", one_of(*BACKENDS)),
    "output_dir": ("Runs are written to OUTPUT_DIR/TASK/TIME.",),
    "resume": ("Folder of a run to go on with; its flags are taken over.",),
    "data_dir": ("Where data sets are kept and downloaded to.",),
    "save_every": ("Also save the run every so many steps within an epoch; 0: at its end alone.", at_least(0)),
    "patience": ("Stop after so many epochs without a better validation result; 0 never stops early.",
        at_least(0)),
    "accelerator": ("Where to compute, in Lightning's words: auto, cpu, gpu, mps, tpu, ...",),
    "devices": ("How many of them on a machine, or which: 2, or 0,3, or auto for all.",),
    "num_nodes": ("Machines that train together.", at_least(1)),
    "strategy": ("How they do, in Lightning's words: auto, ddp, ...; --batch_size is that of one device.",),
    "precision": ("Numbers to compute in; neurons integrate in float32, or with 64-true in float64.",
        one_of("32-true", "16-mixed", "bf16-mixed", "64-true")),
    "accumulate_grad_batches": ("Batches whose gradients make one optimisation step.", at_least(1)),
    "limit_train_batches": (
        "Part of the training set that an epoch takes, up to 1, or a number of batches, above 1.", POSITIVE),
    "fast_dev_run": (
        "One batch of training, validation and test each, to see that a change works; keeps no checkpoint.",),
    "channels_last": ("Keep the channels of a pixel side by side in memory, which is faster.",),
    "plot": ("Draw figures into the run's folder.",),
    "fast": ("A short run on generated samples, to see that all parts work; it shows nothing about learning.",),
}
# fmt: on
"""The flags that several tasks have, by name; each task has its own default."""

_PLAIN: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_boolean,
    list: flags.DEFINE_list,
    str: flags.DEFINE_string,
    type(None): flags.DEFINE_string,
}
"""How absl defines a flag without a bound, by its default."""


def shared(**defaults: Any) -> flags.FlagValues:
    """Flags of a task: the shared ones that it names, with its defaults, in their order.

    They live in a FlagValues of the task's own, so that importing a task defines nothing globally.
    """
    values = flags.FlagValues()
    define(values, {name: (default, *_SHARED[name]) for name, default in defaults.items()})
    if "accelerator" in values:
        flags.DEFINE_alias("device", "accelerator", flag_values=values)
    flags.DEFINE_boolean("help", False, "Show this help.", short_name="h", flag_values=values)
    return values


def define(values: flags.FlagValues, rows: dict[str, _Row]) -> None:
    """Add a task's own flags, by name."""
    for name, (default, text, *rest) in rows.items():
        bound = rest[0] if rest else Bound(_PLAIN[type(default)], {})
        bound.define(name, default, help=text, flag_values=values, **bound.arguments)
        if bound.allowed:
            restrict(name, bound.allowed, bound.wanted, values)


def fill(values: flags.FlagValues, usual: dict[str, Any], fast: dict[str, Any]) -> None:
    """Set the flags that nobody has set: to ``usual``, and with ``--fast`` to ``fast`` where it names them."""
    for name, value in {**usual, **(fast if values.fast else {})}.items():
        if values[name].using_default_value:
            values[name].value = value
    try:
        values.validate_all_flags()
    except flags.Error as error:
        fail(str(error), code=2)


def refuse_beside(mode: str, values: flags.FlagValues, *names: str) -> None:
    """End the process where a flag was set that does nothing beside another one."""
    for name in names:
        if values[name].value != values[name].default:
            fail(f"--{name}={values[name].value} does nothing with {mode}", code=2)


def restrict(name: str, allowed: Callable[[Any], bool], wanted: str, values: flags.FlagValues) -> None:
    """Refuse values that are not allowed; ``wanted`` says what is, in ``--help`` too."""
    parser = copy.copy(values[name].parser)  # absl has one for all flags of the same bounds
    parser.syntactic_help = wanted
    values[name].parser = parser
    flags.register_validator(
        name, lambda value: value is None or allowed(value), f"must be {wanted}", flag_values=values
    )


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
    if is_task():
        fail(told)
    raise ImportError(told) from error


def fail(message: str, code: int = 1) -> NoReturn:
    """End the process with a sentence on standard error."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
