"""Short-term plasticity of a synapse: it tires and facilitates."""

from typing import NamedTuple

from torch import Tensor

from snnlib.engine.step import Scalar

__all__ = ["TsodyksMakramParameters", "TsodyksMakramState", "stp_step"]


class TsodyksMakramParameters(NamedTuple):
    """Parameters of :func:`stp_step`: numbers, or tensors that broadcast over ``[B, N]``."""

    tau_f_inv: Scalar = 20.0
    """Inverse time constant of the facilitation, 1/s (50 ms)."""
    tau_s_inv: Scalar = 50.0
    """Inverse synaptic time constant, 1/s (20 ms). Not read here: the neuron behind has the synapse."""
    tau_d_inv: Scalar = 1 / 0.75
    """Inverse time constant of the recovery, 1/s (750 ms)."""
    U: Scalar = 0.45
    """How far a spike raises the utilization, as a part of what is missing to 1."""


class TsodyksMakramState(NamedTuple):
    """State, each ``[B, *features]``."""

    u: Tensor
    """Utilization: the part of the resources that a spike uses."""
    x: Tensor
    """The part of the resources that is there."""

    @classmethod
    def initial(cls, p: TsodyksMakramParameters) -> "TsodyksMakramState":
        return cls(u=0.0, x=1.0)  # type: ignore[arg-type]


def stp_step(
    input: Tensor,
    state: TsodyksMakramState,
    p: TsodyksMakramParameters = TsodyksMakramParameters(),
    dt: float = 0.001,
) -> tuple[Tensor, TsodyksMakramState]:
    """A synapse of Tsodyks and Markram: one Euler step.

    ::

        u'       = u - dt tau_f_inv u + U (1 - u) input
        output   = u' x input
        x       <- x + dt tau_d_inv (1 - x) - output
        u       <- u'

    It stands before the weights: ``Layer(stp_step)`` takes spikes and gives each the strength that it has.

    Parameters:
        input: spikes, 0 or 1, ``[B, *features]``.
        state: see :class:`TsodyksMakramState`.
        p: see :class:`TsodyksMakramParameters`.
        dt: time step in s.

    Returns:
        What arrives behind the synapses, ``[B, *features]``, and the new state.

    Source:
        Tsodyks, Pawelzik & Markram 1998, Neural Networks with Dynamic Synapses.
    """
    u = state.u - dt * p.tau_f_inv * state.u + p.U * (1 - state.u) * input
    output = u * state.x * input
    x = state.x + dt * p.tau_d_inv * (1 - state.x) - output
    return output, TsodyksMakramState(u=u, x=x)
