"""Exponential leaky integrate-and-fire."""

from typing import NamedTuple

import torch
from torch import Tensor

from snnlib.engine.state import as_tensors
from snnlib.engine.step import Scalar
from snnlib.functional.synapse import weighted
from snnlib.functional.threshold import Method, reset, spike

__all__ = [
    "LIFExFeedForwardState",
    "LIFExParameters",
    "LIFExState",
    "lif_ex_current_encoder",
    "lif_ex_feed_forward_step",
    "lif_ex_step",
]


class LIFExParameters(NamedTuple):
    """Parameters of :func:`lif_ex_feed_forward_step`: numbers, or tensors that broadcast over ``[B, N]``."""

    delta_T: Scalar = 0.5
    """Sharpness of the spike's onset, in units of voltage."""
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
    method: Method = "super"
    """How the gradient passes the spike, see :func:`~snnlib.functional.threshold.spike`."""
    alpha: Scalar | None = None
    """Parameter of ``method``; None takes the method's own."""
    detach_reset: bool = True
    """Whether the reset is kept out of the gradient, see :func:`~snnlib.functional.threshold.reset`."""


class LIFExFeedForwardState(NamedTuple):
    """State without recurrence, each ``[B, *features]``."""

    v: Tensor
    """Membrane potential."""
    i: Tensor
    """Synaptic current, in units of voltage."""

    @classmethod
    def initial(cls, p: LIFExParameters) -> "LIFExFeedForwardState":
        return cls(v=p.v_leak, i=0.0)  # type: ignore[arg-type]


class LIFExState(NamedTuple):
    """State with recurrence, each ``[B, N]``."""

    z: Tensor
    """Spikes of the step before."""
    v: Tensor
    """Membrane potential."""
    i: Tensor
    """Synaptic current, in units of voltage."""


def lif_ex_feed_forward_step(
    input: Tensor, state: LIFExFeedForwardState, p: LIFExParameters = LIFExParameters(), dt: float = 0.001
) -> tuple[Tensor, LIFExFeedForwardState]:
    """Exponential leaky integrate-and-fire: one Euler step, the synaptic jump first.

    ::

        i   <- i + input
        v   <- v + dt tau_mem_inv ((v_leak - v) + i + delta_T exp((v - v_th) / delta_T))
        i   <- i - dt tau_syn_inv i
        z    = H(v - v_th)
        v   <- v + z (v_reset - v)

    Parameters:
        input: current that arrives in this step, ``[B, *features]``, already weighted.
        state: see :class:`LIFExFeedForwardState`.
        p: see :class:`LIFExParameters`.
        dt: time step in s.

    Returns:
        Spikes ``z``, 0 or 1, ``[B, *features]``, and the new state.

    Raises:
        ValueError: ``p.method`` is unknown.

    Source:
        Fourcaud-Trocmé et al. 2003, Journal of Neuroscience 23(37).
    """
    state = as_tensors(state, input)
    i = state.i + input
    onset = p.delta_T * torch.exp((state.v - p.v_th) / p.delta_T)
    v = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + i + onset)
    i = i - dt * p.tau_syn_inv * i
    z = spike(v - p.v_th, p.method, p.alpha)
    return z, LIFExFeedForwardState(v=reset(v, z, p.v_reset, p.detach_reset), i=i)


lif_ex_step = weighted(lif_ex_feed_forward_step, LIFExState)


def lif_ex_current_encoder(
    input_current: Tensor, voltage: Tensor, p: LIFExParameters = LIFExParameters(), dt: float = 0.001
) -> tuple[Tensor, Tensor]:
    """One step of the neuron without its synapse: :func:`lif_ex_feed_forward_step` whose input is not kept.

    Parameters:
        input_current: current in units of voltage, ``[B, *features]``.
        voltage: membrane potential before the step, ``[B, *features]``.
        p: see :class:`LIFExParameters`; ``tau_syn_inv`` is not read.
        dt: time step in s.

    Returns:
        Spikes, 0 or 1, and the new membrane potential, each ``[B, *features]``.
    """
    state = LIFExFeedForwardState(v=voltage, i=torch.zeros_like(voltage))
    z, state = lif_ex_feed_forward_step(input_current, state, p, dt)
    return z, state.v
