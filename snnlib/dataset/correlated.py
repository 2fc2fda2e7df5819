"""Spike trains of equal rates, of which a subset is correlated in time; episodes of two such patterns."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from snnlib.engine.check import checked_length

__all__ = ["Episodes", "correlated_spikes", "generated_episodes", "random_subsets", "without_timing"]


class Episodes(NamedTuple):
    """A batch of episodes, each with two patterns of its own."""

    subsets: Tensor
    """Which channels are correlated in class 0 and in class 1, bool ``[2, B, M]``."""
    lessons: Tensor
    """A sample of class 0 and one of class 1 to learn from, spikes 0 or 1, ``[2, T, B, M]``."""
    question: Tensor
    """A new sample of either class, ``[T, B, M]``."""
    answer: Tensor
    """Its class, 0 or 1, ``[B]``."""


def generated_episodes(
    batch_size: int,
    channels: int,
    subset: int,
    seq_length: int,
    rate: float,
    correlation: float,
    dt: float = 0.001,
    generator: Generator | None = None,
) -> Episodes:
    """Draw episodes, each with new patterns; arguments as in :func:`correlated_spikes`.

    Parameters:
        batch_size: number of episodes B.
        channels: number of channels M.
        subset: how many of them are correlated in a class; the two classes share none.
    """
    subsets = random_subsets(batch_size, channels, subset, generator)
    answer = torch.randint(0, 2, (batch_size,), generator=generator)
    asked = torch.where(answer.unsqueeze(1) == 0, subsets[0], subsets[1])
    shown = torch.stack((subsets[0], subsets[1], asked))
    spikes = correlated_spikes(shown.flatten(0, 1), seq_length, rate, correlation, dt, generator)
    spikes = spikes.unflatten(1, (3, batch_size))
    return Episodes(subsets, spikes[:, :2].transpose(0, 1), spikes[:, 2], answer)


def random_subsets(batch_size: int, channels: int, subset: int, generator: Generator | None = None) -> Tensor:
    """Two disjoint random subsets of ``subset`` channels for each episode, bool ``[2, batch_size, channels]``.

    Raises:
        ValueError: ``subset`` is not positive, or there are fewer than two times as many channels.
    """
    if not 0 < 2 * subset <= channels:
        raise ValueError(f"two subsets of {subset} channels do not fit into {channels} channels")
    place = torch.rand(batch_size, channels, generator=generator).argsort(1)
    return torch.stack((place < subset, (place >= subset) & (place < 2 * subset)))


def correlated_spikes(
    subset: Tensor,
    seq_length: int,
    rate: float,
    correlation: float,
    dt: float = 0.001,
    generator: Generator | None = None,
) -> Tensor:
    """Poisson spike trains; those of a subset tend to spike in the same steps.

    ::

        count[b, m]    ~ Binomial(seq_length, rate dt)              independent of everything
        score[t, b, m] = shared[t, b]    with probability correlation, if subset[b, m]
                         own[t, b, m]    otherwise                  shared, own ~ Uniform(0, 1)
        spikes         = 1 in the count[b, m] steps of lowest score

    Alone, every train is a Poisson process in discrete time (Bernoulli in every step), whether it is in the
    subset or not. The numbers of spikes are independent of the subset and of one another, so that rates over
    the whole train carry nothing about the subset, neither in their means nor in their covariance. With
    independent events copied from a Poisson "mother" train (Kuhn, Aertsen & Rotter 2003) the numbers of spikes
    in a subset would vary together.

    Parameters:
        subset: which channels are correlated, bool ``[B, M]``.
        seq_length: number of steps T.
        rate: mean rate of every channel in Hz.
        correlation: probability with which a correlated channel takes the shared score, in [0, 1].
        dt: time step in s.
        generator: where random numbers come from.

    Returns:
        Spikes, 0 or 1, ``[T, B, M]``.

    Raises:
        ValueError: ``rate * dt`` or ``correlation`` is no probability, or ``seq_length`` no positive integer.
    """
    seq_length = checked_length("seq_length", seq_length)
    if not 0 <= rate * dt <= 1:
        raise ValueError(f"rate * dt must be a probability in [0, 1], got rate={rate}, dt={dt}")
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation must be in [0, 1], got correlation={correlation}")
    shape = (seq_length, *subset.shape)
    count = (torch.rand(shape, generator=generator) < rate * dt).sum(0)
    copies = (torch.rand(shape, generator=generator) < correlation) & subset
    shared = torch.rand(seq_length, len(subset), 1, generator=generator)
    score = torch.where(copies, shared, torch.rand(shape, generator=generator))
    most = max(1, int(count.max())) if count.numel() else 1
    lowest = score.topk(most, 0, largest=False, sorted=True).indices
    taken = torch.arange(most).view(-1, 1, 1) < count
    return torch.zeros(shape).scatter_(0, lowest, taken.float())


def without_timing(spikes: Tensor, generator: Generator | None = None) -> Tensor:
    """The same number of spikes in each train ``spikes[:, b, m]``, at random times: its rate alone."""
    return spikes.gather(0, torch.rand(spikes.shape, generator=generator).argsort(0).to(spikes.device))
