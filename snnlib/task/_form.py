"""Whether what a checkpoint holds has the form that a run needs: a checkpoint may come from a stranger."""

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from snnlib.task._flags import FASTEST

__all__ = ["check_form", "load_optimizer", "load_schedule"]


def check_form(wanted: Any, found: Any, name: str) -> None:
    """Refuse what is not of the form of ``wanted``, something of the same kind that the run made itself.

    A dictionary has the same keys, a list as many items, a tensor the same shape and type (or another floating
    one). An integer counts something: it is not negative and fits into 64 bits. A number is finite and a tensor
    holds no NaN, unless it is so in ``wanted``. For an empty list any list of numbers will do, and for None
    anything that is no container.

    Raises:
        ValueError: names what differs, from ``name`` on.
    """
    if wanted is None:
        if not (found is None or isinstance(found, Tensor) or _is_number(found, math.nan)):
            raise ValueError(f"{name} must be nothing, a number or a tensor, got {_told(found)}")
    elif isinstance(wanted, dict):
        if not isinstance(found, dict):
            raise ValueError(f"{name} must be a dictionary, got {_told(found)}")
        for one, other, lacks in ((wanted, found, "lacks"), (found, wanted, "must not have")):
            if one.keys() - other.keys():
                raise ValueError(f"{name} {lacks} {sorted(map(str, one.keys() - other.keys()))[:5]}")
        for key, value in wanted.items():
            check_form(value, found[key], f"{name}.{key}")
    elif isinstance(wanted, list | tuple):
        if not isinstance(found, list | tuple) or (wanted and len(wanted) != len(found)):
            raise ValueError(f"{name} must be a list of {len(wanted) or 'numbers'}, got {_told(found)}")
        for k, value in enumerate(found):
            check_form(wanted[k] if wanted else 0.0, value, f"{name}[{k}]")
    elif isinstance(wanted, Tensor):
        _check_tensor(wanted, found, name)
    elif isinstance(wanted, bool | str) or not isinstance(wanted, int | float):
        if type(found) is not type(wanted):
            raise ValueError(f"{name} must be of the kind of {wanted!r}, got {_told(found)}")
    elif not _is_number(found, wanted):
        raise ValueError(f"{name} must be a number such as {wanted!r}, got {_told(found)}")


def _check_tensor(wanted: Tensor, found: Any, name: str) -> None:
    plain = isinstance(found, Tensor) and found.layout == torch.strided and not found.is_quantized
    if plain and found.dtype != wanted.dtype:  # of floating numbers any will do: precision is not changed yet
        plain = found.is_floating_point() and wanted.is_floating_point()
    if not plain or found.shape != wanted.shape or found.is_meta:
        form = f"a tensor {list(wanted.shape)} of {wanted.dtype}"
        raise ValueError(f"{name} must be {form}, got {_told(found)}")
    if wanted.is_floating_point() and found.isnan().any() and not wanted.isnan().any():
        raise ValueError(f"{name} must not contain NaN")


def _is_number(value: Any, wanted: float) -> bool:
    """Whether it is a count, or where floats will do a number of either kind, finite if ``wanted`` is."""
    if isinstance(value, int):
        least = 0 if isinstance(wanted, int) else -(2**63)
        return not isinstance(value, bool) and least <= value < 2**63
    finite = isinstance(value, float) and (math.isfinite(value) or not math.isfinite(wanted))
    return finite and isinstance(wanted, float)


def _told(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {value.dtype}"
    if isinstance(value, dict | list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {str(value)[:40]!r}" if not isinstance(value, int) else "an int"


def load_optimizer(optim: torch.optim.Optimizer, found: Any) -> None:
    """Hand an optimiser what it kept of each parameter, and the learning rates; the rest is what the flags say.

    Its own ``load_state_dict`` takes whatever it is given, and then ``step`` fails.

    Raises:
        ValueError: it is not what such an optimiser keeps of these parameters.
    """
    groups = optim.state_dict()["param_groups"]
    parameters = [p for group in optim.param_groups for p in group["params"]]
    if not isinstance(found, dict) or not all(isinstance(part, dict) for part in (found, found["state"])):
        raise ValueError(f"it must have param_groups and a state of each parameter, got {_told(found)}")
    rates = [{"lr": group["lr"]} if isinstance(group, dict) else group for group in found["param_groups"]]
    check_form([{"lr": 0.0}] * len(groups), rates, "param_groups")
    _check_rates([rate["lr"] for rate in rates], "param_groups")
    kept, wanted = found["state"], _kept(optim, parameters)
    for number, values in kept.items():
        if type(number) is not int or not 0 <= number < len(parameters):
            raise ValueError(f"state is of parameter {number}, and there are {len(parameters)}")
        check_form(wanted[number], values, f"state.{number}")
        if not values.get("step", 0) >= 0:
            raise ValueError(f"state.{number}.step must not be negative, got {float(values['step'])}")
    groups = [group | rate for group, rate in zip(groups, rates, strict=True)]
    optim.load_state_dict({"state": kept, "param_groups": groups})


def load_schedule(schedule: torch.optim.lr_scheduler.LambdaLR, found: Any) -> None:
    """Hand a schedule where it stands, and the learning rates that it scales.

    The optimiser has from then on the rate of this schedule, which may be longer than the one before.

    Raises:
        ValueError: it is not what such a schedule keeps.
    """
    check_form(schedule.state_dict(), found, "schedule")
    _check_rates([*found["base_lrs"], *found["_last_lr"]], "schedule")
    schedule.load_state_dict(found)
    groups = schedule.optimizer.param_groups
    for group, base, factor in zip(groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = base * factor(schedule.last_epoch)
    schedule._last_lr = [group["lr"] for group in groups]


def _check_rates(rates: list[float], name: str) -> None:
    for rate in rates:
        if not 0 <= rate <= FASTEST:
            raise ValueError(f"{name} must have learning rates of 0 to {FASTEST}, got {rate}")


def _kept(optim: torch.optim.Optimizer, parameters: list[Tensor]) -> list[dict[str, Any]]:
    """What an optimiser like this keeps of each parameter after its first step."""
    trials = [nn.Parameter(torch.zeros_like(p, device="cpu")) for p in parameters]
    for trial in trials:
        trial.grad = torch.zeros_like(trial)
    known = inspect.signature(type(optim)).parameters
    made = type(optim)(trials, **{name: value for name, value in optim.defaults.items() if name in known})
    made.step()
    return [made.state[trial] for trial in trials]
