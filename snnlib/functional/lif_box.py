"""Leaky integrate-and-fire without a synapse: the input is the current."""

from typing import NamedTuple

from torch import Tensor

from snnlib.engine.step import Scalar
from snnlib.functional.synapse import weighted
from snnlib.functional.threshold import Method, reset, spike

__all__ = [
    "LIFBoxFeedForwardState",
    "LIFBoxParameters",
    "LIFBoxState",
    "lif_box_feed_forward_step",
    "lif_box_step",
]


class LIFBoxParameters(NamedTuple):
    """Parameters of :func:`lif_box_feed_forward_step`: numbers, or tensors that broadcast over ``[B, N]``."""

    tau_mem_inv: Scalar = 100.0
    """Inverse membrane time constant, 1/s (10 ms)."""
    v_leak: Scalar = 0.0
    """Resting potential, in units of the threshold as all voltages here."""
    v_th: Scalar = 1.0
    """Threshold."""
    v_reset: Scalar = 0.0
    """Potential after a spike."""
    method: Method = "super"
    """How the gradient passes the spike, see :func:`~snnlib.functional.threshold.spike`."""
    alpha: Scalar | None = None
    """Parameter of ``method``; None takes the method's own."""
    detach_reset: bool = True
    """Whether the reset is kept out of the gradient, see :func:`~snnlib.functional.threshold.reset`."""


class LIFBoxFeedForwardState(NamedTuple):
    """State without recurrence, each ``[B, *features]``."""

    v: Tensor
    """Membrane potential."""

    @classmethod
    def initial(cls, p: LIFBoxParameters) -> "LIFBoxFeedForwardState":
        return cls(v=p.v_leak)  # type: ignore[arg-type]


class LIFBoxState(NamedTuple):
    """State with recurrence, each ``[B, N]``."""

    z: Tensor
    """Spikes of the step before."""
    v: Tensor
    """Membrane potential."""


def lif_box_feed_forward_step(
    input: Tensor, state: LIFBoxFeedForwardState, p: LIFBoxParameters = LIFBoxParameters(), dt: float = 0.001
) -> tuple[Tensor, LIFBoxFeedForwardState]:
    """Leaky integrate-and-fire driven by its input: one Euler step.

    ::

        v   <- v + dt tau_mem_inv ((v_leak - v) + input)
        z    = H(v - v_th)
        v   <- v + z (v_reset - v)

    Parameters:
        input: current that arrives in this step, ``[B, *features]``, already weighted.
        state: see :class:`LIFBoxFeedForwardState`.
        p: see :class:`LIFBoxParameters`.
        dt: time step in s.

    Returns:
        Spikes ``z``, 0 or 1, ``[B, *features]``, and the new state.

    Raises:
        ValueError: ``p.method`` is unknown.

    Source:
        Gerstner et al. 2014, Neuronal Dynamics, chapter 1.
    """
    v = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + input)
    z = spike(v - p.v_th, p.method, p.alpha)
    return z, LIFBoxFeedForwardState(v=reset(v, z, p.v_reset, p.detach_reset))


lif_box_step = weighted(lif_box_feed_forward_step, LIFBoxState)
