"""Batches: how an epoch is cut into them, and those that Lightning's trainer is given."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from absl import flags
from torch import Tensor

from snnlib.task._flags import fail
from snnlib.task._processes import place
from snnlib.task._random import own_seed

__all__ = ["Batches", "batch_sizes", "fetcher", "refuse_single_images"]


def batch_sizes(count: int, size: int) -> list[int]:
    """How many of ``count`` examples each batch has.

    A last one alone joins the batch before it: where there is one time step batch norms need two.
    """
    whole, rest = divmod(count, size)
    sizes = [size] * whole + [rest] * (rest > 0)
    return [*sizes[:-2], size + 1] if rest == 1 < size and whole else sizes


def refuse_single_images(values: flags.FlagValues) -> None:
    """End the process where a batch norm would be trained with one image at one time step."""
    if values.batch_size == values.seq_length == 1:
        fail("--batch_size=1 with --seq_length=1: batch norms need two images or two time steps", code=2)


def fetcher(module: Any, part: str) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """From indices to examples and labels of a part of ``module.data``, on the device that holds them."""

    def fetch(index: Tensor) -> tuple[Tensor, Tensor]:
        x, y = getattr(module.data, f"x_{part}"), getattr(module.data, f"y_{part}")
        return x[index.to(x.device)], y[index.to(y.device)]

    return fetch


class Batches:
    """Batches of examples that are fetched by their index, in a new order every epoch, or in their own.

    The order follows from the seed and the epoch alone, so that where a run stands is two numbers. Of several
    processes that train one net each takes its share of a batch, which is ``batch_size`` a process.

    Parameters:
        fetch: from indices ``[n]`` to the examples.
        count: number of examples in an epoch.
        batch_size: examples a process is given at once; the last batch of an epoch has what is left.
        seed: of the order; None keeps the examples in their own.
        limit: part of the batches, up to 1, or how many, above 1.
        fresh: whether examples are never seen again: those of epoch e begin at ``e * count``.
    """

    def __init__(
        self,
        fetch: Callable[[Tensor], Any],
        count: int,
        batch_size: int,
        seed: int | None = None,
        limit: float = 1.0,
        fresh: bool = False,
    ) -> None:
        self.fetch, self.count, self.batch_size, self.seed, self.fresh = fetch, count, batch_size, seed, fresh
        self.limit = limit
        self.epoch, self.done, self._goes_on = -1, 0, False

    def __len__(self) -> int:
        whole = len(self._sizes())
        return max(1, round(whole * self.limit)) if self.limit <= 1.0 else min(whole, int(self.limit))

    def _sizes(self) -> list[int]:
        """Examples of each batch, for all processes together."""
        size = self.batch_size * place()[1]
        if self.seed is not None and not self.fresh:
            return batch_sizes(self.count, size)
        return [min(size, self.count - first) for first in range(0, self.count, size)]

    def __iter__(self) -> Iterator[Any]:
        if not self._goes_on:
            self.epoch, self.done = self.epoch + 1, 0
        self._goes_on = False
        rank, processes = place()
        order = self._order()
        parts = order.split(self._sizes())
        while self.done < len(self):
            chosen = parts[self.done]
            training = self.seed is not None or self.fresh
            if training and len(chosen) % processes:  # all must take equal steps
                chosen = torch.cat([chosen, order])[: -(-len(chosen) // processes) * processes]
            self.done += 1
            yield self.fetch(chosen[rank::processes])  # of none, it may be: all must take as many batches

    def _order(self) -> Tensor:
        if self.fresh:
            return torch.arange(self.count) + self.epoch * self.count
        if self.seed is None:
            return torch.arange(self.count)
        generator = torch.Generator().manual_seed(own_seed(self.seed, "order", self.epoch))
        return torch.randperm(self.count, generator=generator)

    @property
    def place(self) -> list[int]:
        """Epoch and batches of it that were given: where a resumed run goes on.

        Not a ``state_dict``: what Lightning 2.6 finds under that name it restores only now and then.
        """
        return [self.epoch, self.done]

    @place.setter
    def place(self, value: list[int]) -> None:
        self.epoch, self.done = value
        self._goes_on = self.epoch >= 0 and self.done < len(self)
