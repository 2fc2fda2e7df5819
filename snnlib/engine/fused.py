"""What the fused backends share: steps traced and compiled once, and the operators that torch sees.

A backend makes a :class:`Kernel` of a traced step. Two operators, ``snnlib::fused_forward`` and
``snnlib::fused_backward``, find it by its name, so that torch.compile, autocast and DDP see one operator for a
whole sequence.
"""

import functools
import hashlib
import importlib
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snnlib.engine.step import Step, UntraceableError, integration_dtype, name_of
from snnlib.engine.trace import Traced, trace, without_backward

__all__ = ["Kernel", "attempt", "sort_parameters"]


class Kernel(NamedTuple):
    """A compiled step over time.

    Attributes:
        traced: the step.
        forward: ``(input, states, parameters, weights) -> [output, *final states, *saved]``.
        backward: ``(gradient, gradients of final states, kept, parameters, weights) -> [gradient of the input,
            *of the initial states, *of the parameters that learn, one value a neuron]``, where kept is the
            output, if the traced step reads it, and what was saved. With weights the first state is z, whose
            initial gradient it leaves to the caller.
    """

    traced: Traced
    forward: Callable[..., list[Tensor]]
    backward: Callable[..., list[Tensor]]


_KERNELS: dict[str, Kernel] = {}
"""Compiled steps by the name under which torch's operators find them."""
_LOCK = threading.Lock()


def attempt(
    backend: str, step: Step, input: Tensor, state: Any, p: Any, dt: float, weights: Tensor | None
) -> tuple[tuple[Tensor, Any] | None, str]:
    """Run a step in the fused loop of a backend; other arguments as in :func:`snnlib.engine.scan`.

    A step is traced and compiled once for its kind of arguments.

    Returns:
        Output and state, or None and the reason why the step cannot be fused, of which it warns once.
    """
    tensors, learned, numbers = sort_parameters(p)
    dtype = integration_dtype(input.dtype)
    states = [torch.as_tensor(v, dtype=dtype, device=input.device).expand(input.shape[1:]) for v in state]
    parameters = [getattr(p, name) for name in tensors]
    weights = None if weights is None else weights.to(dtype)
    wanted = [input, *states, *parameters, *([] if weights is None else [weights])]
    # nothing is kept for a backward pass that cannot come
    backward = torch.is_grad_enabled() and any(value.requires_grad for value in wanted)
    key = (tensors, learned, dt, dtype, backward, weights is not None, backend)
    name, reason = _prepare(step, type(p), numbers, *key)
    if reason:
        return None, reason
    output, *rest = torch.ops.snnlib.fused_forward(input.to(dtype), states, parameters, weights, name)
    return (output, type(state)(*rest[: len(states)])), ""


def sort_parameters(p: Any) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Any, ...]]:
    """Which parameters are tensors, which of them learn, and all of them with None for a tensor."""
    fields = () if p is None else p._fields
    tensors = tuple(name for name in fields if isinstance(getattr(p, name), Tensor))
    learned = tuple(name for name in tensors if getattr(p, name).requires_grad)
    return tensors, learned, tuple(None if name in tensors else getattr(p, name) for name in fields)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _prepare(step: Step, kind: Any, numbers: tuple[Any, ...], *key: Any) -> tuple[str, str]:
    """:func:`_compiled` for torch.compile, which can hand over a type and a tuple, but no NamedTuple."""
    try:
        return _compiled(step, kind(*numbers) if hasattr(kind, "_fields") else None, *key)
    except TypeError as error:  # a list among the parameters, say
        return "", f"a parameter cannot be hashed ({error})"


@functools.lru_cache(maxsize=256)
def _compiled(
    step: Step,
    numbers: Any,
    tensors: tuple[str, ...],
    learned: tuple[str, ...],
    dt: float,
    dtype: torch.dtype,
    backward: bool,
    recurrent: bool,
    backend: str,
) -> tuple[str, str]:
    try:
        traced = trace(step, numbers, tensors, learned, dt, dtype)
    except UntraceableError as error:
        warnings.warn(f"{name_of(step)} runs in the plain loop, it cannot be fused: {error}", stacklevel=6)
        return "", str(error)
    traced = traced if backward else without_backward(traced)
    name = hashlib.sha256(repr((traced, dtype, recurrent, backend)).encode()).hexdigest()[:24]
    # Numba and Triton take their time to import: not before a sequence is run
    build = importlib.import_module(f"snnlib.engine.{backend}").build
    with _LOCK:
        if name not in _KERNELS:
            _KERNELS[name] = build(traced, name_of(step), dtype, recurrent)
    return name, ""


