"""The reference backend: a plain loop over time, the law that every other backend is tested against."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from snnlib.engine import adjoint
from snnlib.engine.later import beyond
from snnlib.engine.state import as_tensors, integration_dtype
from snnlib.engine.step import Step, recurrent_step, returned, sort_parameters

__all__ = ["once", "run", "without_autocast"]


def run(
    step: Step, input: Tensor, state: Any, p: Any, dt: float, recurrent_weights: Tensor | None
) -> tuple[Tensor, Any]:
    """Apply ``step`` to ``input[0], input[1], ...``; arguments and result as in :func:`snnlib.engine.scan`.

    Autograd records every step, so memory grows with T times the number of operations in a step. With the
    adjoint states are kept, and each step is recorded on the way back. Input and weights are taken in the
    precision of the state, also under autocast, as in the fused loops.
    """
    names, _, _ = sort_parameters(p)
    ahead = adjoint.is_exact(p) and adjoint.check(getattr(step, "exact_of", step), p, names)
    dtype = integration_dtype(input.dtype)
    input = input.to(dtype)
    state = _own(state)  # a step may write to it, and it is the caller's, or the rest of other neurons too
    recurrent_weights = None if recurrent_weights is None else recurrent_weights.to(dtype)
    with without_autocast(input.device.type):
        if adjoint.is_exact(p) and torch.is_grad_enabled():
            loop = _Loop(step, type(state), p, names, dt, ahead)
            tensors = (*state, *(getattr(p, name) for name in names))
            output, *last = _Adjoint.apply(loop, input, recurrent_weights, *tensors)
            return output, type(state)(*last)
        outputs = []
        # unbind once: indexing input[t] in the loop would make the backward pass O(T^2)
        for x in input.unbind(0):
            z, state = _one(step, x, state, p, dt, recurrent_weights)
            outputs.append(z)
        # without a step too the output belongs to the graph
        return (torch.stack(outputs) if outputs else input.clone()), _own(state)


def once(
    step: Step, input: Tensor, state: Any, p: Any, dt: float, recurrent_weights: Tensor | None
) -> tuple[Tensor, Any]:
    """One step of :func:`run`, for ``input`` ``[B, *features]``."""
    dtype = integration_dtype(input.dtype)
    recurrent_weights = None if recurrent_weights is None else recurrent_weights.to(dtype)
    with without_autocast(input.device.type):
        state = type(state)(*map(_spread, state))
        z, state = _one(step, input.to(dtype), state, p, dt, recurrent_weights)
        return z, type(state)(*map(_spread, state))


def _spread(value: Any) -> Any:
    """A copy of what is one number's memory for all neurons, see :func:`snnlib.engine.state.initial_state`."""
    if not isinstance(value, Tensor) or value.is_contiguous():  # as is one element, whose strides say nothing
        return value
    return value.clone() if 0 in value.stride() else value


def _own(state: Any) -> Any:
    """A state in memory of its own. The last one is, as a fused loop gives it: a step may hand on its input,
    say, or one tensor twice."""
    return type(state)(*(value.clone() for value in state))


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Where autocast is on, leave it: the products of a loop are formed in the precision of the state."""
    on = device != "meta" and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()


def _one(
    step: Step, x: Tensor, state: Any, p: Any, dt: float, recurrent_weights: Tensor | None
) -> tuple[Tensor, Any]:
    """Output and state after one step, in tensors that have a value for each neuron."""
    if recurrent_weights is None:
        z, state = returned(step, step(x, state, p, dt), len(state))
    else:
        z, state = recurrent_step(step, x, state, recurrent_weights, p, dt)
    shape = x.shape
    if z.shape != shape:
        z = _of_all(z, x)
    for value in state:
        if not isinstance(value, Tensor) or value.shape != shape:
            return z, type(state)(*(_of_all(value, x) for value in as_tensors(state, x)))
    return z, state


def _of_all(value: Tensor, x: Tensor) -> Tensor:
    """In the shape of ``x``, where it lacks the samples: what a step makes of its parameters alone."""
    alone = value.dim() < x.dim() or (value.dim() == x.dim() and len(value) < len(x))
    sizes = zip(reversed(value.shape), reversed(x.shape), strict=False)
    if not alone or any(size not in (1, wanted) for size, wanted in sizes):
        return value
    return value.expand(x.shape).clone()


class _Loop(NamedTuple):
    """What :class:`_Adjoint` is given beside tensors.

    Attributes:
        kind: the NamedTuple of the state.
        p: the parameters, of which those with these names are given as tensors.
        ahead: what :func:`snnlib.engine.adjoint.check` says.
    """

    step: Step
    kind: Any
    p: Any
    names: tuple[str, ...]
    dt: float
    ahead: bool

    def parameters(self, tensors: tuple[Tensor, ...]) -> Any:
        return self.p._replace(**dict(zip(self.names, tensors, strict=True)))


class _Adjoint(torch.autograd.Function):
    """The loop, and the backward pass of :mod:`snnlib.engine.adjoint`: a loop back over the same steps."""

    @staticmethod
    def forward(ctx: Any, loop: _Loop, input: Tensor, weights: Tensor | None, *tensors: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.loop, ctx.device, count = loop, input.device.type, len(loop.kind._fields)
        state, p = loop.kind(*tensors[:count]), loop.parameters(tensors[count:])
        states, outputs = [], []
        for x in input.unbind(0):
            states.append(state)
            z, state = _one(loop.step, x, state, p, loop.dt, weights)
            outputs.append(z)
        ctx.states, ctx.count = states, count
        output = torch.stack(outputs) if outputs else torch.zeros_like(input)
        ctx.save_for_backward(input, *tensors, *([] if weights is None else [weights]))
        return output, *_own(state)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, *finals: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the gradient of the adjoint has no gradient: create_graph=True goes with a surrogate"
            )
        with without_autocast(ctx.device):
            return _back(ctx, gradient, finals)


def _back(ctx: Any, gradient: Tensor | None, finals: tuple[Tensor | None, ...]) -> tuple[Any, ...]:
    """The loop back over the steps, the last one first."""
    loop, count, names = ctx.loop, ctx.count, len(ctx.loop.names)
    input, *tensors = ctx.saved_tensors
    p, weights = loop.parameters(tensors[count : count + names]), tensors[count + names :]
    gradient = torch.zeros_like(input) if gradient is None else gradient
    given: list[Any] = [torch.zeros_like(v) if g is None else g for v, g in zip(tensors, finals, strict=False)]
    if finals[-1] is None:
        given[-1] = beyond(gradient)
    heard = [given.pop(0)] if weights else []
    sums = [torch.zeros_like(value) for value in tensors[count : count + names]]
    grown = [torch.zeros_like(value) for value in weights]
    to_input = torch.zeros_like(input)
    for t in range(len(input) - 1, -1, -1):
        x, state = input[t], ctx.states[t]
        if weights:
            x = x + linear(state.z, weights[0])
        arrived = gradient[t] + heard[0] if weights else gradient[t]
        to_input[t], given, more = adjoint.step_back(loop, x, state[len(weights) :], p, arrived, given)
        sums = [a + b for a, b in zip(sums, more, strict=True)]
        if weights:
            heard = [to_input[t] @ weights[0]]
            grown[0] += to_input[t].T @ state.z
    weighted = grown[0] if grown else None
    if finals[-1] is None and not len(input):  # a part before this one is the last with a step
        given[-1] = None
    return None, to_input, weighted, *heard, *given, *sums
