"""What a step is, and what follows from it for every neuron.

A neuron is one function, its *step*::

    def my_step(input, state: MyState, p=MyParameters(), dt=0.001) -> (output, MyState)

``input`` and ``output`` are tensors ``[B, *features]``, ``state`` and ``p`` are NamedTuples. The step is
elementwise and written in plain PyTorch; the types of its state and of its parameters are read from its
signature.
"""

import collections
import contextlib
import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, cast, get_origin, get_type_hints

import torch
from torch import Tensor
from torch.nn.functional import linear

__all__ = [
    "Scalar",
    "Step",
    "StepError",
    "StepKey",
    "UntraceableError",
    "can_be_hashed",
    "default_dt",
    "default_parameters",
    "heaviside",
    "is_lasting",
    "name_of",
    "recurrent_state_type",
    "recurrent_step",
    "returned",
    "sort_parameters",
    "state_type",
]

Scalar = float | Tensor
"""A number, or a tensor that broadcasts against one step's input: one value a neuron, say."""

Step = Callable[..., tuple[Tensor, Any]]
"""``step(input, state, p, dt) -> (output, state)``."""


def heaviside(data: Tensor) -> Tensor:
    """H(x): 1 where ``data`` is larger than 0, else 0, in its dtype and without a gradient."""
    return (data > 0).to(data.dtype)


class UntraceableError(Exception):
    """A step does something that cannot be fused; the message names it."""


class StepError(UntraceableError):
    """A step fails by itself: another time it may not, with other inputs or when it is ready."""


def state_type(step: Step) -> type[NamedTuple]:
    """The NamedTuple in which ``step`` keeps its state: the annotation of its argument ``state``.

    Raises:
        TypeError: the annotation is missing, or is no NamedTuple, or the step takes other arguments.
    """
    made: Any = getattr(step, "made_for", None)  # asked before, or a step that the engine made of another one
    return cast(type[NamedTuple], made or _noted(step, "made_for", _state_type))


def _noted(step: Step, name: str, make: Callable[[Step], Any]) -> Any:
    """Something that is made of a function once, and goes with it."""
    function = getattr(step, "__func__", step)
    made = make(function)
    if not torch.compiler.is_dynamo_compiling():
        with contextlib.suppress(AttributeError):  # no function, but what can be called
            setattr(function, name, made)
    return made


def _state_type(step: Step) -> type[NamedTuple]:
    # with extras: torch.compile sees into this, and of Python 3.12 cannot follow how they are stripped
    try:
        found = get_type_hints(_function_of(step), include_extras=True).get("state")
    except NameError as error:
        raise TypeError(
            f"the annotations of {name_of(step)} must be found from its module: {error}; define "
            "it there, not in a function, or leave out 'from __future__ import annotations'"
        ) from error
    kind = get_origin(found) or found  # of a generic one, MyState[Tensor]
    if not (isinstance(kind, type) and hasattr(kind, "_fields")):
        raise TypeError(
            f"the state of {name_of(step)} must be annotated with a NamedTuple "
            f"(def {name_of(step)}(input, state: MyState, p=..., dt=...)), found {found!r}"
        )
    arguments = inspect.signature(step).parameters.values()
    unweighted = getattr(step, "unweighted", None)
    if unweighted is not None:
        raise TypeError(
            f"{name_of(step)} takes weights; use {name_of(unweighted)}: scan and layers have their own"
        )
    names = [a.name for a in arguments if a.kind is not a.KEYWORD_ONLY]
    at = names.index("state")
    if at < 1 or (len(names) < at + 3 and not any(a.kind is a.VAR_POSITIONAL for a in arguments)):
        raise TypeError(f"{name_of(step)} must take (input, state, p, dt) in this order, it takes {names}")
    return cast(type[NamedTuple], kind)


def _function_of(step: Step) -> Callable[..., Any]:
    """The function behind a step that has bound arguments, or that is an object which can be called."""
    if isinstance(step, functools.partial):
        return _function_of(step.func)
    return step if inspect.isroutine(step) else type(step).__call__


def is_lasting(step: Step) -> bool:
    """Whether a step belongs to its module alone: what is kept of it keeps nothing else."""
    return inspect.isfunction(step) and step.__closure__ is None


class StepKey:
    """A step in the key of a cache, which does not keep the net that it may be a method of.

    Called, it gives the step. Two are equal if they are the same method of the same object.
    """

    __slots__ = ("_function", "_held")

    def __init__(self, step: Step) -> None:
        self._function: Any = getattr(step, "__func__", None)
        held: Any = step if self._function is None else step.__self__  # type: ignore[attr-defined]
        try:
            self._held: Callable[[], Any] = weakref.ref(held)
        except TypeError:  # a NamedTuple, or what has __slots__: kept, as long as the cache keeps its key
            self._held = lambda: held

    def __call__(self) -> Step:
        held = self._held()
        step: Step = held if self._function is None else self._function.__get__(held)
        return step

    def __hash__(self) -> int:
        return id(self._held()) ^ id(self._function)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StepKey) or self._function is not other._function:
            return False
        held = self._held()
        return held is not None and held is other._held()


