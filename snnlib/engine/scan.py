"""The one door of the engine: a step, run over time by a backend."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import linear

from snnlib.engine import adjoint, reference
from snnlib.engine.begin import begin
from snnlib.engine.check import (
    check_backend,
    check_dense,
    check_input,
    check_kind_of_parameters,
    check_numbers,
)
from snnlib.engine.checkpoint import in_chunks
from snnlib.engine.later import handed, later_step
from snnlib.engine.state import integration_dtype
from snnlib.engine.step import Step, UntraceableError, default_dt, default_parameters, name_of, sort_parameters
from snnlib.engine.watched import is_exported

__all__ = ["BACKENDS", "Backend", "scan", "source"]

Backend = Literal["auto", "reference", "cpu", "gpu"]
"""What may run a step over time, see :func:`scan`."""

BACKENDS: tuple[Backend, ...] = get_args(Backend)
_FUSED = {"cpu": "cpu", "cuda": "gpu"}
"""The backend for a type of device."""


def scan(
    step: Step,
    input: Tensor,
    state: Any = None,
    p: Any = None,
    *,
    dt: float | None = None,
    recurrent_weights: Tensor | None = None,
    input_weights: Tensor | None = None,
    backend: Backend = "auto",
    checkpoint_every: int | None = None,
) -> tuple[Tensor, Any]:
    """Run a neuron's step over a whole sequence.

    ::

        output[t], state = step(input[t], state, p, dt)                                  t = 0 .. T-1
        output[t], state = step(x[t] + recurrent_weights @ output[t-1], state, p, dt)    if recurrent,
                                        with x[t] = input_weights @ input[t] if given, else input[t]

    State is integrated in float32 at least; half-precision input gives half-precision output.

    Parameters:
        step: the neuron, see :mod:`snnlib.engine.step`.
        input: ``[T, B, *features]``, floating point. Its first step, weights and parameters are looked at for
            NaN where that is free: on the CPU, not while compiling.
        state: the state before the first step, or None for the neuron's resting state. Each field
            broadcasts against ``input[0]``. With ``recurrent_weights`` its first field is ``z``, the
            output of the step before.
        p: the neuron's parameters; the step's own defaults if None. Fields may be tensors that broadcast
            against ``input[0]``; gradients reach them.
        dt: time step in s; the step's own default if None.
        recurrent_weights: ``[N, N]`` for ``input`` of shape ``[T, B, N]``.
        input_weights: beside recurrent ones, ``[N, M]`` for ``input`` of shape ``[T, B, M]``.
        backend: "reference", a plain loop; "cpu" and "gpu", the same arithmetic fused into one compiled loop
            for tensors on the CPU and on CUDA; "auto", the fastest that can run this step here. Where a
            step cannot be fused, "auto" says so once and takes the reference; ``torch.export`` gets the
            reference too, of which other programs know all operators.
        checkpoint_every: keep only the state every so many steps for the backward pass, and compute what lies
            between again, see :func:`snnlib.engine.checkpoint.in_chunks`. The input is kept; where a layer
            before this one made it, give the option to that which holds both.

    Returns:
        The outputs ``[T, B, *features]`` and the state after the last step.

    Raises:
        ValueError: an argument has a wrong shape, type or value; the message names it and shows the value.
        NaNInputError: input, weights or parameters have NaN.
        TypeError: ``step`` is no step, see :mod:`snnlib.engine.step`.
        UntraceableError: ``backend`` is "cpu" or "gpu", and the step cannot be fused or the input is elsewhere.
    """
    check_backend(backend, BACKENDS)
    check_dense(input)
    p = default_parameters(step) if p is None else p
    dt = default_dt(step) if dt is None else dt
    if p is not None and not torch.compiler.is_dynamo_compiling():
        check_kind_of_parameters(p, default_parameters(step))
    if backend in ("auto", "reference") and is_exported():
        backend, p = "reference", _without_adjoint(p)
    if input.dim() < 2:
        raise ValueError(f"input must be [T, B, *features], got shape {list(input.shape)}")
    _check_weights(recurrent_weights, input_weights, input)
    check_input(input[:1])
    for name, value in (("recurrent_weights", recurrent_weights), ("input_weights", input_weights)):
        if value is not None:
            check_numbers(name, value)
    if input_weights is not None and not _in_the_loop(backend, input, input_weights):
        input, input_weights = linear(input, input_weights), None
    weights = [w for w in (recurrent_weights, input_weights) if w is not None]
    exact = adjoint.is_exact(p)
    compiling = torch.compiler.is_dynamo_compiling()  # it cannot make a type; see fused.attempt
    begun = begin(step, input, state, p, dt, weights, exact and not compiling)

    def run(input: Tensor, state: Any) -> tuple[Tensor, Any]:
        return _run(backend, begun.step, input, state, begun.p, dt, weights, begun.transformed)

    output, last = in_chunks(run, input, begun.state, checkpoint_every, exact)
    return output, handed(begun.kind, last)


def _run(
    backend: str,
    step: Step,
    input: Tensor,
    state: Any,
    p: Any,
    dt: float,
    weights: list[Tensor],
    transformed: bool,
) -> tuple[Tensor, Any]:
    """A sequence, or a part of it, by a backend.

    Parameters:
        weights: none, recurrent ones, or these and the input's.
        transformed: see :func:`snnlib.engine.watched.is_transformed`.
    """
    done, reason = None, "torch.func or forward-mode differentiation is around it"
    if backend != "reference" and not transformed:
        own = [w.to(integration_dtype(input.dtype)) for w in weights]
        done, reason = _fused(backend, step, input, state, p, dt, own)
    if done is None and backend not in ("auto", "reference"):
        raise UntraceableError(f"{name_of(step)} cannot be fused: {reason}")
    if done is None and adjoint.is_exact(p) and torch.compiler.is_dynamo_compiling():
        raise RuntimeError(
            "method='adjoint' in the plain loop goes back by itself, which torch.compile cannot follow; "
            "leave the layer out with torch.compiler.disable, or let a fused backend run it"
        )
    if done is None:
        x = linear(input, weights[1]) if len(weights) > 1 else input
        done = reference.run(step, x, state, p, dt, weights[0] if weights else None)
    return done[0].to(input.dtype), done[1]


def _without_adjoint(p: Any) -> Any:
    """The parameters of a program that is exported: it goes forward only, where all methods are the same."""
    return p._replace(method="super") if adjoint.is_exact(p) else p


def _in_the_loop(backend: str, input: Tensor, input_weights: Tensor) -> bool:
    """Whether a fused loop may multiply with the input weights itself: in the precision of the state."""
    device = input.device.type
    if backend == "reference" or device not in _FUSED or torch.is_autocast_enabled(device):
        return False
    return input.dtype == input_weights.dtype == integration_dtype(input.dtype)


def _check_weights(recurrent: Tensor | None, inward: Tensor | None, input: Tensor) -> None:
    if recurrent is None:
        if inward is not None:
            raise ValueError("input_weights go with recurrent_weights; put a Linear before the neurons")
        return
    size = input.shape[-1] if inward is None else len(inward)
    if inward is not None and inward.dim() != 2:
        raise ValueError(f"input_weights must be [N, M], got shape {list(inward.shape)}")
    if inward is not None and (input.dim() != 3 or input.shape[2] != inward.shape[1]):
        wanted = f"input must be [T, B, {inward.shape[1]}] for input_weights {list(inward.shape)}"
        raise ValueError(f"{wanted}, got shape {list(input.shape)}")
    if input.dim() != 3 or recurrent.shape != (size, size):
        raise ValueError(
            "recurrent_weights must be [N, N] for an input [T, B, N], got "
            f"{list(recurrent.shape)} for {list(input.shape)}"
        )


def source(
    step: Any,
    p: Any = None,
    dt: float | None = None,
    dtype: torch.dtype = torch.float32,
    recurrent: bool = False,
    backend: str = "cpu",
) -> str:
    """The source of the fused loop that a step is made into, to be read.

    Parameters:
        step: the neuron's step, or a layer of such neurons, or its class: ``source(LIF)``.
        p: its parameters; the layer's, or the step's own defaults, if None.
        dt: time step in s; the layer's, or the step's own default, if None.
        dtype: of its state.
        recurrent: whether its output returns through recurrent weights.
        backend: "cpu" for that of the loops on the CPU, "gpu" for Triton's.

    Raises:
        ValueError: ``backend`` is another.
        UntraceableError: the step cannot be fused.
    """
    from snnlib.engine import emit, trace
    from snnlib.engine.emit import triton as emit_triton

    emitters = {"cpu": emit.emit, "gpu": emit_triton.emit}
    check_backend(backend, sorted(emitters))
    layer = step() if isinstance(step, type) else step
    step = getattr(layer, "step", layer)
    p = getattr(layer, "p", None) if p is None else p
    p = default_parameters(step) if p is None else p
    dt = getattr(layer, "dt", None) if dt is None else dt
    dt = default_dt(step) if dt is None else dt
    tensors, learned, _ = sort_parameters(p)
    step = later_step(step) if adjoint.is_exact(p) else step
    traced = trace.trace(step, p, tensors, learned, dt, dtype, trace.KEEPS[backend])
    return emitters[backend](traced, name_of(step), dtype, recurrent).text


def _fused(
    backend: str, step: Step, input: Tensor, state: Any, p: Any, dt: float, weights: list[Tensor]
) -> tuple[tuple[Tensor, Any] | None, str]:
    """Output and state by a fused loop, or None and the reason why there is none here."""
    from snnlib.engine import fused  # half a second: not before a sequence is run

    chosen = backend != "auto"
    if not chosen:
        device = input.device.type
        if device not in _FUSED:
            return None, f"there is no fused loop for {device}"
        backend = _FUSED[device]
    if weights or not _channels_last(input):
        return fused.attempt(backend, step, input, state, p, dt, weights, chosen)
    # neurons do not know where they stand: in the order of memory nothing has to be copied
    shape = input.shape[1:]
    wide = {k: v.expand(shape).movedim(1, -1) for k, v in _tensors(p).items() if v.dim()}
    p, state = p._replace(**wide) if wide else p, type(state)(*(v.movedim(1, -1) for v in state))
    done, reason = fused.attempt(backend, step, input.movedim(2, -1), state, p, dt, weights, chosen)
    if done is not None:
        done = done[0].movedim(-1, 2), type(state)(*(v.movedim(-1, 1) for v in done[1]))
    return done, reason


def _channels_last(input: Tensor) -> bool:
    """Whether maps ``[T, B, C, H, W]`` have the channels of a pixel side by side in memory."""
    if input.dim() != 5 or not len(input):
        return False
    first = input[0]
    return not first.is_contiguous() and first.is_contiguous(memory_format=torch.channels_last)


def _tensors(p: Any) -> dict[str, Tensor]:
    return {} if p is None else {k: v for k, v in p._asdict().items() if isinstance(v, Tensor)}
