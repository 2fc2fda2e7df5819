"""What a network did, summed up for a term of the loss: its spikes, or its membranes."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from snnlib.engine.state import integration_dtype

__all__ = ["Accumulator", "regularize_step", "spike_accumulator", "voltage_accumulator"]

Accumulator = Callable[[Tensor, Any, Any], Any]
"""``(output, state of the neuron, sum so far or None) -> sum``."""


def spike_accumulator(z: Tensor, s: Any, state: Tensor | None = None) -> Tensor:
    """The number of spikes: ``state + z.sum()``, in float32 at least; ``state=None`` counts from 0."""
    spikes = z.sum(dtype=integration_dtype(z.dtype) if z.is_floating_point() else None)
    return spikes if state is None else state + spikes


def voltage_accumulator(z: Tensor, s: Any, state: Tensor | None = None, over_time: bool = False) -> Tensor:
    """Membrane potentials summed up, ``[B, *features]``: ``state + s.v``; ``state=None`` starts at 0.

    A layer returns its last state alone. To sum over a sequence it has to be made with ``record_states=True``,
    and ``functools.partial(voltage_accumulator, over_time=True)`` adds ``s.v.sum(0)``.

    Parameters:
        z: output of the neuron, ``[B, *features]``, or ``[T, B, *features]`` over time.
        s: its state, with a field ``v`` of the same shape.
        state: the sum so far; None to begin.
        over_time: whether time is in front.

    Raises:
        ValueError: there is a state of one step alone beside the output of a sequence.
    """
    if s.v.dim() < z.dim():
        raise ValueError(
            f"s.v of shape {list(s.v.shape)} is of one step, the output {list(z.shape)} of a sequence: a sum "
            "of voltages needs the states of all steps, record_states=True"
        )
    voltage: Tensor = s.v.sum(0) if over_time else s.v
    return voltage if state is None else state + voltage


def regularize_step(
    z: Tensor, s: Any, accumulator: Accumulator = spike_accumulator, state: Any = None
) -> tuple[Tensor, Any]:
    """Add one step, or one sequence, of a neuron to a sum.

    Parameters:
        z: output of the neuron.
        s: its state; of a sequence :func:`voltage_accumulator` needs those of all steps.
        accumulator: what is summed up, :func:`spike_accumulator`, :func:`voltage_accumulator` or one's own.
        state: the sum so far; None to begin.

    Returns:
        ``z`` as it is, and the new sum.
    """
    return z, accumulator(z, s, state)
