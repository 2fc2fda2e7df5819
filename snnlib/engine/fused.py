"""What the fused backends share: steps, traced and compiled once, and run by torch.

A backend makes a :class:`snnlib.engine.kernel.Kernel` of a traced step.
"""

import functools
import hashlib
import importlib
import importlib.util
import os
from math import inf
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snnlib.engine import adjoint, kernel
from snnlib.engine.check import warn
from snnlib.engine.effects import EffectError
from snnlib.engine.flops import be_counted
from snnlib.engine.later import later_step
from snnlib.engine.llvm.machine import unavailable, without_source
from snnlib.engine.outside import outside
from snnlib.engine.program import without_backward
from snnlib.engine.state import integration_dtype
from snnlib.engine.step import (
    Step,
    StepError,
    StepKey,
    UntraceableError,
    can_be_hashed,
    name_of,
    sort_parameters,
)
from snnlib.engine.threads import lock
from snnlib.engine.trace import KEEPS, Keep, trace
from snnlib.engine.watched import is_followed, is_programmed, is_watched

__all__ = ["attempt"]

_LOCK = lock()
_FOLLOWED: dict[Keep, Keep] = {"events": "steps", "retraced": "last_bit"}
"""What is kept instead where somebody follows: what is packed has no size that a program could know, and a
sequence may have no length."""


def attempt(
    backend: str,
    step: Step,
    input: Tensor,
    state: Any,
    p: Any,
    dt: float,
    weights: list[Tensor],
    chosen: bool,
) -> tuple[tuple[Tensor, Any] | None, str]:
    """Run a step in the fused loop of a backend; other arguments as in :func:`snnlib.engine.scan`.

    The fields of the state have the shape of one step's output. Weights are none, the recurrent ones, or these
    and those of the input. All are in the dtype of the state. A step is traced and compiled once for each kind
    of arguments.

    Parameters:
        chosen: whether the caller of scan asked for this backend; then the reason is an error, and no warning.

    Returns:
        Output and state, or None and the reason why the step cannot be fused, of which it warns once.
    """
    tensors, learned, numbers = sort_parameters(p)
    dtype, device = integration_dtype(input.dtype), input.device
    states = [value if value.device == device else value.to(device) for value in state]
    parameters = [getattr(p, name).to(device) for name in tensors]
    wanted = [input, *states, *parameters, *weights]
    exact, compiling = adjoint.is_exact(p), torch.compiler.is_dynamo_compiling()
    if exact and compiling:
        states.append(torch.zeros_like(states[-1]))  # "later"
    # nothing is kept for a backward pass that cannot come
    backward = torch.is_grad_enabled() and any(value.requires_grad for value in wanted)
    keep = KEEPS[backend] if exact else "steps"
    watched = is_watched(wanted)
    if watched:
        keep = _FOLLOWED.get(keep, keep)
    more = backward, len(weights) > 0, backend, device.type, chosen
    followed = is_followed()
    seen = followed, followed and is_programmed()
    known = step, type(p), numbers, *seen, tensors, learned, dt, dtype
    name, reason, refused, most_steps = _prepare(*known, keep, *more)
    if keep == "retraced" and input.shape[0] > most_steps:
        name, reason, refused, _ = _prepare(*known, "last_bit", *more)
    if refused:
        raise ValueError(reason)
    if reason:
        return None, reason
    input = input if input.dtype == dtype else input.to(dtype)
    output, *rest = kernel.run(name, input, states, parameters, weights, watched)
    return (output, type(state)(*rest[: len(state)])), ""


def _prepare(
    step: Step, kind: Any, numbers: tuple[Any, ...], followed: bool, programmed: bool, *key: Any
) -> tuple[str, str, bool, float]:
    """The name of a kernel, or why there is none, and whether that is an error, and how long a sequence may be;
    see :func:`_compiled`.

    torch.compile can hand over a type and a tuple, but no NamedTuple, and keeps words and truth values.
    """
    step = getattr(step, "exact_of", step)
    # True and 1 are equal, in a tuple too, and 0.0 and -0.0
    kinds = tuple(
        [repr(v) if v.__class__ is tuple or (v.__class__ is float and not v) else type(v) for v in numbers]
    )
    held = p = kind(*numbers) if hasattr(kind, "_fields") else None
    methods = list(filter(callable, numbers))  # of one's own
    if methods:
        held = kind(*(StepKey(value) if _may_hold_a_net(value) else value for value in numbers))
    read: tuple[Any, ...] = ()
    try:
        read = _read(step, methods)
        try:
            made = _compiled(StepKey(step), read, kinds, held, *key)
        except EffectError:  # it may have filled a cache, which is full now
            before, read = read, _read(step, methods)
            made = _again(StepKey(step), before, read, kinds, held, *key)
    except UntraceableError as error:  # what may be another time
        return _plain(step, str(error), key[-1])
    except TypeError as error:  # a list among the parameters, say
        if can_be_hashed((*read, held, *key)):
            raise
        if adjoint.is_exact(p):
            adjoint.check(step, p, key[0])
        return _plain(step, f"a parameter cannot be hashed ({error})", key[-1])
    if programmed and made.kernel is not None:
        _IN_PROGRAMS[made.name] = made.kernel
    if followed:
        be_counted()
    return made.name, made.reason, made.refused, made.most_steps


def _may_hold_a_net(value: Any) -> bool:
    """Whether it can be called and equals nothing but itself, as the method of a net, or an object that has it.

    What equals others by its values is kept, and shares their kernel.
    """
    kind: Any = type(value)
    return callable(value) and (kind is MethodType or kind.__eq__ is object.__eq__)


