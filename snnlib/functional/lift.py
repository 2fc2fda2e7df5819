"""A step of a neuron as a function of a sequence."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from snnlib.engine.scan import scan

__all__ = ["lift", "step_by_step"]


def lift(activation: Callable[..., tuple[Tensor, Any]], p: Any = None) -> Callable[..., tuple[Tensor, Any]]:
    """Make a step into a function over time.

    ::

        output, state = lift(lif_feed_forward_step)(input, state=state)      [T, B, *features]

    A step without weights goes through :func:`snnlib.scan`, and starts at rest where no state is given. One
    with weights (``lif_step``) takes them by name, and its state too.

    Parameters:
        activation: the step.
        p: its parameters, unless the call names some; the step's own defaults if None.

    Raises:
        ValueError: a step with weights is given no state; and see :func:`snnlib.scan`.
    """
    return functools.partial(_over_time, activation, p)


def _over_time(
    activation: Callable[..., tuple[Tensor, Any]], default: Any, input: Tensor, state: Any = None, **given: Any
) -> tuple[Tensor, Any]:
    if default is not None:
        given = {"p": default, **given}
    if "input_weights" not in given:
        return scan(activation, input, state, **given)
    return step_by_step(lambda x, state: activation(x, state=state, **given), input, state)


def step_by_step(run: Callable[[Tensor, Any], tuple[Any, Any]], input: Tensor, state: Any) -> tuple[Any, Any]:
    """``output[t], state = run(input[t], state)`` for every t; an output may be a list of tensors."""
    outputs = []
    for x in input.unbind(0):
        output, state = run(x, state)
        outputs.append(output)
    if not outputs:  # no step to run: one of zeros tells the shape
        output, _ = run(input.new_zeros(input.shape[1:]), state)
        return tree_map(lambda value: value.new_zeros((0, *value.shape)), output), state
    return tree_map(lambda *steps: torch.stack(steps), *outputs), state
