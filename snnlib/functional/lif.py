"""Leaky integrate-and-fire with a current-based synapse."""

from typing import NamedTuple

import torch
from torch import Tensor

from snnlib.engine.step import Scalar
from snnlib.functional.synapse import weighted
from snnlib.functional.threshold import Method, reset, spike

__all__ = [
    "LIFFeedForwardState",
    "LIFParameters",
    "LIFState",
    "lif_current_encoder",
    "lif_feed_forward_step",
    "lif_step",
]


class LIFParameters(NamedTuple):
    """Parameters of :func:`lif_feed_forward_step`: numbers, or tensors that broadcast over ``[B, N]``."""

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


class LIFFeedForwardState(NamedTuple):
    """State without recurrence, each ``[B, *features]``."""

    v: Tensor
    """Membrane potential."""
    i: Tensor
    """Synaptic current, in units of voltage."""

    @classmethod
    def initial(cls, p: LIFParameters) -> "LIFFeedForwardState":
        return cls(v=p.v_leak, i=0.0)  # type: ignore[arg-type]


class LIFState(NamedTuple):
    """State with recurrence, each ``[B, N]``."""

    z: Tensor
    """Spikes of the step before."""
    v: Tensor
    """Membrane potential."""
    i: Tensor
    """Synaptic current, in units of voltage."""


def lif_feed_forward_step(
    input: Tensor, state: LIFFeedForwardState, p: LIFParameters = LIFParameters(), dt: float = 0.001
) -> tuple[Tensor, LIFFeedForwardState]:
    """Leaky integrate-and-fire: one Euler step, the synaptic jump first.

    ::

        i   <- i + input
        v   <- v + dt tau_mem_inv ((v_leak - v) + i)
        i   <- i - dt tau_syn_inv i
        z    = H(v - v_th)
        v   <- v + z (v_reset - v)

    Parameters:
        input: current that arrives in this step, ``[B, *features]``, already weighted.
        state: membrane and synapse, see :class:`LIFFeedForwardState`.
        p: see :class:`LIFParameters`.
        dt: time step in s.

    Returns:
        Spikes ``z``, 0 or 1, ``[B, *features]``, and the new state.

    Raises:
        ValueError: ``p.method`` is unknown.

    Source:
        Gerstner et al. 2014, Neuronal Dynamics, chapter 1; integrated as Norse does.
    """
    i = state.i + input
    v = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + i)
    i = i - dt * p.tau_syn_inv * i
    z = spike(v - p.v_th, p.method, p.alpha)
    return z, LIFFeedForwardState(v=reset(v, z, p.v_reset, p.detach_reset), i=i)


lif_step = weighted(lif_feed_forward_step, LIFState)


def lif_current_encoder(
    input_current: Tensor, voltage: Tensor, p: LIFParameters = LIFParameters(), dt: float = 0.001
) -> tuple[Tensor, Tensor]:
    """One step of the neuron without its synapse: :func:`lif_feed_forward_step` whose input is not kept.

    Parameters:
        input_current: current in units of voltage, ``[B, *features]``.
        voltage: membrane potential before the step, ``[B, *features]``.
        p: see :class:`LIFParameters`; ``tau_syn_inv`` is not read.
        dt: time step in s.

    Returns:
        Spikes, 0 or 1, and the new membrane potential, each ``[B, *features]``.
    """
    state = LIFFeedForwardState(v=voltage, i=torch.zeros_like(voltage))
    z, state = lif_feed_forward_step(input_current, state, p, dt)
    return z, state.v