def _plain(step: Step, reason: str, chosen: bool) -> tuple[str, str, bool, float]:
    """What :func:`_prepare` gives where there is no kernel, which is not remembered; of that it warns once."""
    if not chosen:
        _warn_once(StepKey(step), reason)
    return "", reason, False, inf


@functools.lru_cache(maxsize=256)
def _warn_once(key: StepKey, reason: str) -> None:
    _warn(key(), reason)


def _warn(step: Step, reason: str) -> None:
    warn(f"{name_of(step)} runs in the plain loop, it cannot be fused: {reason}")


# all that torch.compiler.assume_constant_result does, but for importing torch's compiler: most of a second
_prepare._dynamo_marked_constant = True  # type: ignore[attr-defined]


_IN_PROGRAMS: dict[str, kernel.Kernel] = {}
"""Of programs that torch.compile or another tracer made, which know no more than a name."""


def _read(step: Step, methods: list[Any]) -> tuple[Any, ...]:
    """What a step reads outside, and methods of one's own that it calls."""
    read = outside(step)
    return read + tuple(found for value in methods for found in outside(value)) if methods else read


def _again(
    key: StepKey, before: tuple[Any, ...], read: tuple[Any, ...], kinds: Any, numbers: Any, *more: Any
) -> "_Made":
    """:func:`_compiled` for a step that changed what it read before; if it does so again that is remembered."""
    try:
        return _compiled(key, read, kinds, numbers, *more)
    except EffectError as error:
        refused = _refused(key, *filter(callable, numbers or ()))
        refused.append((frozenset(before) & frozenset(read), str(error)))
        if len(refused) > _CASES:
            refused[:] = [(frozenset.intersection(*(part for part, _ in refused)), str(error))]
        raise


_CASES = 8
"""In which a step is found to change what it reads, before it is taken to do so in all that are like these."""
_TRIES = 8
"""After which a step that fails when it is tried is not tried again while it reads the same."""


@functools.lru_cache(maxsize=256)
def _refused(key: StepKey, *methods: Any) -> list[tuple[frozenset[Any], str]]:
    """What a step with these methods read, but for what it changed, where refused for that; the reason."""
    return []


@functools.lru_cache(maxsize=256)
def _failed(key: StepKey, read: tuple[Any, ...]) -> list[str]:
    """The reasons for which a step failed when it was tried."""
    return []


class _Made(NamedTuple):
    """What became of a step: a kernel, or the reason why there is none.

    Attributes:
        refused: whether no other backend runs it either.
        most_steps: how long a sequence may be.
    """

    name: str
    reason: str
    kernel: kernel.Kernel | None
    refused: bool = False
    most_steps: float = inf


@functools.lru_cache(maxsize=256, typed=True)
def _compiled(
    key: StepKey,
    read: tuple[Any, ...],
    kinds: tuple[type | str, ...],
    numbers: Any,
    tensors: tuple[str, ...],
    learned: tuple[str, ...],
    dt: float,
    dtype: torch.dtype,
    keep: Keep,
    backward: bool,
    recurrent: bool,
    backend: str,
    device: str,
    chosen: bool,
) -> _Made:
    """A step's kernel.

    Parameters:
        key: gives the step.
        read, kinds: what else belongs to the key: what the step reads outside, types of the numbers.
        numbers: the parameters, with keys for functions.

    Raises:
        UntraceableError: why there is none, where that is not for ever.
    """
    for part, reason in _refused(key, *filter(callable, numbers or ())):
        if part.issubset(read):
            raise UntraceableError(reason)
    step = key()
    if numbers is not None:
        numbers = type(numbers)(*(value() if isinstance(value, StepKey) else value for value in numbers))
    try:
        _check(backend, device)
        if adjoint.is_exact(numbers):
            try:
                adjoint.check(step, numbers, tensors)
            except ValueError as error:
                return _Made("", str(error), None, refused=True)
            step = later_step(step)
        traced = trace(step, numbers, tensors, learned, dt, dtype, keep)
        traced = traced if backward else without_backward(traced)
        name = hashlib.sha256(repr((traced, dtype, recurrent, backend)).encode()).hexdigest()[:24]
        # LLVM and Triton take their time to import: not before a sequence is run
        build = importlib.import_module(f"snnlib.engine.{backend}").build
        with _LOCK:
            found = kernel.KERNELS.get(name)
            if found is None:
                found = kernel.KERNELS[name] = build(traced, name_of(step), dtype, recurrent)
    except EffectError:
        raise
    except StepError as error:
        failed = _failed(key, read)
        failed.append(str(error))
        if len(failed) < _TRIES:
            raise
        return _Made("", str(error), None)  # it was warned of
    except UntraceableError as error:
        if not chosen:
            _warn(step, str(error))
        return _Made("", str(error), None)
    return _Made(name, "", found, most_steps=traced.most_steps)


def _check(backend: str, device: str) -> None:
    """Refuse a backend that cannot run on this type of device, or not here.

    Raises:
        UntraceableError: says what to do.
    """
    if backend == "gpu" and importlib.util.find_spec("triton") is None:
        raise UntraceableError("its kernels need Triton, which is not installed (pip install triton)")
    if reason := without_source():
        raise UntraceableError(reason)
    if backend == "cpu" and (reason := unavailable()):
        raise UntraceableError(f"LLVM makes no machine code here ({reason})")
    interpreted = backend == "gpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if device not in {"cpu": ("cpu",), "gpu": ("cuda", *(("cpu",) if interpreted else ()))}[backend]:
        wanted = {"cpu": "on the CPU", "gpu": "on CUDA"}[backend]
        raise UntraceableError(
            f'backend="{backend}" takes tensors {wanted}, and the input is on {device}; '
            'move it, or leave the choice to backend="auto"'
        )
