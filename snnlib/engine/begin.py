"""How a sequence begins: its arguments looked at, and the state before the first step."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snnlib.engine import adjoint
from snnlib.engine.check import check_fits, check_kind, check_parameters
from snnlib.engine.later import later_step, later_type
from snnlib.engine.state import as_tensors, constant, fitted, initial_state, integration_dtype
from snnlib.engine.step import Step, recurrent_state_type, state_type
from snnlib.engine.watched import is_recorded, is_transformed

__all__ = ["begin", "given_state"]


class Begun(NamedTuple):
    """A sequence before its first step, all of whose arguments were looked at.

    Attributes:
        step, p, state: as a backend takes them; by the adjoint, see :func:`snnlib.engine.later.later_step`.
        kind: of the state for the caller.
        transformed: see :func:`snnlib.engine.watched.is_transformed`.
    """

    step: Step
    p: Any
    state: Any
    kind: Any
    transformed: bool = False


def begin(
    step: Step, input: Tensor, state: Any, p: Any, dt: float, weights: list[Tensor], exact: bool
) -> Begun:
    """Look at the arguments of :func:`snnlib.engine.scan`; weights are none, recurrent ones, or these and the
    input's. It is done once for all sequences of one kind where nothing can differ.

    Parameters:
        exact: whether step and state are to be those that the adjoint takes.
    """
    known = _known(step, input, p, dt) if state is None and len(weights) == 0 else None
    if known is None:
        return _begun(step, input, state, p, dt, weights, exact)
    rest = _at_rest(*known, exact)
    state = type(rest)(*[value.detach() for value in rest])  # in tensors of its own
    return Begun(later_step(step) if exact else step, p, state, known[0])


def _begun(
    step: Step, input: Tensor, state: Any, p: Any, dt: float, weights: list[Tensor], exact: bool
) -> Begun:
    """See :func:`begin`."""
    check_parameters(p, dt, warns=True)
    shape, dtype = input.shape[1:], integration_dtype(input.dtype)
    if len(weights) > 1:
        shape = torch.Size((shape[0], len(weights[1])))
    check_fits("p", p, shape)
    state = _first_state(step, input, state, p, shape, len(weights) > 0)
    kind, later = getattr(type(state), "handed_of", type(state)), getattr(state, "later", None)
    p, state = fitted(p, dtype), fitted(state, dtype, shape)
    transformed = is_transformed()
    if transformed and adjoint.is_exact(p):
        raise RuntimeError(
            "method='adjoint' does not work under torch.func or forward-mode differentiation; "
            "loss.backward() does"
        )
    if exact:
        inner: Any = recurrent_state_type(step) if len(weights) > 0 else state_type(step)
        if later is None:
            later = constant(0.0, dtype, input.device, shape)
        else:  # the state is that after another part of the sequence
            later = later.to(input.device, dtype).expand(shape)
        step, state = later_step(step), later_type(inner)(*state, later)
    return Begun(step, p, state, kind, transformed)


_NUMBERS = {float, int, bool, str, type(None)}
"""Of parameters, one of which is a word."""


def _known(step: Step, input: Tensor, p: Any, dt: float) -> tuple[Any, ...] | None:
    """All that tells one beginning at rest from another, or None where it may be another each time."""
    shape, kind = input.shape[1:], state_type(step)
    # what is one number can be written to, and then nobody else may have it
    if is_recorded(input.device) or math.prod(shape) <= 1:
        return None
    kinds = (type(dt), *map(type, p or ()))
    if not _NUMBERS.issuperset(kinds):
        return None
    rest = getattr(kind, "initial", None)
    if rest is not None and not (rest.__module__ or "").startswith("snnlib.functional."):
        return None  # it may read anything
    return kind, p, dt, kinds, shape, input.dtype, input.device


@functools.lru_cache(maxsize=256, typed=True)
def _at_rest(
    kind: Any,
    p: Any,
    dt: float,
    kinds: tuple[type, ...],
    shape: torch.Size,
    dtype: torch.dtype,
    device: torch.device,
    exact: bool,
) -> Any:
    """The state of all sequences of one kind, as :class:`Begun` has it.

    Their arguments are looked at once, because a small layer would notice the time.

    Parameters:
        kind: of the state.
        kinds: types of the numbers: True and 1 are equal.
        shape, dtype, device: of one step's input.
        exact: see :func:`begin`.
    """
    check_parameters(p, dt)
    with torch.inference_mode(False):
        like = torch.empty(0, dtype=integration_dtype(dtype), device=device)
        state = initial_state(kind, p, like, None, shape)
        if exact:
            return later_type(kind)(*state, constant(0.0, like.dtype, device, shape))
        return state


def _first_state(step: Step, input: Tensor, state: Any, p: Any, shape: torch.Size, recurrent: bool) -> Any:
    """The state before the first step: that which was given, in tensors, or the resting one."""
    if state is None:
        kind = recurrent_state_type(step) if recurrent else None
        return initial_state(state_type(step), p, input, kind, shape)
    inner = state_type(step)._fields
    return given_state(state, ("z", *inner) if recurrent else inner, input, shape)


def given_state(state: Any, fields: tuple[str, ...], input: Tensor, shape: Sequence[int]) -> Any:
    """The state that a caller gave, in tensors.

    Parameters:
        fields: that it has to have.
        input: gives type and device.
        shape: of one step of the neurons.

    Raises:
        ValueError: it is that of another neuron, or does not fit.
    """
    if not torch.compiler.is_dynamo_compiling():
        check_kind(state, fields)
        check_fits("state", state, shape)
    return as_tensors(state, input)
