"""Several pieces of work at once, in the threads that torch has.

torch's operators share their work among threads of OpenMP, which stay awake for some milliseconds after each,
for the next one. Threads beside those take turns with them on the same cores: what runs after a convolution
takes half as long again. So the pieces are given to OpenMP too.
"""

import ctypes
import functools
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

__all__ = ["lock", "shares_of", "together"]

_Piece = Callable[[], None]

_WORTH = 1 << 15
"""Time steps times neurons, or numbers as dear as these, for which a further thread is woken."""
_TEAM = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def lock() -> threading.Lock:
    """A lock that is open in a process that was forked while another thread held it."""
    made = threading.Lock()
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
    units = -(-count // unit)
    threads = max(1, min(torch.get_num_threads(), units, worth // _WORTH))
    return list(itertools.pairwise([min(count, units * k // threads * unit) for k in range(threads + 1)]))


def together(pieces: Sequence[_Piece]) -> None:
    """Call each of ``pieces``, one of them in this thread.

    Raises:
        BaseException: what the first one that failed raised, when all have ended.
    """
    if len(pieces) <= 1:
        for piece in pieces:
            piece()
    elif os.getpid() == _FIRST_PROCESS and (openmp := _openmp()) is not None:
        _in_team(openmp, pieces)
    else:  # in a forked process OpenMP would wait for ever, for threads that are not there
        others = [_pool(len(pieces)).submit(piece) for piece in pieces[1:]]
        errors: list[BaseException] = []
        for wait in (pieces[0], *(other.result for other in others)):
            try:
                wait()
            except BaseException as error:
                errors.append(error)
        if errors:
            raise errors[0]


def _in_team(openmp: Any, pieces: Sequence[_Piece]) -> None:
    errors: list[BaseException] = []

    def work(_: Any) -> None:
        # a team may be smaller than was asked for
        for k in range(openmp.omp_get_thread_num(), len(pieces), openmp.omp_get_num_threads()):
            try:
                pieces[k]()
            except BaseException as error:
                errors.append(error)

    # as a compiler calls it for "#pragma omp parallel num_threads(n)"
    openmp.GOMP_parallel(_TEAM(work), None, len(pieces), 0)
    if errors:
        raise errors[0]


@functools.cache
def _openmp() -> Any:
    """The library with which torch came here, or None where there is none that GCC's code could call."""
    try:
        process = ctypes.CDLL(None)
        for name in ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads"):
            getattr(process, name)
    except (AttributeError, OSError, TypeError):
        return None
    process.GOMP_parallel.argtypes = [_TEAM, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    process.GOMP_parallel.restype = None
    return process


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="snnlib")


_FIRST_PROCESS = os.getpid()
os.register_at_fork(after_in_child=_pool.cache_clear)
