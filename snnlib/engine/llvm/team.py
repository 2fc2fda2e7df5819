"""Several calls of loops at once, in the threads that torch has.

torch's operators share their work among threads of OpenMP, which stay awake for some milliseconds after each,
for the next one. Threads beside those take turns with them on the same cores: what runs after a convolution
takes half as long again. So the calls are given to OpenMP too, as a function of machine code: threads of Python
would wait for each other before they begin.
"""

import ctypes
import functools
import os
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from snnlib.engine.llvm.machine import Call, team

__all__ = ["together"]


def together(calls: Sequence[Call]) -> None:
    """Make each of ``calls``, one of them in this thread."""
    if len(calls) <= 1:
        for call in calls:
            call()
    elif os.getpid() == _FIRST_PROCESS and (openmp := _openmp()) is not None:
        _in_team(openmp, calls)
    else:  # in a forked process OpenMP would wait for ever, for threads that are not there
        others = [_pool(len(calls)).submit(call.__call__) for call in calls[1:]]
        calls[0]()
        for other in others:
            other.result()


def _in_team(openmp: "_OpenMP", calls: Sequence[Call]) -> None:
    data = [len(calls), *openmp.of_threads]
    for call in calls:
        data += [_where(call.function), *call.pointers]
    told = array("q", data)
    # as a compiler calls it for "#pragma omp parallel num_threads(n)"; a team may be smaller than was asked for
    openmp.parallel(team(), told.buffer_info()[0], len(calls), 0)


def _where(function: Any) -> int:
    """The address of a function that ctypes knows."""
    return ctypes.c_void_p.from_buffer(function).value or 0


class _OpenMP(NamedTuple):
    """The library with which torch came here."""

    parallel: Any
    """Its function ``GOMP_parallel``."""
    of_threads: tuple[int, ...]
    """Where its functions are that give the number of a thread in its team, and how many are in it."""


@functools.cache
def _openmp() -> _OpenMP | None:
    """None where there is none that GCC's code could call."""
    try:
        process = ctypes.CDLL(None)
        parallel = process.GOMP_parallel
        functions = [process.omp_get_thread_num, process.omp_get_num_threads]
    except (AttributeError, OSError, TypeError):
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return _OpenMP(parallel, tuple(map(_where, functions)))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="snnlib")


_FIRST_PROCESS = os.getpid()
os.register_at_fork(after_in_child=_pool.cache_clear)
