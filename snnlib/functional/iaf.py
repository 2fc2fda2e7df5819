"""Integrate-and-fire without a leak."""

from typing import NamedTuple

from torch import Tensor

from snnlib.engine.step import Scalar
from snnlib.functional.synapse import weighted
from snnlib.functional.threshold import Method, reset, spike

__all__ = ["IAFFeedForwardState", "IAFParameters", "IAFState", "iaf_feed_forward_step", "iaf_step"]


class IAFParameters(NamedTuple):
    """Parameters of :func:`iaf_feed_forward_step`: numbers, or tensors that broadcast over ``[B, N]``."""

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


class IAFFeedForwardState(NamedTuple):
    """State without recurrence, each ``[B, *features]``."""

    v: Tensor
    """Membrane potential."""

    @classmethod
    def initial(cls, p: IAFParameters) -> "IAFFeedForwardState":
        return cls(v=0.0)  # type: ignore[arg-type]


class IAFState(NamedTuple):
    """State with recurrence, each ``[B, N]``."""

    z: Tensor
    """Spikes of the step before."""
    v: Tensor
    """Membrane potential."""


def iaf_feed_forward_step(
    input: Tensor, state: IAFFeedForwardState, p: IAFParameters = IAFParameters(), dt: float = 0.001
) -> tuple[Tensor, IAFFeedForwardState]:
    """Integrate-and-fire: one step.

    ::

        v   <- v + input
        z    = H(v - v_th)
        v   <- v + z (v_reset - v)

    Parameters:
        input: charge that arrives in this step, ``[B, *features]``, already weighted.
        state: see :class:`IAFFeedForwardState`.
        p: see :class:`IAFParameters`.
        dt: not used: the input is a charge.

    Returns:
        Spikes ``z``, 0 or 1, ``[B, *features]``, and the new state.

    Raises:
        ValueError: ``p.method`` is unknown.

    Source:
        Lapicque 1907, Journal de physiologie et de pathologie générale 9.
    """
    v = state.v + input
    z = spike(v - p.v_th, p.method, p.alpha)
    return z, IAFFeedForwardState(v=reset(v, z, p.v_reset, p.detach_reset))


iaf_step = weighted(iaf_feed_forward_step, IAFState)
