"""A compiled step over time, and the operators by which torch runs it.

Two operators, ``snnlib::fused_forward`` and ``snnlib::fused_backward``, find a :class:`Kernel` by its name, so
that torch.compile, autocast and DDP see one operator for a whole sequence.
"""

import functools
import itertools
import weakref
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from snnlib.engine.flops import be_counted
from snnlib.engine.later import beyond
from snnlib.engine.program import Traced, without_gradient
from snnlib.engine.state import constant
from snnlib.engine.watched import is_transformed, is_watched

__all__ = ["KERNELS", "Kernel", "run"]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A compiled step over time.

    Attributes:
        traced: the step.
        forward: ``(input, states, parameters, weights) -> [output, *final states, *saved]``, and at last what
            else the backend keeps, for events alone or of what is retraced. In a recurrent layer weights are
            ``[recurrent]`` or ``[recurrent, input]``, and the first state is z.
        backward: ``(gradient, gradients of final states, kept, parameters, recurrent, asked) -> [gradient of
            the input, *of the initial states, *of the parameters that learn, one value a neuron, *of the
            weights]``. Kept is what was saved, after the output if the traced step reads it; in a recurrent
            layer recurrent is ``[recurrent weights, first z, output]`` or those and ``input weights,
            input``, the output is not in kept, and there are always two gradients of weights. Asked says
            whether the gradients of input, recurrent and input weights are wanted; one that is not may
            be anything.
    """

    traced: Traced
    forward: Callable[..., list[Tensor]]
    backward: Callable[..., list[Tensor]]

    @functools.cached_property
    def without_gradient(self) -> tuple[int, ...]:
        """Of output and states, see :func:`snnlib.engine.program.without_gradient`."""
        return without_gradient(self.traced)


KERNELS: MutableMapping[str, Kernel] = weakref.WeakValueDictionary()
"""Compiled steps by the name under which torch's operators find them, as long as somebody holds them: who asks
for one, a graph that waits for its way back, or a compiled program."""


def run(
    name: str,
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Sequence[Tensor],
    watched: bool,
) -> Sequence[Tensor]:
    """What a kernel's ``forward`` gives, output and last states first, with their gradients.

    Parameters:
        watched: whether to run it as an operator, see :func:`snnlib.engine.watched.is_watched`.
    """
    if watched:
        made: list[Tensor] = torch.ops.snnlib.fused_forward(input, states, parameters, weights, name)
        return made
    output: tuple[Tensor, ...] = _Fused.apply(
        name, len(states), len(parameters), input, *states, *parameters, *weights
    )
    return output


def _forward(
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Sequence[Tensor],
    name: str,
) -> list[Tensor]:
    arguments = input, states, parameters, weights
    if _is_signed(input, *states, *parameters, *weights):
        arguments = tree_map(torch.resolve_neg, arguments)
    return KERNELS[name].forward(*arguments)


def _is_signed(*values: Tensor) -> bool:
    """Whether torch has a sign beside the memory of one of them, which is what a loop reads."""
    return True in [value.is_neg() for value in values]


def _fake_forward(
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Sequence[Tensor],
    name: str,
) -> list[Tensor]:
    traced, row = KERNELS[name].traced, states[0] if states else input[0]

    def over_time(dtype: torch.dtype, steps: int) -> Tensor:
        return row.new_empty(steps, *row.shape, dtype=dtype)

    steps = traced.rows_before + len(input)
    saved = [over_time(dtype, steps) for dtype in traced.types_of_saved(row.dtype)]
    saved += [row.new_empty(row.shape) for _ in traced.retraced]
    return [over_time(row.dtype, len(input)), *(s.new_empty(s.shape) for s in states), *saved]


def _backward(
    gradient: Tensor,
    finals: Sequence[Tensor],
    kept: Sequence[Tensor],
    parameters: Sequence[Tensor],
    recurrent: Sequence[Tensor],
    asked: Sequence[bool],
    name: str,
) -> list[Tensor]:
    arguments = gradient, finals, kept, parameters, recurrent
    if _is_signed(gradient, *finals, *parameters, *recurrent):
        arguments = tree_map(torch.resolve_neg, arguments)
    results = KERNELS[name].backward(*arguments, asked)
    return [value.contiguous() for value in results]  # the order of memory that _fake_backward promises


def _fake_backward(
    gradient: Tensor,
    finals: Sequence[Tensor],
    kept: Sequence[Tensor],
    parameters: Sequence[Tensor],
    recurrent: Sequence[Tensor],
    asked: Sequence[bool],
    name: str,
) -> list[Tensor]:
    learned = KERNELS[name].traced.learned
    input, weights = (recurrent[4:] or [gradient])[0], [*recurrent[:1], *(recurrent[3:4] or recurrent[:1])]
    rows = [gradient.new_empty(gradient.shape[1:]) for _ in range(len(finals) + learned)]
    return [input.new_empty(input.shape if asked[0] else (0,)), *rows, *(w.new_empty(w.shape) for w in weights)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.set_materialize_grads(False)  # nobody needs zeros of the size of what is saved
    input, states, parameters, weights, ctx.name = inputs
    ctx.kernel = KERNELS[ctx.name]
    traced = ctx.kernel.traced
    ctx.states, ctx.weights, ctx.sizes = len(states), len(weights), [value.shape for value in parameters]
    ctx.learned = [k for k, value in enumerate(parameters) if value.requires_grad]
    ctx.asked = [input.requires_grad, *(w.requires_grad for w in weights), False, False][:3]
    none = ctx.kernel.without_gradient
    if none and input.shape[0]:  # without a step the last state is the first
        # the first state of a recurrent layer is its output
        places = [k + 1 for k in none] + [0] * (0 in none) if weights else none
        ctx.mark_non_differentiable(*(output[k] for k in places))  # as in the plain loop
    recurrent = [weights[0], states[0], output[0]] if weights else []
    recurrent += [weights[1], input] if len(weights) > 1 else []
    saved = output[1 + len(states) :]
    kept = [output[0], *saved] if traced.uses_output and not weights else saved
    ctx.kept, ctx.recurrent = len(kept), len(recurrent)
    ctx.shape = output[0].shape
    ctx.save_for_backward(*kept, *recurrent, *parameters)


def _differentiate(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
    if all(value is None for value in gradients):
        return None, [None] * ctx.states, [None] * len(ctx.sizes), [None] * ctx.weights, None
    tensors = iter(ctx.saved_tensors)  # once: torch.utils.checkpoint computes them anew at each reading
    kept, recurrent = (list(itertools.islice(tensors, n)) for n in (ctx.kept, ctx.recurrent))
    known = next(value for value in gradients if value is not None)
    first, *others = gradients[: 1 + ctx.states]
    gradient = constant(0.0, known.dtype, known.device, ctx.shape) if first is None else first
    none = constant(0.0, known.dtype, known.device, ctx.shape[1:])
    finals = [none if value is None else value for value in others]
    unheard = ctx.kernel.traced.exact and gradients[ctx.states] is None  # of what comes after the sequence
    if unheard:
        finals[-1] = beyond(gradient)
    batched = is_transformed()
    if not batched and not all(map(torch._C._has_storage, (gradient, *finals))):
        raise RuntimeError(
            "a fused loop has no gradients by is_grads_batched=True or vectorize=True; torch.vmap of "
            "torch.autograd.grad has, and backend='reference'"
        )
    # the operator refuses a gradient of the gradient
    if seen := batched or torch.is_grad_enabled() or is_watched(()):
        be_counted()
    back = torch.ops.snnlib.fused_backward if seen else _backward
    given, *rest = back(gradient, finals, kept, list(tensors), recurrent, ctx.asked, ctx.name)
    states: list[Tensor | None] = [*rest[: ctx.states]]
    if unheard and not len(gradient):
        states[-1] = None  # the part before this one, which has no step, is the last
    sums: list[Tensor | None] = [None] * len(ctx.sizes)
    for index, value in zip(ctx.learned, rest[ctx.states :], strict=False):
        sums[index] = value.sum_to_size(ctx.sizes[index])
    grown = rest[ctx.states + len(ctx.learned) :][: ctx.weights]
    weights = [value if asked else None for value, asked in zip(grown, ctx.asked[1:], strict=False)]
    return given if ctx.asked[0] else None, states, sums, weights, None


class _Fused(torch.autograd.Function):
    """``snnlib::fused_forward`` where nobody needs to see an operator: through torch's dispatcher and its lists
    of tensors a call takes longer than the loop of a small layer."""

    @staticmethod
    def forward(ctx: Any, name: str, states: int, parameters: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        input, *rest = tensors
        weights = states + parameters
        inputs = input, rest[:states], rest[states:weights], rest[weights:], name
        output = _forward(*inputs)
        _setup(ctx, inputs, output)
        return tuple(output)  # what is kept too: a gradient of the gradient finds its way to what refuses it

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        given, states, sums, weights, _ = _differentiate(ctx, list(gradients))
        return None, None, None, given, *states, *sums, *weights


def _twice(ctx: Any, *gradients: Any) -> NoReturn:
    raise RuntimeError(
        "snnlib::fused_backward, the backward pass of a fused loop, has no derivative of its own; "
        "backend='reference' has one"
    )


def _register(name: str, run: Any, fake: Any, differentiate: Any, setup: Any) -> None:
    """Make an operator of torch's.

    ``torch.library.custom_op`` says the same in fewer words, and at the first call imports torch's compiler,
    which takes most of a second.
    """
    schema = torch.library.infer_schema(run, mutates_args=())
    _LIBRARY.define(f"{name}{schema}")
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"snnlib::{name}", fake, lib=_LIBRARY)
    torch.library.register_autograd(f"snnlib::{name}", differentiate, setup_context=setup, lib=_LIBRARY)


def _one_by_one(info: Any, dims: tuple[Any, ...], *arguments: Any) -> tuple[list[Tensor], list[int]]:
    """The backward pass of gradients that are batched, of a Jacobian say: one after the other."""

    def of(k: int, value: Any, dim: Any) -> Any:
        if isinstance(value, list | tuple) and isinstance(dim, list | tuple):
            return [of(k, *pair) for pair in zip(value, dim, strict=True)]
        return value if dim is None else value.select(dim, k)

    every = [
        torch.ops.snnlib.fused_backward(*map(functools.partial(of, k), arguments, dims))
        for k in range(info.batch_size)
    ]
    results = [torch.stack(values) for values in zip(*every, strict=True)]
    return results, [0] * len(results)


_LIBRARY = torch.library.Library("snnlib", "DEF")
_register("fused_forward", _forward, _fake_forward, _differentiate, _setup)
_register("fused_backward", _backward, _fake_backward, _twice, None)
torch.library.register_vmap("snnlib::fused_backward", _one_by_one, lib=_LIBRARY)
