"""The state of a neuron: where it rests, and that which a caller gives, as a loop takes them."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from snnlib.engine.step import Scalar
from snnlib.engine.watched import is_recorded

__all__ = ["as_tensors", "constant", "fitted", "initial_state", "integration_dtype"]


def integration_dtype(dtype: torch.dtype) -> torch.dtype:
    """State is integrated in float32 or better, also where the input is bfloat16 or float16."""
    return torch.promote_types(dtype, torch.float32)


def initial_state(
    kind: Any, p: Any, like: Tensor, recurrent: Any = None, shape: Sequence[int] | None = None
) -> Any:
    """The state before the first input.

    ``kind.initial(p)`` says where a neuron rests (a NamedTuple of numbers or tensors); a state without
    ``initial`` starts at zero, and so does the ``z`` of a recurrent neuron. A number of -0.0 rests at 0.0.

    Parameters:
        kind: the NamedTuple in which the step keeps its state, see :func:`snnlib.engine.step.state_type`.
        p: the neuron's parameters.
        like: one step's input ``[B, *features]``; gives shape, type and device.
        recurrent: the NamedTuple with ``z`` before the fields of ``kind`` that is wanted in its place.
        shape: what is wanted in the place of like's; then all neurons may share one number's memory, which is
            not to be written to, and a parameter's memory may be what they have.
    """
    values = kind.initial(p) if hasattr(kind, "initial") else (0.0,) * len(kind._fields)
    if recurrent is not None:
        values = (0.0, *values)
    dtype = integration_dtype(like.dtype)

    def fill(value: Scalar) -> Tensor:
        if isinstance(value, Tensor):
            value = value.to(like.device, dtype)
            return value.expand(like.shape).clone() if shape is None else value.expand(shape)
        number = float(value) + 0.0  # of -0.0 it makes 0.0: equal numbers are kept as one
        if shape is None:
            return torch.full(like.shape, number, dtype=dtype, device=like.device)
        return constant(number, dtype, like.device, shape)

    return (recurrent or kind)(*(fill(value) for value in values))


def constant(value: float, dtype: torch.dtype, device: torch.device, shape: Sequence[int]) -> Tensor:
    """One number for all of a shape, which is not to be written to, though torch lets ``v[mask] = 0`` do it."""
    # of one neuron even v.mul_(0.9)
    if is_recorded(device) or math.prod(shape) <= 1:
        return torch.full((), value, dtype=dtype, device=device).expand(shape)
    return _number(value, dtype, device).expand(shape)


@functools.lru_cache(maxsize=256)
def _number(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One number's memory for all who only read it; on a GPU to make it takes longer than a small loop."""
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=dtype, device=device)


def as_tensors(state: Any, like: Tensor) -> Any:
    """A state whose numbers are tensors, where ``like`` is."""
    if all(isinstance(value, Tensor) for value in state):
        return state  # with what an attribute of it says, see snnlib.engine.later.handed
    dtype = integration_dtype(like.dtype)
    values = (
        v if isinstance(v, Tensor) else torch.as_tensor(v, dtype=dtype, device=like.device) for v in state
    )
    return type(state)(*values)


def fitted(values: Any, dtype: torch.dtype, shape: Sequence[int] | None = None) -> Any:
    """A NamedTuple whose tensors have this dtype, and where a shape is given are expanded to it."""
    if not any(isinstance(value, Tensor) for value in values or ()):
        return values

    def fit(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value if value.dtype == dtype else value.to(dtype)
        return value if shape is None or value.shape == shape else value.expand(shape)

    return type(values)(*(fit(value) for value in values))
