"""What a neuron keeps, over time."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["state_over_time"]


@torch.no_grad()
def state_over_time(layer: Any, input: Tensor, state: Any = None, every: int = 1) -> tuple[Tensor, Any]:
    """Run a layer and keep its state after every so many steps; without gradients.

    A layer returns the state after the last step alone, since its loop over time keeps no others. Here it is
    called once for each state that is kept.

    Parameters:
        layer: a :class:`.Layer` or a :class:`.RecurrentLayer`.
        input, state: what the layer is given, ``[T, B, *features]``.
        every: steps between two states; after the last step there is one in any case.

    Returns:
        The output ``[T, B, *features]``, and the layer's NamedTuple with fields ``[S, B, *features]``, of
        S = ceil(T / every) states.

    Raises:
        ValueError: there is no step, ``every`` is no positive integer, or the layer refuses its input.
    """
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"every must be a positive number of steps, got {every!r}")
    if not len(input):
        raise ValueError(f"input must be [T, B, *features] with T > 0, got shape {list(input.shape)}")
    outputs, states = [], []
    for steps in input.split(every):
        output, state = layer(steps, state)
        outputs.append(output)
        states.append(state)
    return torch.cat(outputs), type(state)(*map(torch.stack, zip(*states, strict=True)))
