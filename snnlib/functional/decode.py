"""From spikes or membranes over time to one value a neuron. Time is dimension 0 of ``[T, B, *features]``."""

import torch
from torch import Tensor

from snnlib.engine.check import check_parameters, checked_length
from snnlib.engine.state import integration_dtype

__all__ = [
    "last_decode",
    "max_decode",
    "mean_decode",
    "spike_count_decode",
    "spike_index_decode",
    "spike_time_decode",
    "sum_decode",
]


def sum_decode(tensor: Tensor, dimension: int = 0) -> Tensor:
    """The sum over time, ``sum_t tensor[t]``: ``[T, B, *features]`` to ``[B, *features]``.

    Parameters:
        tensor: outputs of a neuron.
        dimension: where time is.

    Raises:
        ValueError: ``tensor`` has no such dimension, or not one step in it.
    """
    _check_time(tensor, dimension)
    return tensor.sum(dimension)


def mean_decode(tensor: Tensor, dimension: int = 0) -> Tensor:
    """The mean over time, ``sum_t tensor[t] / T``; arguments and errors as in :func:`sum_decode`.

    Spikes, which are 0 or 1, give the firing probability a step; divided by the time step, the rate in Hz.
    """
    _check_time(tensor, dimension)
    return tensor.mean(dimension, dtype=None if tensor.is_floating_point() else torch.get_default_dtype())


def max_decode(tensor: Tensor, dimension: int = 0) -> Tensor:
    """The largest value over time, ``max_t tensor[t]``; arguments and errors as in :func:`sum_decode`.

    Steps that share the largest value share the gradient evenly.
    """
    _check_time(tensor, dimension)
    return tensor.amax(dimension)


def last_decode(tensor: Tensor, dimension: int = 0) -> Tensor:
    """The value in the last step, ``tensor[T-1]``; arguments and errors as in :func:`sum_decode`."""
    _check_time(tensor, dimension)
    return tensor.select(dimension, -1)


def spike_count_decode(spikes: Tensor, dimension: int = 0) -> Tensor:
    """How many entries over time are not 0, as int64 without a gradient (:func:`sum_decode` has one).

    Arguments and errors as in :func:`sum_decode`.
    """
    _check_time(spikes, dimension, "spikes")
    return spikes.count_nonzero(dimension)


def spike_time_decode(spikes: Tensor, dt: float = 0.001) -> Tensor:
    """The time of the first spike in s, and ``T dt`` for a neuron that stays silent.

    ::

        m_t  = 1 while z_0 + .. + z_t <= 1, else 0
        time = dt (T - sum_t (T - t) z_t m_t)

    A spike in the first step has time 0. No gradient flows through ``m``, so that

        d time / d z_t = -(T - t) dt     for all t before the second spike, 0 from there on

    also where no spike is: the gradient acts as if a later spike gave a later time, and more spikes an
    earlier one. A loss on the times thus reaches silent neurons too.

    Parameters:
        spikes: ``[T, B, *features]``, 0 or 1.
        dt: time step in s.

    Returns:
        Times ``[B, *features]``, in float32 at least.

    Raises:
        ValueError: ``spikes`` has no step, or ``dt`` is not positive.
    """
    check_parameters(None, dt)
    _check_time(spikes, 0, "spikes")
    z = spikes.to(integration_dtype(spikes.dtype))
    steps = z.shape[0]
    first = (z.detach().cumsum(0) <= 1).to(z.dtype)
    left = torch.arange(steps, 0, -1, dtype=z.dtype, device=z.device).view(-1, *[1] * (z.dim() - 1))
    return dt * (steps - (left * first * z).sum(0))


def spike_index_decode(spikes: Tensor, count: int = 1) -> Tensor:
    """The steps of the first ``count`` spikes, in their order, and inf for those that did not come.

    A step t that is returned has the gradient -1 to the spike in it, ``spikes[t]``, and none to others: more
    spikes come earlier.

    Parameters:
        spikes: ``[T, B, *features]``, 0 or 1.
        count: how many spikes of a neuron.

    Returns:
        ``[min(count, T), B, *features]``, in float32 at least; the first step is 0.

    Raises:
        ValueError: ``spikes`` has no step, or ``count`` is no positive integer.
    """
    _check_time(spikes, 0, "spikes")
    count = checked_length("count", count)
    z = spikes.to(integration_dtype(spikes.dtype))
    steps = torch.arange(z.shape[0], dtype=z.dtype, device=z.device).view(-1, *[1] * (z.dim() - 1))
    times = torch.where(z.detach() > 0, steps, torch.inf).sort(0).values[:count]
    came = times.isfinite()
    at = z.gather(0, times.where(came, 0.0).long())
    return times - torch.where(came, at - at.detach(), 0.0)


def _check_time(tensor: Tensor, dimension: int, name: str = "tensor") -> None:
    if not -tensor.dim() <= dimension < tensor.dim() or tensor.shape[dimension] == 0:
        raise ValueError(f"{name} must have a step in dimension {dimension}, got shape {list(tensor.shape)}")
