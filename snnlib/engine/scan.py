"""The one door of the engine: a step, run over time by a backend."""

from typing import Any

import torch
from torch import Tensor

from snnlib.engine import reference
from snnlib.engine.step import (
    Step,
    UntraceableError,
    check_parameters,
    default_parameters,
    initial_state,
    integration_dtype,
    is_concrete,
    name_of,
    recurrent_state_type,
    state_type,
)

__all__ = ["BACKENDS", "check_input", "scan"]

BACKENDS = ("reference", "cpu")


def scan(
    step: Step,
    input: Tensor,
    state: Any = None,
    p: Any = None,
    *,
    dt: float = 0.001,
    recurrent_weights: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Any]:
    """Run a neuron's step over a whole sequence.

    ::

        output[t], state = step(input[t], state, p, dt)                                  t = 0 .. T-1
        output[t], state = step(input[t] + recurrent_weights @ output[t-1], state, p, dt)   if recurrent

    State is integrated in float32 at least; half-precision input gives half-precision output.

    Parameters:
        step: the neuron, see :mod:`snnlib.engine.step`.
        input: ``[T, B, *features]``, floating point. Its first step is looked at for NaN where that is
            free: on the CPU, not while compiling.
        state: the state before the first step, or None for the neuron's resting state. Each field
            broadcasts against ``input[0]``. With ``recurrent_weights`` its first field is ``z``, the
            output of the step before.
        p: the neuron's parameters; the step's own defaults if None. Fields may be tensors that broadcast
            against ``input[0]``; gradients reach them.
        dt: time step in s.
        recurrent_weights: ``[N, N]`` for ``input`` of shape ``[T, B, N]``.
        backend: "reference", a plain loop; "cpu", the same arithmetic fused into one compiled loop, for
            feed-forward neurons on the CPU; "auto", the fastest that can run this step here. Where a step
            cannot be fused, "auto" says so once and takes the reference.

    Returns:
        The outputs ``[T, B, *features]`` and the state after the last step.

    Raises:
        ValueError: an argument has a wrong shape, type or value; the message names it and shows the value.
        UntraceableError: ``backend="cpu"`` and the step cannot be fused.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend must be one of {['auto', *BACKENDS]}, got {backend!r}")
    p = default_parameters(step) if p is None else p
    check_parameters(p, dt)
    if input.dim() < 2:
        raise ValueError(f"input must be [T, B, *features], got shape {list(input.shape)}")
    shape = input.shape[1:]
    if recurrent_weights is not None:
        neurons = shape[-1]
        if len(shape) != 2 or recurrent_weights.shape != (neurons, neurons):
            raise ValueError(
                "recurrent_weights must be [N, N] for an input [T, B, N], got "
                f"{list(recurrent_weights.shape)} for {list(input.shape)}"
            )
    check_input(input[:1])
    if state is None:
        kind = None if recurrent_weights is None else recurrent_state_type(step)
        like = input.new_empty(()).expand(shape)
        state = initial_state(state_type(step), p, like, kind)
    check_state(state, shape)
    arguments = (step, input, state, p, dt, recurrent_weights)
    reason = "reference" if backend == "reference" else _why_not_fused(*arguments)
    if backend == "cpu" and reason:
        raise UntraceableError(f"{name_of(step)} cannot be fused: {reason}")
    if reason:
        output, state = reference.run(*arguments)
    else:
        output, state = _cpu().run(*arguments)
    if input.dtype != integration_dtype(input.dtype):
        output = output.to(input.dtype)
    return output, state


def _cpu() -> Any:
    # Numba takes half a second to import: not before a sequence is run
    from snnlib.engine import cpu

    return cpu


def _why_not_fused(
    step: Step, input: Tensor, state: Any, p: Any, dt: float, recurrent_weights: Tensor | None
) -> str:
    """Empty where the fused loop can run the step, else the reason; warns once of a step that cannot be."""
    if input.device.type != "cpu":
        return f"there is no fused loop for {input.device.type} yet"
    if recurrent_weights is not None:
        return "recurrent weights"
    if not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(input):
        return "torch.func"
    return _cpu().why_not(step, p, dt, integration_dtype(input.dtype))  # type: ignore[no-any-return]


def check_input(input: Tensor) -> None:
    """Refuse an input that no neuron can integrate.

    Raises:
        ValueError: integers, or NaN where the values can be looked at for free.
    """
    if not input.is_floating_point():
        raise ValueError(f"input must be floating point, got dtype {input.dtype}; use input.float()")
    if is_concrete(input) and bool(input.isnan().any()):
        first = input.isnan().nonzero()[0].tolist()
        raise ValueError(f"input must not contain NaN, got nan at index {first}")


def check_state(state: Any, shape: Any) -> None:
    """Refuse a state that does not fit one step's input.

    Raises:
        ValueError: a field does not broadcast against ``shape``.
    """
    for name, value in zip(state._fields, state, strict=True):
        if not isinstance(value, Tensor):
            continue
        pairs = zip(reversed(value.shape), reversed(shape), strict=False)
        if value.dim() > len(shape) or any(have not in (1, want) for have, want in pairs):
            raise ValueError(f"state.{name} must broadcast to {list(shape)}, got shape {list(value.shape)}")
