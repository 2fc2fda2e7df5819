"""Leaky integrator without a synapse: the input is the current."""

from typing import NamedTuple

from torch import Tensor

from snnlib.engine.step import Scalar
from snnlib.functional.synapse import weighted_feed_forward

__all__ = ["LIBoxParameters", "LIBoxState", "li_box_feed_forward_step", "li_box_step"]


class LIBoxParameters(NamedTuple):
    """Parameters of :func:`li_box_feed_forward_step`: numbers, or tensors that broadcast over ``[B, N]``."""

    tau_mem_inv: Scalar = 100.0
    """Inverse membrane time constant, 1/s (10 ms)."""
    v_leak: Scalar = 0.0
    """Resting potential."""


class LIBoxState(NamedTuple):
    """State, ``[B, *features]``."""

    v: Tensor
    """Membrane potential."""

    @classmethod
    def initial(cls, p: LIBoxParameters) -> "LIBoxState":
        return cls(v=p.v_leak)  # type: ignore[arg-type]


def li_box_feed_forward_step(
    input: Tensor, state: LIBoxState, p: LIBoxParameters = LIBoxParameters(), dt: float = 0.001
) -> tuple[Tensor, LIBoxState]:
    """Leaky integrator driven by its input: one Euler step.

    ::

        v   <- v + dt tau_mem_inv ((v_leak - v) + input)

    Parameters:
        input: current that arrives in this step, ``[B, *features]``, already weighted.
        state: see :class:`LIBoxState`.
        p: see :class:`LIBoxParameters`.
        dt: time step in s.

    Returns:
        The membrane potential ``v``, ``[B, *features]``, and the new state.

    Source:
        Gerstner et al. 2014, Neuronal Dynamics, chapter 1.
    """
    v = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + input)
    return v, LIBoxState(v=v)


li_box_step = weighted_feed_forward(li_box_feed_forward_step, LIBoxState)