def default_parameters(step: Step) -> Any:
    """The parameters that ``step`` declares as the default of its argument ``p``, or None."""
    return _defaults(step)[0]


def default_dt(step: Step) -> float:
    """The time step in s that ``step`` declares as the default of its argument ``dt``, or 0.001."""
    return _defaults(step)[1]


def _defaults(step: Step) -> tuple[Any, float]:
    """What ``step`` declares of both; looked up once, which takes longer than a small loop."""
    made: Any = getattr(step, "made_with", None) or _noted(step, "made_with", _declared)
    return cast(tuple[Any, float], made)


def _declared(step: Step) -> tuple[Any, float]:
    arguments = inspect.signature(step).parameters
    found = [arguments[name].default if name in arguments else None for name in ("p", "dt")]
    p, dt = (None if value is inspect.Parameter.empty else value for value in found)
    return p, 0.001 if dt is None else dt


def recurrent_state_type(step: Step) -> type[NamedTuple]:
    """The state of ``step`` with the last output ``z`` before it, for a neuron with recurrent weights.

    Its class is made here, once for a function, and has no name to be pickled by: it is not noted on what has
    arguments bound to the function, or is an object, which would be pickled with it.
    """
    made: Any = getattr(step, "made_recurrent_for", None)
    if made is None:
        state_type(step)  # refuses arguments that are bound wrongly
        function = _function_of(step)
        made = getattr(function, "made_recurrent_for", None)
        made = made or _noted(function, "made_recurrent_for", _recurrent_state_type)
    return cast(type[NamedTuple], made)


def _recurrent_state_type(step: Step) -> type[NamedTuple]:
    inner = state_type(step)
    if "z" in inner._fields:
        raise ValueError(
            f"{inner.__name__} has a field z, and with recurrent weights the state has z before the fields of "
            f"{name_of(step)}, the output of the step before: rename the field"
        )
    made: Any = cast(Any, collections.namedtuple)(f"Recurrent{inner.__name__}", ("z", *inner._fields))
    # a generated class has no importable name: pickle it by the step that it came from
    made.__reduce__ = lambda self: (_recurrent_state, (step, tuple(self)))
    made.made_of = step
    return cast(type[NamedTuple], made)


def _recurrent_state(step: Step, values: tuple[Any, ...]) -> Any:
    return recurrent_state_type(step)(*values)


torch.serialization.add_safe_globals([_recurrent_state])  # see snnlib.functional


def recurrent_step(
    step: Step, current: Tensor, state: Any, recurrent_weights: Tensor, p: Any, dt: float
) -> tuple[Tensor, Any]:
    """One step of a neuron whose last spikes return through ``recurrent_weights``.

    ::

        x       = current + recurrent_weights z(t-1)
        z, s(t) = step(x, s(t-1))

    Parameters:
        step: the neuron's step; it reads its fields of ``state`` by name and leaves ``z`` alone.
        current: the input after its own weights, ``[B, N]``.
        state: a NamedTuple with ``z`` first and the step's own fields after it; ``z`` may be a number.
        recurrent_weights: ``[N, N]``, to row from column.
        p: the step's parameters, whose tensors broadcast against ``[B, N]``.
        dt: time step in s.

    Returns:
        The output ``z(t)``, ``[B, N]``, and the new state in the class of ``state``.

    Raises:
        ValueError: ``step`` does not return its output and its state.
    """
    z = state.z if isinstance(state.z, Tensor) else current.new_tensor(state.z)
    z = z if z.dim() else z.expand(current.shape)  # one number for all
    back = linear(z.to(recurrent_weights.dtype), recurrent_weights)
    z, new = returned(step, step(current + back, state, p, dt), len(state) - 1)
    return z, type(state)(z, *new)


def returned(step: Step, found: Any, fields: int) -> tuple[Tensor, Any]:
    """The output of ``step`` and its new state of so many fields, if that is what it returned.

    Raises:
        ValueError: it is not.
    """
    pair = isinstance(found, tuple | list) and len(found) == 2
    new = found[1] if pair else found
    if not pair or len(getattr(new, "_fields", ())) != fields:
        wanted = f"{name_of(step)} must return its output and a {state_type(step).__name__}"
        raise ValueError(f"{wanted}, it returns {type(new).__name__}")
    output, new = found
    if not isinstance(output, Tensor):
        kind = type(output).__name__
        raise ValueError(f"the output of {name_of(step)} must be one tensor, it returns {kind} and its state")
    return output, new


def can_be_hashed(value: Any) -> bool:
    """Whether it may be a part of a key; a list among the parameters, say, may not."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def name_of(step: Step) -> str:
    return getattr(step, "__name__", None) or _function_of(step).__qualname__


def sort_parameters(p: Any) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Any, ...]]:
    """Which parameters are tensors, which of them learn, and all of them with None for a tensor."""
    tensors, learned, numbers = [], [], []
    for name, value in () if p is None else zip(p._fields, p, strict=True):
        is_tensor = isinstance(value, Tensor)
        numbers.append(None if is_tensor else value)
        if is_tensor:
            tensors.append(name)
            if value.requires_grad:
                learned.append(name)
    return tuple(tensors), tuple(learned), tuple(numbers)