# -- torch's side ----------------------------------------------------------------------------------------


@torch.library.custom_op("snnlib::fused_forward", mutates_args=())
def _forward(
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Tensor | None,
    name: str,
) -> list[Tensor]:
    return _KERNELS[name].forward(input, states, parameters, weights)


@_forward.register_fake
def _(
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Tensor | None,
    name: str,
) -> list[Tensor]:
    def over_time() -> Tensor:
        return torch.empty(input.shape, dtype=input.dtype, device=input.device)

    finals = [torch.empty(s.shape, dtype=s.dtype, device=s.device) for s in states]
    return [over_time(), *finals, *(over_time() for _ in _KERNELS[name].traced.saved)]


@torch.library.custom_op("snnlib::fused_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    finals: Sequence[Tensor],
    kept: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Tensor | None,
    name: str,
) -> list[Tensor]:
    return _KERNELS[name].backward(gradient, finals, kept, parameters, weights)


@_backward.register_fake
def _(
    gradient: Tensor,
    finals: Sequence[Tensor],
    kept: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Tensor | None,
    name: str,
) -> list[Tensor]:
    learned = len(_KERNELS[name].traced.backward.outputs) - 1 - len(finals) + (weights is not None)
    rows = [torch.empty_like(gradient[0]) for _ in range(len(finals) - (weights is not None) + learned)]
    return [torch.empty(gradient.shape, dtype=gradient.dtype, device=gradient.device), *rows]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    _, states, parameters, weights, ctx.name = inputs
    traced = _KERNELS[ctx.name].traced
    ctx.states, ctx.sizes = len(states), [value.shape for value in parameters]
    ctx.learned = [k for k, value in enumerate(parameters) if value.requires_grad]
    ctx.recurrent = weights is not None
    recurrent = [] if weights is None else [weights, states[0], output[0]]
    kept = [*(output[:1] if traced.uses_output else []), *output[1 + len(states) :]]
    ctx.kept = len(kept)
    ctx.save_for_backward(*kept, *recurrent, *parameters)


def _differentiate(ctx: Any, gradients: list[Tensor]) -> tuple[Any, ...]:
    tensors = list(ctx.saved_tensors)  # once: torch.utils.checkpoint computes them anew at each reading
    kept, others = tensors[: ctx.kept], tensors[ctx.kept :]
    recurrent, parameters = (others[:3], others[3:]) if ctx.recurrent else ([], others)
    weights = recurrent[0] if recurrent else None
    finals = gradients[1 : 1 + ctx.states]
    given, *rest = torch.ops.snnlib.fused_backward(gradients[0], finals, kept, parameters, weights, ctx.name)
    weights_gradient = None
    if weights is not None:
        rest = [_to_first(given, finals[0], weights), *rest]
        weights_gradient = _to_weights(given, *recurrent[1:]) if ctx.needs_input_grad[3] else None
    sums: list[Tensor | None] = [None] * len(parameters)
    for index, value in zip(ctx.learned, rest[ctx.states :], strict=True):
        sums[index] = value.sum_to_size(ctx.sizes[index])
    return given, rest[: ctx.states], sums, weights_gradient, None


def _to_first(given: Tensor, final: Tensor, weights: Tensor) -> Tensor:
    """The gradient of the output before the first step, which only the first step heard."""
    return given[0] @ weights if len(given) else final


def _to_weights(given: Tensor, first: Tensor, output: Tensor) -> Tensor:
    """``sum over t of given[t]^T z[t-1]`` as one product over all samples and steps."""
    later = given[1:].flatten(0, 1).T @ output[:-1].flatten(0, 1)
    return later.addmm_(given[0].T, first) if len(given) else later


_forward.register_autograd(_differentiate, setup_context=_setup)
