"""Spike-timing-dependent plasticity: a weight changes with the times of the spikes on its two sides."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from snnlib.engine.check import check_parameters
from snnlib.engine.step import Scalar, heaviside

__all__ = ["STDPParameters", "STDPState", "stdp_step_linear"]


class STDPParameters(NamedTuple):
    """Parameters of :func:`stdp_step_linear`: numbers, or tensors that broadcast."""

    a_pre: Scalar = 1.0
    """What a presynaptic spike adds to its trace."""
    a_post: Scalar = 1.0
    """What a postsynaptic spike adds to its trace."""
    tau_pre_inv: Scalar = 20.0
    """Inverse time constant of the presynaptic trace, 1/s (50 ms)."""
    tau_post_inv: Scalar = 20.0
    """Inverse time constant of the postsynaptic trace, 1/s (50 ms)."""
    w_min: Scalar = 0.0
    """Lower bound of the weights."""
    w_max: Scalar = 1.0
    """Upper bound of the weights."""
    eta_plus: Scalar = 1e-3
    """Learning rate where the presynaptic spike comes first."""
    eta_minus: Scalar = 1e-3
    """Learning rate where the postsynaptic spike comes first."""
    stdp_algorithm: str = "additive"
    """How a change depends on the weight, see :func:`stdp_step_linear`."""
    mu: Scalar = 0.0
    """Exponent of "multiplicative_pow": 0 is additive, 1 is linear in the room that is left."""
    hardbound: bool = True
    """Whether weights are clipped to [``w_min``, ``w_max``] after the step."""


class STDPState(NamedTuple):
    """Traces of past spikes; zeros to begin with."""

    t_pre: Tensor
    """Presynaptic trace, ``[B, M]``."""
    t_post: Tensor
    """Postsynaptic trace, ``[B, N]``."""


def _pow(room: Tensor, mu: Scalar) -> Tensor:
    return room.relu() ** mu


_DEPENDENCE: dict[str, Callable[[Tensor, Scalar], Tensor]] = {
    "additive": lambda room, mu: torch.ones_like(room),
    "additive_step": lambda room, mu: heaviside(room),
    "multiplicative_pow": _pow,
    "multiplicative_relu": lambda room, mu: room.relu(),
}


def stdp_step_linear(
    z_pre: Tensor,
    z_post: Tensor,
    w: Tensor,
    state: STDPState | None = None,
    p: STDPParameters = STDPParameters(),
    dt: float = 0.001,
) -> tuple[Tensor, STDPState]:
    """Pair-based STDP of a fully connected layer, all spikes with all spikes: one Euler step.

    ::

        t_pre  <- t_pre  - dt tau_pre_inv  t_pre  + a_pre  z_pre
        t_post <- t_post - dt tau_post_inv t_post + a_post z_post
        dw[n, m] = sum_b  eta_plus  f(w_max - w) z_post[b, n] t_pre[b, m]
                        - eta_minus f(w - w_min) t_post[b, n] z_pre[b, m]
        w      <- w + dw,  clipped to [w_min, w_max] if hardbound

    ===================  =======================
    stdp_algorithm       f(room)
    ===================  =======================
    additive             1
    additive_step        1 where room > 0, else 0
    multiplicative_pow   max(0, room)^mu
    multiplicative_relu  max(0, room)
    ===================  =======================

    A presynaptic spike k steps before a postsynaptic one gives ``eta_plus a_pre (1 - dt tau_pre_inv)^k``,
    which is ``eta_plus a_pre exp(-k dt tau_pre_inv)`` up to the Euler error; the other order gives the same
    with ``eta_minus``, ``a_post`` and ``tau_post_inv``, subtracted. Spikes in the same step count in both
    terms, at distance 0. Weights ``[N, M]`` are shared by the samples, whose changes are summed, as in Norse;
    with weights ``[B, N, M]`` each sample has its own, and changes them alone.

    A spike adds ``a_pre`` to its trace whatever ``dt`` is. Norse adds ``dt tau_pre_inv a_pre``, so a pair
    weighs less there the finer time is: ``a_pre = dt tau_pre_inv`` and ``a_post = dt tau_post_inv`` give
    its numbers.

    Autograd records the step as it does any other: call it under ``torch.no_grad()`` unless you learn
    through the plasticity.

    Parameters:
        z_pre: presynaptic spikes, ``[B, M]``.
        z_post: postsynaptic spikes, ``[B, N]``.
        w: weights ``[N, M]`` or ``[B, N, M]``, to row from column; not changed in place.
        state: traces, see :class:`STDPState`; None for zeros.
        p: see :class:`STDPParameters`.
        dt: time step in s.

    Returns:
        The new weights, in the shape of ``w``, and the new traces.

    Raises:
        ValueError: ``p.stdp_algorithm`` is unknown, shapes do not fit, or a rate or ``dt`` is wrong.

    Source:
        Morrison, Diesmann & Gerstner 2008, Phenomenological models of synaptic plasticity based on spike
        timing; Guetig, Aharonov, Rotter & Sompolinsky 2003 for ``multiplicative_pow``.
    """
    if p.stdp_algorithm not in _DEPENDENCE:
        raise ValueError(f"stdp_algorithm must be one of {list(_DEPENDENCE)}, got {p.stdp_algorithm!r}")
    check_parameters(p, dt)
    _check_shapes(z_pre, z_post, w)
    if state is None:
        state = STDPState(w.new_zeros(z_pre.shape), w.new_zeros(z_post.shape))
    t_pre = state.t_pre - dt * p.tau_pre_inv * state.t_pre + p.a_pre * z_pre
    t_post = state.t_post - dt * p.tau_post_inv * state.t_post + p.a_post * z_post
    f = _DEPENDENCE[p.stdp_algorithm]
    potentiation = p.eta_plus * f(p.w_max - w, p.mu) * _pairs(z_post, t_pre, w)
    depression = p.eta_minus * f(w - p.w_min, p.mu) * _pairs(t_post, z_pre, w)
    w = w + potentiation - depression
    if p.hardbound:
        w = w.clamp(min=p.w_min).clamp(max=p.w_max)
    return w, STDPState(t_pre=t_pre, t_post=t_post)


def _pairs(post: Tensor, pre: Tensor, w: Tensor) -> Tensor:
    """Product of the two sides of every synapse, summed over the samples where they share it."""
    if w.dim() == 3:
        return post.unsqueeze(2) * pre.unsqueeze(1)
    dtype = torch.promote_types(post.dtype, pre.dtype)
    return post.T.to(dtype) @ pre.to(dtype)


def _check_shapes(z_pre: Tensor, z_post: Tensor, w: Tensor) -> None:
    fits = z_pre.dim() == z_post.dim() == 2 and z_pre.shape[0] == z_post.shape[0]
    shared = (z_post.shape[-1], z_pre.shape[-1])
    if not fits or w.shape not in (shared, (len(z_pre), *shared)):
        raise ValueError(
            "z_pre must be [B, M], z_post [B, N] and w [N, M] or [B, N, M], got "
            f"{list(z_pre.shape)}, {list(z_post.shape)} and {list(w.shape)}"
        )
