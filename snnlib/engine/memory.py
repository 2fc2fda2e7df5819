"""Memory of a process on the CPU: for a sequence, and kept for the next step of training."""

import ctypes
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from snnlib.engine.llvm.machine import NUMBER
from snnlib.engine.sizes import LINE

__all__ = ["empty", "keep_memory", "on_cpu", "zeros_on_cpu"]

_LARGE = 1 << 22
"""Bytes from which NumPy's memory is on large pages."""

# of mallopt(3); glibc's <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_memory() -> bool:
    """Let this process keep the memory that it frees, for the tensors of its next step.

    The C library hands large blocks back to the system, which clears each page anew when it is asked again: for
    the tensors of a sequence that can take as long as the arithmetic. What was once needed stays with the
    process until it ends. Tasks call this; in a script of your own, call it first of all.

    Returns:
        Whether the C library offers it, as glibc does; musl, macOS and Windows do not.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory for a sequence. NumPy asks the system for large pages, of which fewer are to be made ready."""
    count = math.prod(shape)
    if count * dtype.itemsize < _LARGE or torch.are_deterministic_algorithms_enabled():
        return on_cpu(*shape, dtype=dtype)
    numbers = torch.from_numpy(np.empty(count + LINE // dtype.itemsize, NUMBER[dtype]))
    first = -numbers.data_ptr() % LINE // dtype.itemsize  # where a vector lies in one line of the cache
    return numbers[first : first + count].view(shape)


def on_cpu(*shape: int, dtype: torch.dtype) -> Tensor:
    """Memory on the CPU, whatever torch's default device is: a loop writes to it by its address."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def zeros_on_cpu(*shape: int, dtype: torch.dtype) -> Tensor:
    """The same, set to zero."""
    return torch.zeros(shape, dtype=dtype, device="cpu")
