"""The correlation sensor of the BrainScaleS-2 chips, idealised, and a plasticity rule that reads it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from snnlib.engine.check import check_parameters, checked_length
from snnlib.engine.step import Scalar

__all__ = [
    "CorrelationSensorParameters",
    "CorrelationSensorState",
    "correlation_based_update",
    "correlation_sensor_step",
]


class CorrelationSensorParameters(NamedTuple):
    """Parameters of :func:`correlation_sensor_step`: numbers, or tensors that broadcast over ``[B, N, M]``."""

    eta_p: Scalar = 1.0
    """What a causal pair (presynaptic spike first) at distance 0 adds."""
    eta_m: Scalar = 1.0
    """What an anti-causal pair (postsynaptic spike first) at distance 0 adds."""
    tau_ac_inv: Scalar = 10.0
    """Inverse time constant of the anti-causal window, 1/s (100 ms)."""
    tau_c_inv: Scalar = 10.0
    """Inverse time constant of the causal window, 1/s (100 ms)."""


class CorrelationSensorState(NamedTuple):
    """State of every synapse, each ``[B, N, M]``: sample, postsynaptic, presynaptic neuron."""

    post_pre: Tensor
    """Which side spiked last: 1 the postsynaptic, 0 the presynaptic one."""
    correlation_trace: Tensor
    """Sum of the causal pairs so far."""
    anti_correlation_trace: Tensor
    """Sum of the anti-causal pairs so far."""
    eligibility: Scalar = 0.0
    """1 at the last spike of either side and decaying since; 0 before the first spike. A number is for all."""

    @classmethod
    def initial(
        cls,
        batch: int,
        n_post: int,
        n_pre: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> "CorrelationSensorState":
        """The sensor before any spike."""
        return cls(*(torch.zeros(batch, n_post, n_pre, device=device, dtype=dtype) for _ in cls._fields))


def correlation_sensor_step(
    z_pre: Tensor,
    z_post: Tensor,
    state: CorrelationSensorState,
    p: CorrelationSensorParameters = CorrelationSensorParameters(),
    dt: float = 0.001,
) -> CorrelationSensorState:
    """Measure in every synapse how spikes of its two sides follow one another: one Euler step.

    ::

        e <- e - dt (q tau_ac_inv + (1 - q) tau_c_inv) e        q = post_pre, e = eligibility

        a <- a + eta_m z_pre q e                                a presynaptic spike, after a postsynaptic one
        e <- e + z_pre (1 - e)
        q <- q - z_pre q

        c <- c + eta_p z_post (1 - q) e                         a postsynaptic spike, after a presynaptic one
        e <- e + z_post (1 - e)
        q <- q + z_post (1 - q)

    with c the ``correlation_trace`` and a the ``anti_correlation_trace``. Only neighbours pair: a spike
    adds to a trace if the last spike before it at this synapse was on the other side ("reduced symmetric"
    in Morrison et al. 2008). A pair k steps apart adds ``eta_p (1 - dt tau_c_inv)^k``, which is
    ``eta_p exp(-k dt tau_c_inv)`` up to the Euler error, or the same with ``eta_m`` and ``tau_ac_inv``.
    Two spikes in one step are a causal pair at distance 0, as a neuron here can answer an input in the
    step in which it arrives.

    The traces only grow, as charge on the chip does until it is read and cleared. To clear them::

        state = state._replace(correlation_trace=torch.zeros_like(state.correlation_trace), ...)

    The chip's saturation, mismatch and noise are left out.

    Norse, under the same names, lets each spike add to the trace of its own side (a presynaptic one
    ``eta_p`` to ``correlation_trace``), which then decays until the other side spikes, is held, and decays
    on after the next spike of its own side. So a side that spikes alone has a trace there, pairs do not
    add up, two spikes in one step leave ``post_pre`` at 0, arrays are ``[B, M, N]``, and only B = 1 works
    (Norse 1.1). For one pair, what it holds in the trace at the second spike is what is added here.

    Parameters:
        z_pre: presynaptic spikes, 0 or 1, ``[B, M]``.
        z_post: postsynaptic spikes, 0 or 1, ``[B, N]``.
        state: see :class:`CorrelationSensorState`.
        p: see :class:`CorrelationSensorParameters`.
        dt: time step in s.

    Returns:
        The new state.

    Raises:
        ValueError: shapes do not fit, or a rate or ``dt`` is wrong.

    Source:
        Friedmann et al. 2017, Demonstrating hybrid learning in a flexible neuromorphic hardware system;
        Billaudelle et al. 2020, Versatile emulation of spiking neural networks on an accelerated
        neuromorphic substrate.
    """
    check_parameters(p, dt)
    _check_shapes(z_pre, z_post, state)
    pre, post = z_pre.unsqueeze(1), z_post.unsqueeze(2)
    q, c, a, e = state
    e = e - dt * (q * p.tau_ac_inv + (1 - q) * p.tau_c_inv) * e

    a = a + p.eta_m * pre * q * e
    e = e + pre * (1 - e)
    q = q - pre * q

    c = c + p.eta_p * post * (1 - q) * e
    e = e + post * (1 - e)
    q = q + post * (1 - q)
    return CorrelationSensorState(post_pre=q, correlation_trace=c, anti_correlation_trace=a, eligibility=e)


def correlation_based_update(
    ts: int,
    linear_update: Callable[[Tensor], Tensor],
    weights: Tensor,
    correlation_state: CorrelationSensorState,
    learning_rate: float,
    ts_frequency: int,
) -> Tensor:
    """Change the weights by a function of the sensors, every ``ts_frequency`` steps.

    ::

        x       = all of correlation_trace, then all of anti_correlation_trace, flat: [2 B N M]
        weights + learning_rate linear_update(x)    if ts is a multiple of ts_frequency (0 is one)
        weights                                     otherwise

    The traces are not cleared, see :func:`correlation_sensor_step`. In ``x`` synapses lie as in
    ``weights``, and so does the result; in Norse they come in with the presynaptic neuron first. Weights
    ``[N, M]`` are shared by the samples; with ``[B, N, M]`` each sample has its own.

    Parameters:
        ts: index of this time step.
        linear_update: from ``x`` to one number a weight, in any shape. A module, say
            ``torch.nn.Linear(2 * B * N * M, N * M)``, or a local rule of one's own:
            ``lambda x: (x.view(2, B, N, M)[0] - x.view(2, B, N, M)[1]).mean(0)``.
        weights: ``[N, M]`` or ``[B, N, M]``, to row from column; not changed in place.
        correlation_state: the sensors.
        learning_rate: factor of the change.
        ts_frequency: steps between two changes.

    Returns:
        The new weights, or ``weights`` itself.

    Raises:
        ValueError: ``ts_frequency`` is no positive integer, or ``linear_update`` returns a wrong number of
            values.
    """
    if ts % checked_length("ts_frequency", ts_frequency) != 0:
        return weights
    traces = (correlation_state.correlation_trace, correlation_state.anti_correlation_trace)
    change = linear_update(torch.stack(traces).flatten())
    if change.numel() != weights.numel():
        raise ValueError(
            f"linear_update must return {weights.numel()} values for weights of shape {list(weights.shape)}, "
            f"got shape {list(change.shape)}"
        )
    return weights + learning_rate * change.reshape(weights.shape)


def _check_shapes(z_pre: Tensor, z_post: Tensor, state: CorrelationSensorState) -> None:
    fits = z_pre.dim() == z_post.dim() == 2 and z_pre.shape[0] == z_post.shape[0]
    if not fits or state.post_pre.shape != (*z_post.shape, z_pre.shape[1]):
        raise ValueError(
            "z_pre must be [B, M], z_post [B, N] and state.post_pre [B, N, M], got "
            f"{list(z_pre.shape)}, {list(z_post.shape)} and {list(state.post_pre.shape)}"
        )
