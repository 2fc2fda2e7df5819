"""How work is shared among threads, and what lets only one of them in."""

import itertools
import os
import threading
from contextlib import AbstractContextManager
from typing import Any

import torch

__all__ = ["DEAR", "lock", "shared_by", "shares_of"]

_WORTH = 1 << 17
"""Time steps times neurons for which a further thread is woken."""
DEAR = 4
"""How many of these a number counts for that is a product with weights."""


def lock() -> AbstractContextManager[Any]:
    """A lock that is open in a process that was forked while another thread held it.

    Who holds it may enter again: a step that is traced may run another one.
    """
    made = threading.RLock()
    os.register_at_fork(after_in_child=made._at_fork_reinit)  # type: ignore[attr-defined]
    return made


def shares_of(worth: int, count: int, unit: int) -> list[tuple[int, int]]:
    """What is for this thread and for as many more as torch may use and the work is worth: first and end.

    Parameters:
        worth: time steps times neurons.
        count: how many there are to share, neurons or samples.
        unit: how many of them stay together.
    """
    if not worth:
        return []
    threads = max(1, min(torch.get_num_threads(), -(-count // unit), worth // _WORTH))
    return shared_by(threads, count, unit)


def shared_by(threads: int, count: int, unit: int) -> list[tuple[int, int]]:
    """The same for so many threads, each of which has a unit at least, or for none."""
    if not threads:
        return []
    units = -(-count // unit)
    return list(itertools.pairwise([min(count, units * k // threads * unit) for k in range(threads + 1)]))
