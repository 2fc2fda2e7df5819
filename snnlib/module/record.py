"""The states after each step of a sequence."""

from typing import Any

import torch
from torch import Tensor

from snnlib.engine import adjoint

__all__ = ["recorded"]


def recorded(layer: Any, input: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Run a layer step by step, with all its states in the place of the last.

    Parameters:
        layer: what has parameters ``p`` and ``run(input, state) -> (output, state)``, state a NamedTuple.
        input: ``[T, B, *features]``.
        state: before the first step; None for the resting state.

    Returns:
        The outputs, and the states after each step: each field has time in front, ``[T, B, *features]``.

    Raises:
        RuntimeError: gradients are wanted of the adjoint, which needs the whole sequence.
    """
    if adjoint.is_exact(layer.p) and torch.is_grad_enabled():
        raise RuntimeError(
            "record_states=True runs single steps, of which method='adjoint' has no gradients: "
            "put it under torch.no_grad(), or take another method"
        )
    if not len(input):
        output, state = layer.run(input, state)
        return output, type(state)(*(value.new_empty((0, *value.shape)) for value in state))
    outputs, states = [], []
    for step in input.split(1):
        output, state = layer.run(step, state)
        outputs.append(output)
        states.append(state)
    return torch.cat(outputs), type(state)(*(torch.stack(field) for field in zip(*states, strict=True)))
