"""The states after each step of a sequence."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["recorded"]


def recorded(run: Callable[[Tensor, Any], tuple[Tensor, Any]], input: Tensor, state: Any) -> tuple[Tensor, Any]:
    """``run(input, state)`` step by step, with all states in the place of the last.

    Parameters:
        run: ``(input, state) -> (output, state)`` over time, state a NamedTuple.
        input: ``[T, B, *features]``.
        state: before the first step; None if ``run`` knows where to start.

    Returns:
        The outputs, and the states after each step: each field has time in front, ``[T, B, *features]``.
    """
    if not len(input):
        output, state = run(input, state)
        return output, type(state)(*(value.new_empty((0, *value.shape)) for value in state))
    outputs, states = [], []
    for step in input.split(1):
        output, state = run(step, state)
        outputs.append(output)
        states.append(state)
    return torch.cat(outputs), type(state)(*(torch.stack(field) for field in zip(*states, strict=True)))
