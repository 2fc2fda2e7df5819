"""Adaptive exponential leaky integrate-and-fire."""

from typing import NamedTuple

import torch
from torch import Tensor

from snnlib.engine.state import as_tensors
from snnlib.engine.step import Scalar
from snnlib.functional.synapse import weighted
from snnlib.functional.threshold import Method, reset, spike

__all__ = [
    "LIFAdExFeedForwardState",
    "LIFAdExParameters",
    "LIFAdExState",
    "lif_adex_current_encoder",
    "lif_adex_feed_forward_step",
    "lif_adex_step",
]


class LIFAdExParameters(NamedTuple):
    """Parameters of :func:`lif_adex_feed_forward_step`: numbers, or tensors that broadcast over ``[B, N]``."""

    adaptation_current: Scalar = 4.0
    """Coupling of the membrane to the adaptation, without a unit."""
    adaptation_spike: Scalar = 0.02
    """Jump of the adaptation at a spike, in units of voltage."""
    delta_T: Scalar = 0.5
    """Sharpness of the spike's onset, in units of voltage."""
    tau_ada_inv: Scalar = 2.0
    """Inverse time constant of the adaptation, 1/s (500 ms)."""
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


class LIFAdExFeedForwardState(NamedTuple):
    """State without recurrence, each ``[B, *features]``."""

    v: Tensor
    """Membrane potential."""
    i: Tensor
    """Synaptic current, in units of voltage."""
    a: Tensor
    """Adaptation current, in units of voltage."""

    @classmethod
    def initial(cls, p: LIFAdExParameters) -> "LIFAdExFeedForwardState":
        return cls(v=p.v_leak, i=0.0, a=0.0)  # type: ignore[arg-type]


class LIFAdExState(NamedTuple):
    """State with recurrence, each ``[B, N]``."""

    z: Tensor
    """Spikes of the step before."""
    v: Tensor
    """Membrane potential."""
    i: Tensor
    """Synaptic current, in units of voltage."""
    a: Tensor
    """Adaptation current, in units of voltage."""


def lif_adex_feed_forward_step(
    input: Tensor, state: LIFAdExFeedForwardState, p: LIFAdExParameters = LIFAdExParameters(), dt: float = 0.001
) -> tuple[Tensor, LIFAdExFeedForwardState]:
    """Adaptive exponential leaky integrate-and-fire (AdEx): one Euler step, the synaptic jump first.

    ::

        i   <- i + input
        v'   = v + dt tau_mem_inv ((v_leak - v) + i + delta_T exp((v - v_th) / delta_T) - a)
        i   <- i - dt tau_syn_inv i
        a   <- a + dt tau_ada_inv (adaptation_current (v - v_leak) - a)
        z    = H(v' - v_th)
        v   <- v' + z (v_reset - v')
        a   <- a + z adaptation_spike

    The gradient passes the spike into the adaptation; ``detach_reset`` concerns the membrane alone.

    Parameters:
        input: current that arrives in this step, ``[B, *features]``, already weighted.
        state: see :class:`LIFAdExFeedForwardState`.
        p: see :class:`LIFAdExParameters`.
        dt: time step in s.

    Returns:
        Spikes ``z``, 0 or 1, ``[B, *features]``, and the new state.

    Raises:
        ValueError: ``p.method`` is unknown.

    Source:
        Brette & Gerstner 2005, Journal of Neurophysiology 94(5).
    """
    state = as_tensors(state, input)
    i = state.i + input
    onset = p.delta_T * torch.exp((state.v - p.v_th) / p.delta_T)
    v = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + i + onset - state.a)
    i = i - dt * p.tau_syn_inv * i
    a = state.a + dt * p.tau_ada_inv * (p.adaptation_current * (state.v - p.v_leak) - state.a)
    z = spike(v - p.v_th, p.method, p.alpha)
    v = reset(v, z, p.v_reset, p.detach_reset)
    return z, LIFAdExFeedForwardState(v=v, i=i, a=a + z * p.adaptation_spike)


lif_adex_step = weighted(lif_adex_feed_forward_step, LIFAdExState)


def lif_adex_current_encoder(
    input_current: Tensor,
    voltage: Tensor,
    adaptation: Tensor,
    p: LIFAdExParameters = LIFAdExParameters(),
    dt: float = 0.001,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of the neuron without its synapse: :func:`lif_adex_feed_forward_step` whose input is not kept.

    Parameters:
        input_current: current in units of voltage, ``[B, *features]``.
        voltage, adaptation: membrane potential and adaptation before the step, ``[B, *features]``.
        p: see :class:`LIFAdExParameters`; ``tau_syn_inv`` is not read.
        dt: time step in s.

    Returns:
        Spikes, 0 or 1, the new membrane potential and the new adaptation, each ``[B, *features]``.
    """
    state = LIFAdExFeedForwardState(v=voltage, i=torch.zeros_like(voltage), a=adaptation)
    z, state = lif_adex_feed_forward_step(input_current, state, p, dt)
    return z, state.v, state.a
