"""What a network did, summed up for a term of the loss: its spikes, or its membranes."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

__all__ = ["Accumulator", "regularize_step", "spike_accumulator", "voltage_accumulator"]

Accumulator = Callable[[Tensor, Any, Any], Any]
"""``(output, state of the neuron, sum so far or None) -> sum``."""


def spike_accumulator(z: Tensor, s: Any, state: Tensor | None = None) -> Tensor:
    """The number of spikes: ``state + z.sum()``; ``state=None`` counts from 0."""
    return z.sum() if state is None else state + z.sum()


def voltage_accumulator(z: Tensor, s: Any, state: Tensor | None = None) -> Tensor:
    """The sum of membrane potentials, one a neuron: ``state + s.v``; ``state=None`` starts at 0."""
    voltage: Tensor = s.v
    return voltage if state is None else state + voltage


def regularize_step(
    z: Tensor, s: Any, accumulator: Accumulator = spike_accumulator, state: Any = None
) -> tuple[Tensor, Any]:
    """Add one step, or one sequence, of a neuron to a sum.

    Parameters:
        z: output of the neuron.
        s: its state.
        accumulator: what is summed up, :func:`spike_accumulator`, :func:`voltage_accumulator` or one's own.
        state: the sum so far; None to begin.

    Returns:
        ``z`` as it is, and the new sum.
    """
    return z, accumulator(z, s, state)
