"""Izhikevich's simple model of a spiking neuron."""

from typing import NamedTuple

import torch
from torch import Tensor

from snnlib.engine.step import Scalar
from snnlib.functional.synapse import weighted
from snnlib.functional.threshold import Method, reset, spike

__all__ = [
    "IZHIKEVICH_BEHAVIORS",
    "IzhikevichParameters",
    "IzhikevichRecurrentState",
    "IzhikevichState",
    "izhikevich_feed_forward_step",
    "izhikevich_recurrent_step",
]


class IzhikevichParameters(NamedTuple):
    """Parameters of :func:`izhikevich_feed_forward_step`: numbers, or tensors that broadcast over ``[B, N]``.

    The model counts voltages in mV and time in ms; ``tau_inv`` says how many of its ms pass in a second.
    """

    a: Scalar = 0.02
    """Rate of the recovery variable, 1/ms of model time."""
    b: Scalar = 0.2
    """Sensitivity of the recovery variable to the membrane."""
    c: Scalar = -65.0
    """Membrane after a spike, mV."""
    d: Scalar = 6.0
    """Jump of the recovery variable at a spike, mV/ms."""
    sq: Scalar = 0.04
    """Quadratic coefficient, 1/(mV ms)."""
    mn: Scalar = 5.0
    """Linear coefficient, 1/ms."""
    bias: Scalar = 140.0
    """Constant drive, mV/ms."""
    v_th: Scalar = 30.0
    """Peak of the spike, mV."""
    tau_inv: Scalar = 250.0
    """Model ms that pass in a second, 1/s. At 1000 the model runs in its own time and wants dt of 0.25 ms;
    at 250 it runs four times slower and is as accurate at 1 ms."""
    method: Method = "super"
    """How the gradient passes the spike, see :func:`~snnlib.functional.threshold.spike`."""
    alpha: Scalar | None = None
    """Parameter of ``method``; None takes the method's own."""
    detach_reset: bool = True
    """Whether the reset is kept out of the gradient, see :func:`~snnlib.functional.threshold.reset`."""


class IzhikevichState(NamedTuple):
    """State without recurrence, each ``[B, *features]``."""

    v: Tensor
    """Membrane potential, mV."""
    u: Tensor
    """Recovery variable, mV/ms."""

    @classmethod
    def initial(cls, p: IzhikevichParameters) -> "IzhikevichState":
        """The lower fixed point without input; the vertex of the parabola where there is none."""
        slope = p.mn - p.b
        discriminant = torch.as_tensor(slope**2 - 4 * p.sq * p.bias, dtype=torch.float64)
        none = discriminant <= 0
        # not a root of 0, which has no derivative to multiply a tangent with
        root = discriminant.masked_fill(none, 1.0).sqrt().masked_fill(none, 0.0)
        v = -(slope + root) / (2 * p.sq)
        return cls(v=v, u=p.b * v)


class IzhikevichRecurrentState(NamedTuple):
    """State with recurrence, each ``[B, N]``."""

    z: Tensor
    """Spikes of the step before."""
    v: Tensor
    """Membrane potential, mV."""
    u: Tensor
    """Recovery variable, mV/ms."""


IZHIKEVICH_BEHAVIORS: dict[str, IzhikevichParameters] = {
    "tonic_spiking": IzhikevichParameters(),
    "phasic_spiking": IzhikevichParameters(b=0.25),
    "tonic_bursting": IzhikevichParameters(c=-50.0, d=2.0),
    "phasic_bursting": IzhikevichParameters(b=0.25, c=-55.0, d=0.05, tau_inv=200.0),
    "mixed_mode": IzhikevichParameters(c=-55.0, d=4.0),
    "spike_frequency_adaptation": IzhikevichParameters(a=0.01, d=8.0),
    "class_1_excitability": IzhikevichParameters(b=-0.1, c=-55.0, mn=4.1, bias=108.0),
    "class_2_excitability": IzhikevichParameters(a=0.2, b=0.26, d=0.0),
    "subthreshold_oscillation": IzhikevichParameters(a=0.05, b=0.26, c=-60.0, d=0.0),
    "resonator": IzhikevichParameters(a=0.1, b=0.26, c=-60.0, d=-1.0),
    "rebound_spike": IzhikevichParameters(a=0.03, b=0.25, c=-60.0, d=4.0, tau_inv=200.0),
    "rebound_burst": IzhikevichParameters(a=0.03, b=0.25, c=-52.0, d=0.0, tau_inv=200.0),
}
"""Behaviours of real neurons, after Izhikevich 2004, IEEE Transactions on Neural Networks 15(5).

:meta hide-value:
"""


def izhikevich_feed_forward_step(
    input: Tensor,
    state: IzhikevichState,
    p: IzhikevichParameters = IzhikevichParameters(),
    dt: float = 0.001,
) -> tuple[Tensor, IzhikevichState]:
    """Izhikevich's neuron: one Euler step.

    ::

        v'   = v + dt tau_inv (sq v^2 + mn v + bias - u + input)
        u'   = u + dt tau_inv a (b v - u)
        z    = H(v' - v_th)
        v   <- v' + z (c - v')
        u   <- u' + z d

    The gradient passes the spike into ``u``; ``detach_reset`` concerns the membrane alone.

    Parameters:
        input: current that arrives in this step, ``[B, *features]``, mV/ms.
        state: see :class:`IzhikevichState`.
        p: see :class:`IzhikevichParameters`.
        dt: time step in s.

    Returns:
        Spikes ``z``, 0 or 1, ``[B, *features]``, and the new state.

    Raises:
        ValueError: ``p.method`` is unknown.

    Source:
        Izhikevich 2003, IEEE Transactions on Neural Networks 14(6).
    """
    drive = p.sq * state.v**2 + p.mn * state.v + p.bias - state.u + input
    v = state.v + dt * p.tau_inv * drive
    u = state.u + dt * p.tau_inv * p.a * (p.b * state.v - state.u)
    z = spike(v - p.v_th, p.method, p.alpha)
    return z, IzhikevichState(v=reset(v, z, p.c, p.detach_reset), u=u + z * p.d)


izhikevich_recurrent_step = weighted(izhikevich_feed_forward_step, IzhikevichRecurrentState, "recurrent_step")
