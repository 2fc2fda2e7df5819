"""Leaky integrator: a membrane that does not spike, the usual readout."""

from typing import NamedTuple

from torch import Tensor

from snnlib.engine.step import Scalar
from snnlib.functional.synapse import weighted_feed_forward

__all__ = ["LIParameters", "LIState", "li_feed_forward_step", "li_step"]


class LIParameters(NamedTuple):
    """Parameters of :func:`li_feed_forward_step`: numbers, or tensors that broadcast over ``[B, N]``."""

    tau_syn_inv: Scalar = 200.0
    """Inverse synaptic time constant, 1/s (5 ms)."""
    tau_mem_inv: Scalar = 100.0
    """Inverse membrane time constant, 1/s (10 ms)."""
    v_leak: Scalar = 0.0
    """Resting potential."""


class LIState(NamedTuple):
    """State, each ``[B, *features]``."""

    v: Tensor
    """Membrane potential."""
    i: Tensor
    """Synaptic current, in units of voltage."""

    @classmethod
    def initial(cls, p: LIParameters) -> "LIState":
        return cls(v=p.v_leak, i=0.0)  # type: ignore[arg-type]


def li_feed_forward_step(
    input: Tensor, state: LIState, p: LIParameters = LIParameters(), dt: float = 0.001
) -> tuple[Tensor, LIState]:
    """Leaky integrator: one Euler step, the synaptic jump first.

    ::

        i   <- i + input
        v   <- v + dt tau_mem_inv ((v_leak - v) + i)
        i   <- i - dt tau_syn_inv i

    Parameters:
        input: current that arrives in this step, ``[B, *features]``, already weighted.
        state: membrane and synapse, see :class:`LIState`.
        p: see :class:`LIParameters`.
        dt: time step in s.

    Returns:
        The membrane potential ``v``, ``[B, *features]``, and the new state.

    Source:
        Gerstner et al. 2014, Neuronal Dynamics, chapter 1; integrated as Norse does.
    """
    i = state.i + input
    v = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + i)
    return v, LIState(v=v, i=i - dt * p.tau_syn_inv * i)


li_step = weighted_feed_forward(li_feed_forward_step, LIState)
