"""Leaky integrate-and-fire with an absolute refractory period."""

from typing import NamedTuple

from torch import Tensor

from snnlib.engine.state import as_tensors
from snnlib.engine.step import Scalar
from snnlib.functional.synapse import weighted
from snnlib.functional.threshold import Method, gate, reset, spike

__all__ = [
    "LIFRefracFeedForwardState",
    "LIFRefracParameters",
    "LIFRefracState",
    "lif_refrac_feed_forward_step",
    "lif_refrac_step",
]


class LIFRefracParameters(NamedTuple):
    """Parameters of :func:`lif_refrac_feed_forward_step`: numbers, or tensors that fit ``[B, N]``."""

    tau_syn_inv: Scalar = 200.0
    """Inverse synaptic time constant, 1/s (5 ms)."""
    tau_mem_inv: Scalar = 100.0
    """Inverse membrane time constant, 1/s (10 ms)."""
    v_leak: Scalar = 0.0
    """Resting potential, in units of the threshold as all voltages here."""
    v_th: Scalar = 1.0
    """Threshold."""
    v_reset: Scalar = 0.0
    """Potential after a spike."""
    rho_reset: Scalar = 0.005
    """Refractory period, s. It is rounded to the nearest step; a half may go either way."""
    method: Method = "super"
    """How the gradient passes the spike, see :func:`~snnlib.functional.threshold.spike`."""
    alpha: Scalar | None = None
    """Parameter of ``method``; None takes the method's own."""
    detach_reset: bool = True
    """Whether the reset is kept out of the gradient, see :func:`~snnlib.functional.threshold.reset`."""


class LIFRefracFeedForwardState(NamedTuple):
    """State without recurrence, each ``[B, *features]``."""

    v: Tensor
    """Membrane potential."""
    i: Tensor
    """Synaptic current, in units of voltage."""
    rho: Tensor
    """Time until the neuron may move again, s."""

    @classmethod
    def initial(cls, p: LIFRefracParameters) -> "LIFRefracFeedForwardState":
        return cls(v=p.v_leak, i=0.0, rho=0.0)  # type: ignore[arg-type]


class LIFRefracState(NamedTuple):
    """State with recurrence, each ``[B, N]``."""

    z: Tensor
    """Spikes of the step before."""
    v: Tensor
    """Membrane potential."""
    i: Tensor
    """Synaptic current, in units of voltage."""
    rho: Tensor
    """Time until the neuron may move again, s."""


def lif_refrac_feed_forward_step(
    input: Tensor,
    state: LIFRefracFeedForwardState,
    p: LIFRefracParameters = LIFRefracParameters(),
    dt: float = 0.001,
) -> tuple[Tensor, LIFRefracFeedForwardState]:
    """Leaky integrate-and-fire that rests after a spike: one Euler step.

    ::

        i    <- i + input
        free  = 1 if rho < dt/2 else 0
        v    <- v + free dt tau_mem_inv ((v_leak - v) + i)
        i    <- i - dt tau_syn_inv i
        z     = free H(v - v_th)
        v    <- v + z (v_reset - v)
        rho  <- max(rho - dt, 0) + z (rho_reset - max(rho - dt, 0))

    The synaptic current goes on while the membrane is held. With surrogates ``rho`` carries no
    gradient from the spikes; with the adjoint it carries that of the time at which the neuron is free again.

    Parameters:
        input: current that arrives in this step, ``[B, *features]``, already weighted.
        state: see :class:`LIFRefracFeedForwardState`.
        p: see :class:`LIFRefracParameters`.
        dt: time step in s.

    Returns:
        Spikes ``z``, 0 or 1, ``[B, *features]``, and the new state.

    Raises:
        ValueError: ``p.method`` is unknown.

    Source:
        Gerstner et al. 2014, Neuronal Dynamics, section 1.3.
    """
    state = as_tensors(state, input)
    i = state.i + input
    # rho counts down in steps of dt: half a step of tolerance keeps rounding from adding a step
    free = gate(0.5 * dt - state.rho, dt, p.method)
    v = state.v + free * (dt * p.tau_mem_inv * ((p.v_leak - state.v) + i))
    i = i - dt * p.tau_syn_inv * i
    z = free * spike(v - p.v_th, p.method, p.alpha)
    rho = (state.rho - dt).relu()
    v = reset(v, z, p.v_reset, p.detach_reset)
    return z, LIFRefracFeedForwardState(v=v, i=i, rho=reset(rho, z, p.rho_reset))


lif_refrac_step = weighted(lif_refrac_feed_forward_step, LIFRefracState)
