"""Leaky integrate-and-fire with an adaptive threshold, the neuron of the LSNN."""

from typing import NamedTuple

from torch import Tensor

from snnlib.engine.step import Scalar
from snnlib.functional.synapse import weighted
from snnlib.functional.threshold import Method, reset, spike

__all__ = ["LSNNFeedForwardState", "LSNNParameters", "LSNNState", "lsnn_feed_forward_step", "lsnn_step"]


class LSNNParameters(NamedTuple):
    """Parameters of :func:`lsnn_feed_forward_step`: numbers, or tensors that broadcast over ``[B, N]``."""

    tau_syn_inv: Scalar = 200.0
    """Inverse synaptic time constant, 1/s (5 ms)."""
    tau_mem_inv: Scalar = 100.0
    """Inverse membrane time constant, 1/s (10 ms)."""
    tau_adapt_inv: Scalar = 1 / 0.7
    """Inverse time constant of the adaptation, 1/s (700 ms)."""
    v_leak: Scalar = 0.0
    """Resting potential, in units of the threshold as all voltages here."""
    v_th: Scalar = 1.0
    """Threshold."""
    v_reset: Scalar = 0.0
    """Potential after a spike."""
    beta: Scalar = 0.18
    """How far the threshold rises for each Hz of the neuron's own rate, in units of voltage times s."""
    method: Method = "super"
    """How the gradient passes the spike, see :func:`~snnlib.functional.threshold.spike`."""
    alpha: Scalar | None = None
    """Parameter of ``method``; None takes the method's own."""
    detach_reset: bool = True
    """Whether the reset is kept out of the gradient, see :func:`~snnlib.functional.threshold.reset`."""


class LSNNFeedForwardState(NamedTuple):
    """State without recurrence, each ``[B, *features]``."""

    v: Tensor
    """Membrane potential."""
    i: Tensor
    """Synaptic current, in units of voltage."""
    b: Tensor
    """The neuron's own firing rate, low-pass filtered with ``tau_adapt_inv``, Hz."""

    @classmethod
    def initial(cls, p: LSNNParameters) -> "LSNNFeedForwardState":
        return cls(v=p.v_leak, i=0.0, b=0.0)  # type: ignore[arg-type]


class LSNNState(NamedTuple):
    """State with recurrence, each ``[B, N]``."""

    z: Tensor
    """Spikes of the step before."""
    v: Tensor
    """Membrane potential."""
    i: Tensor
    """Synaptic current, in units of voltage."""
    b: Tensor
    """The neuron's own firing rate, low-pass filtered with ``tau_adapt_inv``, Hz."""


def lsnn_feed_forward_step(
    input: Tensor, state: LSNNFeedForwardState, p: LSNNParameters = LSNNParameters(), dt: float = 0.001
) -> tuple[Tensor, LSNNFeedForwardState]:
    """Leaky integrate-and-fire with an adaptive threshold (ALIF): one Euler step, the synaptic jump first.

    ::

        i   <- i + input
        v   <- v + dt tau_mem_inv ((v_leak - v) + i)
        i   <- i - dt tau_syn_inv i
        b   <- b - dt tau_adapt_inv b
        z    = H(v - (v_th + beta b))
        v   <- v + z (v_reset - v)
        b   <- b + tau_adapt_inv z

    The threshold is ``v_th + beta b``. ``b`` follows ``db/dt = tau_adapt_inv (-b + z)`` with a spike as a unit
    impulse in time, so it does not depend on ``dt``: at a steady rate b is that rate. A spike lifts the
    threshold by ``beta tau_adapt_inv``; the defaults give 0.26 of ``v_th``, as beta = 1.8 and 700 ms at a base
    threshold of 0.01 do in the paper, where time is in ms. The membrane is reset to ``v_reset``, where the
    paper subtracts the threshold. The gradient passes the spike into ``b``; ``detach_reset`` concerns the
    membrane alone.

    Parameters:
        input: current that arrives in this step, ``[B, *features]``, already weighted.
        state: see :class:`LSNNFeedForwardState`.
        p: see :class:`LSNNParameters`.
        dt: time step in s.

    Returns:
        Spikes ``z``, 0 or 1, ``[B, *features]``, and the new state.

    Raises:
        ValueError: ``p.method`` is unknown.

    Source:
        Bellec et al. 2018, Long short-term memory and learning-to-learn in networks of spiking neurons.
    """
    i = state.i + input
    v = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + i)
    i = i - dt * p.tau_syn_inv * i
    b = state.b - dt * p.tau_adapt_inv * state.b
    z = spike(v - (p.v_th + p.beta * b), p.method, p.alpha)
    v = reset(v, z, p.v_reset, p.detach_reset)
    return z, LSNNFeedForwardState(v=v, i=i, b=b + p.tau_adapt_inv * z)


lsnn_step = weighted(lsnn_feed_forward_step, LSNNState)
