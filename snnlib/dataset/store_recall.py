"""Store and recall: sequences of symbols, one of which is to be kept until it is asked for."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from snnlib.engine.check import check_parameters

__all__ = ["NO_RECALL", "STREAMS", "StoreRecall", "Trials", "draw_trials", "steps_in_a_period"]

NO_RECALL = -1
"""The target of a period in which nothing is asked."""

STREAMS = ("train", "valid", "test")
"""Sets of one seed that share no random number."""


class Trials(NamedTuple):
    """A batch of sequences of P periods with S time steps each."""

    spikes: Tensor
    """``[P S, B, 4 N]``, 0.0 or 1.0: N neurons each for symbol 0, symbol 1, STORE and RECALL."""
    target: Tensor
    """``[P, B]``, int64: the symbol to recall in that period, or :data:`NO_RECALL`."""
    delay: Tensor
    """``[P, B]``, int64: periods since the STORE, where one is recalled; 0 elsewhere."""


def draw_trials(
    batch_size: int,
    periods: int,
    period: float,
    expected_delay: float,
    population_size: int,
    poisson_rate: float,
    dt: float,
    generator: Generator,
) -> Trials:
    """Sequences of symbols 0 and 1, spoken by Poisson neurons, with the commands STORE and RECALL in between.

    A period shows a random symbol. With probability ``1 / expected_delay`` it also holds a command: STORE, then
    RECALL, then STORE again. RECALL comes without a symbol, and asks for the one that the last STORE came with.
    A sequence without RECALL is drawn again. Delays are geometric, but for what the sequence's end cuts off.
    Neurons of a population that is on spike at ``poisson_rate``, others never.

    Parameters:
        batch_size: sequences B.
        periods: symbols P in a sequence.
        period: how long each is shown, s.
        expected_delay: mean periods from STORE to RECALL, and from RECALL to the next STORE.
        population_size: neurons N of each of the four populations.
        poisson_rate: of a neuron that is on, Hz.
        dt: time step, s; the period is rounded to whole steps.
        generator: where the random numbers come from; its device is where the trials are.

    Raises:
        ValueError: a number has a value that allows no trial.

    Source:
        Bellec et al. 2018, Long short-term memory and learning-to-learn in networks of spiking neurons;
        Salaj et al. 2021, Spike frequency adaptation supports network computations on temporally dispersed
        information.
    """
    steps = steps_in_a_period(periods, period, expected_delay, poisson_rate, dt)
    device = generator.device
    command = _draw_commands(batch_size, periods, 1.0 / expected_delay, generator)
    store, recall = command == 1, command == 2
    symbol = torch.randint(2, (periods, batch_size), device=device, generator=generator)

    now = torch.arange(periods, device=device)[:, None]
    stored_at = torch.where(store, now, 0).cummax(0).values
    target = torch.where(recall, symbol.gather(0, stored_at), NO_RECALL)
    delay = torch.where(recall, now - stored_at, 0)

    # [P, 1, B, kind, which of two, 1]: of each kind, symbol and command, at most one population is on
    shown = torch.stack([symbol == 0, symbol == 1], -1) & ~recall[..., None]
    on = torch.stack([shown, torch.stack([store, recall], -1)], -2)[:, None, ..., None]
    shape = (periods, steps, batch_size, 2, 1, population_size)
    fired = torch.rand(shape, device=device, generator=generator) < dt * poisson_rate
    spikes = (fired & on).reshape(periods * steps, batch_size, 4 * population_size)
    return Trials(spikes.float(), target, delay)


def _draw_commands(batch_size: int, periods: int, probability: float, generator: Generator) -> Tensor:
    """``[P, B]``: 1 at STORE, 2 at RECALL, 0 elsewhere; every sequence has both."""
    command = torch.zeros(periods, batch_size, dtype=torch.int64, device=generator.device)
    missing = torch.ones(batch_size, dtype=torch.bool, device=generator.device)
    while missing.any():
        draw = torch.rand(periods, int(missing.sum()), device=generator.device, generator=generator)
        given = draw < probability
        nth = given.cumsum(0)  # they alternate: odd ones store, even ones recall
        command[:, missing] = torch.where(given, 2 - nth % 2, 0)
        missing = (command != 2).all(0)
    return command


def steps_in_a_period(
    periods: int, period: float, expected_delay: float, poisson_rate: float, dt: float
) -> int:
    """Time steps in a period of :func:`draw_trials`.

    Raises:
        ValueError: no trial can be drawn with these numbers.
    """
    if periods < 2:
        raise ValueError(f"a sequence needs at least 2 periods to store and to recall, got periods={periods}")
    # beyond that nearly all sequences would be drawn in vain
    if not 1 <= expected_delay <= 10 * periods:
        raise ValueError(
            f"expected_delay must be from 1 to {10 * periods} for {periods} periods, got {expected_delay}"
        )
    check_parameters(None, dt)
    steps = round(period / dt) if math.isfinite(period / dt) else 0
    if steps < 1:
        raise ValueError(f"a period must last at least one time step, got period={period} with dt={dt}")
    if steps * periods >= 2**32:
        raise ValueError(f"a trial must have less than 2**32 time steps, got period={period} with dt={dt}")
    if not 0 <= dt * poisson_rate <= 1:
        raise ValueError(f"dt * poisson_rate must be a probability, got dt={dt}, poisson_rate={poisson_rate}")
    return steps


class StoreRecall(Dataset[Trials]):
    """Batches of :func:`draw_trials`; batch i depends on the seed, the stream and i alone.

    Parameters:
        batches: how many there are.
        seed: at least 0.
        stream: which of :data:`STREAMS`; no two of them, and no two batches, start from the same random number.
        device: where trials are drawn.
        trials: the arguments of :func:`draw_trials` but for the generator.

    Raises:
        ValueError: the seed or the stream is none.
    """

    def __init__(
        self,
        batches: int,
        seed: int,
        stream: str,
        device: torch.device | str = "cpu",
        **trials: float,
    ) -> None:
        if stream not in STREAMS:
            raise ValueError(f"stream must be one of {STREAMS}, got stream={stream!r}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got seed={seed}")
        self.batches, self.seed, self.stream = batches, seed, stream
        self.device, self.trials = torch.device(device), trials

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Trials:
        if not 0 <= index < self.batches:
            raise IndexError(f"batch {index} of {self.batches}")
        # torch's generator on the CPU takes 32 bits of a seed
        start = int(np.random.SeedSequence(self.seed).generate_state(1)[0])
        own = (start + index * len(STREAMS) + STREAMS.index(self.stream)) % 2**32
        generator = torch.Generator(self.device).manual_seed(own)
        return draw_trials(generator=generator, **self.trials)  # type: ignore[arg-type]
