"""Memory of a process on the CPU, kept for the next step of training."""

import ctypes

__all__ = ["keep_memory"]

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
