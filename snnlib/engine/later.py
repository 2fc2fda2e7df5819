"""What one step tells the step before by the adjoint: the gradient of the output after it.

It is a field ``later`` of the state beside the neuron's own, of which no number is carried, but a gradient,
back in time. Between parts of a sequence it goes along with the state, as an attribute that is no field.
"""

import functools
from collections import namedtuple
from typing import Any, cast

import torch
from torch import Tensor

from snnlib.engine.step import Step, is_lasting, name_of, state_type

__all__ = ["beyond", "handed", "later_step", "later_type"]


def later_step(step: Step) -> Step:
    """``step`` with one field more in its state, ``later``, which it leaves as it is.

    Its gradient is that of the output of the next step, also where that is in another part of the sequence.
    """
    return _later_step(step) if is_lasting(step) else _later_step.__wrapped__(step)


@functools.lru_cache(maxsize=256)
def _later_step(step: Step) -> Step:
    inner: Any = state_type(step)
    kind = later_type(inner)

    def run(input: Tensor, state: Any, p: Any, dt: float) -> Any:
        output, new = step(input, inner(*(getattr(state, name) for name in inner._fields)), p, dt)
        return output, kind(*new, state.later)

    run.__name__ = name_of(step)
    run.made_for = kind  # type: ignore[attr-defined]
    run.exact_of = step  # type: ignore[attr-defined]
    return run


@functools.lru_cache(maxsize=256)
def later_type(inner: Any) -> Any:
    """A kind of state with ``later`` behind its fields."""
    if "later" in inner._fields:
        raise ValueError(
            f"{inner.__name__} has a field later, and method='adjoint' keeps its own under this name: "
            "rename the field"
        )
    return cast(Any, namedtuple)(f"{inner.__name__}WithLater", (*inner._fields, "later"))


def handed(kind: Any, last: Any) -> Any:
    """The state for the caller: the fields of ``kind``, and beside them ``later``, if it has a graph.

    A part of the sequence that is given this state tells the part before it how its last spikes may move.
    """
    count = len(kind._fields)
    if len(last) == count or not last[-1].requires_grad:
        return kind(*last[:count])
    state = _handed_type(kind)(*last[:count])
    state.later = last[-1]
    return state


@functools.cache
def _handed_type(kind: Any) -> Any:
    """A NamedTuple with an attribute that is no field, and of which copies and files know nothing."""

    def reduce(self: Any, protocol: Any) -> Any:
        return _handed_state, (kind(*self),)

    return type(kind.__name__, (kind,), {"later": None, "handed_of": kind, "__reduce_ex__": reduce})


def _handed_state(state: Any) -> Any:
    """What copies and files make of a state: one of the neuron's own kind."""
    return state


torch.serialization.add_safe_globals([_handed_state])  # see snnlib.functional


def beyond(gradient: Tensor) -> Tensor:
    """The gradient of an output after the last, ``[B, *features]``: nobody knows it, and it is taken to stay.

    A line through the last two would be nearer, but would depend on where a sequence is cut into chunks.
    """
    return gradient.select(0, -1) if gradient.size(0) else gradient.sum(0)
