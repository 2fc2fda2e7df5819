"""The reference backend: a plain loop over time, the law that every other backend is tested against."""

from typing import Any

import torch
from torch import Tensor

from snnlib.engine.step import Step, recurrent_step

__all__ = ["run"]


def run(
    step: Step, input: Tensor, state: Any, p: Any, dt: float, recurrent_weights: Tensor | None
) -> tuple[Tensor, Any]:
    """Apply ``step`` to ``input[0], input[1], ...``; arguments and result as in :func:`snnlib.engine.scan`.

    Autograd records every step, so memory grows with T times the number of operations in a step.
    """
    outputs = []
    # unbind once: indexing input[t] in the loop would make the backward pass O(T^2)
    for x in input.unbind(0):
        if recurrent_weights is None:
            z, state = step(x, state, p, dt)
        else:
            z, state = recurrent_step(step, x, state, recurrent_weights, p, dt)
        outputs.append(z)
    return (torch.stack(outputs) if outputs else torch.zeros_like(input)), state
