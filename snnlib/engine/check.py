"""What is refused at the door: values and shapes that no neuron can have, each named and shown."""

import math
import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence, Sized
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnlib.engine.watched import is_concrete

__all__ = [
    "NaNInputError",
    "check_backend",
    "check_broadcasts",
    "check_dense",
    "check_fits",
    "check_floating",
    "check_input",
    "check_kind",
    "check_kind_of_parameters",
    "check_numbers",
    "check_parameters",
    "check_stable",
    "checked_length",
    "checked_part",
    "fields_of",
    "warn",
    "worst",
]


class NaNInputError(ValueError):
    """The input of a neuron, its weights or its parameters are not numbers; in training, something diverged."""


def warn(message: str) -> None:
    """Warn, at the line that called snnlib, however deep its own calls are."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in ("snnlib", "torch"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def check_backend(backend: str, known: Sequence[str]) -> None:
    """Refuse a backend that is none.

    Raises:
        ValueError: it is not among those that are known.
    """
    if backend not in known:
        raise ValueError(f"backend must be one of {list(known)}, got {backend!r}")


def check_dense(input: Tensor) -> None:
    """Refuse what is no tensor in rows of equal length: arrays, packed sequences, sparse and nested tensors.

    Raises:
        ValueError: it says what to make of it.
    """
    if isinstance(input, Tensor) and input.layout is torch.strided and not input.is_nested:
        return
    known: Any = input
    if not isinstance(known, Tensor):
        kind = type(known).__name__
        ways = {
            "ndarray": "; use torch.from_numpy(input)",
            "PackedSequence": "; use pad_packed_sequence(input)[0]",
        }
        kind, way = ("None" if known is None else kind), ways.get(kind, "")
    elif input.is_nested:
        kind, way = "a nested one", "; use input.to_padded_tensor(0.0)"
    else:
        kind, way = str(input.layout), "; use input.to_dense()"
    raise ValueError(f"input must be a dense tensor, got {kind}{way}")


def check_input(input: Tensor) -> None:
    """Refuse an input that no neuron can integrate.

    Raises:
        ValueError: integers, or complex numbers.
        NaNInputError: NaN, where the values can be looked at for free.
    """
    check_floating("input", input)
    check_numbers("input", input)


def check_floating(name: str, value: Tensor) -> None:
    """Refuse integers and complex numbers.

    Raises:
        ValueError: it says what to make of them.
    """
    if value.is_floating_point():
        return
    way = f"{name}.float()"
    if value.is_complex():
        way = f"{name}.abs(), or real and imaginary parts as features: torch.view_as_real({name}).flatten(-2)"
    raise ValueError(f"{name} must be floating point, got dtype {value.dtype}; use {way}")


def check_kind_of_parameters(p: Any, usual: Any) -> None:
    """Refuse what are no parameters of a neuron.

    Parameters:
        p: the parameters.
        usual: those that the neuron's step has by default, or None.

    Raises:
        ValueError: it is no NamedTuple, lacks a field of ``usual`` or has others, or has a text, a container or
            an array for a number (or None, which a step of one's own may take); or ``usual`` is no NamedTuple.
    """
    if usual is not None and not hasattr(usual, "_fields"):
        raise ValueError(f"p of a step must be a NamedTuple, its default {type(usual).__name__} is none")
    if type(p) is not type(usual):
        _check_fields(p, usual)
    elif p is None or [*map(type, p)] == [*map(type, usual)]:  # nearly always; a small layer would notice more
        return
    for name, value in fields_of(usual):
        given = getattr(p, name)
        wrong = isinstance(value, float) and not isinstance(given, Real | Tensor)
        if wrong and (isinstance(given, Sized) or type(usual).__module__.startswith("snnlib.")):
            raise ValueError(f"p.{name} must be a number or a tensor, got {given!r}")


def _check_fields(p: Any, usual: Any) -> None:
    """See :func:`check_kind_of_parameters`; of another class than the usual."""
    if p is not None and not hasattr(p, "_fields"):
        wanted = "a NamedTuple" if usual is None else f"{type(usual).__name__}(...)"
        raise ValueError(f"p must be {wanted}, got {p!r}; there are as many neurons as the input has features")
    for name in getattr(usual, "_fields", ()):
        if not hasattr(p, name):
            raise ValueError(
                f"p must have the fields of {type(usual).__name__}, {type(p).__name__} has no {name}"
            )
    more = [name for name in getattr(p, "_fields", ()) if usual is not None and not hasattr(usual, name)]
    if more:
        raise ValueError(
            f"p must be {type(usual).__name__}(...): {type(p).__name__} has {', '.join(more)} too, which "
            "nothing here would read"
        )


def fields_of(values: Any) -> Iterable[tuple[str, Any]]:
    """Names and values of a NamedTuple, of None none."""
    return zip(values._fields, values, strict=True) if hasattr(values, "_fields") else ()


def _is_rate(name: str) -> bool:
    """Whether the parameter of this name is an inverse time constant."""
    return name.startswith("tau_") and name.endswith("_inv")


def check_stable(p: Any, dt: float) -> None:
    """Warn of a rate with which Euler's steps grow instead of shrinking: 1 - dt rate is below -1."""
    for name, value in fields_of(p):
        if not _is_rate(name):
            continue
        if isinstance(value, Tensor):
            _, fastest = _range(value)
        else:
            fastest = value
        if dt * fastest > 2:
            warn(
                f"{name}={fastest:g}/s is too fast for steps of dt={dt:g} s: dt {name} must be at most 2, "
                "or what decays with it grows instead"
            )


_FLOATS = float, np.floating
"""Numbers that may be NaN; to ask for these is faster than for any ``Real``."""


def check_parameters(p: Any, dt: float, warns: bool = False) -> None:
    """Refuse a time step or parameters that no neuron can have.

    Parameters:
        warns: warn of tensors of rates that are too fast, as :func:`check_stable` does where a module is made.

    Raises:
        ValueError: ``dt`` is not positive or not finite, a field ``tau_*_inv`` is negative or not finite, or
            another number is NaN; names it and shows its value.
        NaNInputError: another tensor has NaN, where the values can be looked at for free.
    """
    known: Any = dt
    if not isinstance(known, Real) or not (math.isfinite(dt) and dt > 0):
        hint = "; use dt.item()" if isinstance(known, Tensor) else ""
        raise ValueError(f"dt must be a positive number of seconds, got dt={dt!r}{hint}")
    for name, value in fields_of(p):
        if _is_rate(name):
            _check_rate(name, value, dt, warns)
        elif isinstance(value, Tensor):
            check_numbers(f"p.{name}", value)
        elif isinstance(value, _FLOATS) and math.isnan(value):
            raise ValueError(f"p.{name} must be a number, got {value}")


def _check_rate(name: str, value: Any, dt: float, warns: bool) -> None:
    """See :func:`check_parameters`."""
    if isinstance(value, Tensor):
        slowest, fastest = _range(value)
        wrong = not (slowest >= 0 and math.isfinite(fastest))  # with NaN neither is
        if warns and not wrong and dt * fastest > 2:
            # in training the value is another one each time, and would be warned of as often
            warn(
                f"{name} is now above {2 / dt:g}/s, too fast for steps of dt={dt:g} s: what decays with it "
                "grows instead; keep it below, with clamp_ say"
            )
    else:
        wrong = not isinstance(value, Real) or not (math.isfinite(value) and float(value) >= 0)
    if wrong:
        shown = worst(name, value, lambda rate: rate.isfinite() & (rate >= 0))
        raise ValueError(f"{name} must be a finite rate in 1/s that is not negative, got {shown}")


_FEW = 4096
"""Numbers up to which it is faster to compare them than to add them up, of which NaN makes NaN."""


def check_numbers(name: str, value: Tensor) -> None:
    """Refuse NaN, of which neurons would make silence.

    Raises:
        NaNInputError: there is one, where the values can be looked at for free.
    """
    if not is_concrete(value) or (value.numel() > _FEW and not math.isnan(value.detach().sum())):
        return
    if not value.equal(value):  # NaN is not, and this is one operator
        first = value.isnan().nonzero()[0].tolist()
        raise NaNInputError(f"{name} must not contain NaN, got nan at index {first}")


def _range(value: Tensor) -> tuple[float, float]:
    """The smallest and the largest number of a tensor, NaN if it has one; 0 where that is not free."""
    if not is_concrete(value) or not value.numel():
        return 0.0, 0.0
    least, most = value.detach().aminmax()
    return float(least), float(most)


def worst(name: str, value: Any, is_fine: Callable[[Tensor], Tensor]) -> str:
    """A wrong value for a sentence; of a tensor the one that is furthest out, and where it stands."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return f"{name}={value}"
    value = value.detach()
    rank = torch.where(is_fine(value), torch.inf, value.double().nan_to_num(-torch.inf, -torch.inf))
    index = [int(i) for i in torch.unravel_index(rank.argmin(), value.shape)]
    return f"{name}={value[tuple(index)].item()} at index {index}"


def checked_length(name: str, value: int, least: int = 1) -> int:
    """A number of steps, neurons or spikes, of any kind of integer.

    Raises:
        ValueError: it is no integer of at least ``least``.
    """
    try:
        length = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        length = least - 1
    if length < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {name}={value!r}")
    return length


def checked_part(name: str, value: int | None) -> int | None:
    """The number of steps in a part of a sequence, or None for no parts; see :func:`checked_length`."""
    return None if value is None else checked_length(name, value)


def check_kind(state: Any, fields: tuple[str, ...]) -> None:
    """Refuse a state of another neuron.

    Raises:
        ValueError: it is no NamedTuple with these fields.
    """
    if getattr(state, "_fields", None) != fields:
        found = getattr(state, "_fields", type(state).__name__)
        raise ValueError(f"state must be a NamedTuple with the fields {fields}, got {found}")


def check_fits(what: str, values: Any, shape: Sequence[int]) -> None:
    """Refuse tensors that do not belong to one step's input.

    Parameters:
        what: the argument, "state" or "p".
        values: a NamedTuple, of which the tensors are looked at, or None.
        shape: of one step's input.

    Raises:
        ValueError: a field does not broadcast to ``shape``.
    """
    for name, value in fields_of(values):
        if isinstance(value, Tensor):
            check_broadcasts(f"{what}.{name}", value, shape)


def check_broadcasts(name: str, value: Tensor, shape: Sequence[int]) -> None:
    """Refuse a tensor that does not broadcast to ``shape``.

    Raises:
        ValueError: it does not.
    """
    if value.shape == shape:
        return
    pairs = zip(reversed(value.shape), reversed(shape), strict=False)
    if value.dim() > len(shape) or any(have not in (1, want) for have, want in pairs):
        over_time = name.startswith("state.") and value.shape[1:] == shape
        hint = f"; these are the states of all steps, take the last, {name}[-1]" if over_time else ""
        raise ValueError(f"{name} must broadcast to {list(shape)}, got shape {list(value.shape)}{hint}")
