"""A few letters that tell data sets apart, so that a run goes on with the one that it began with."""

import hashlib
from typing import Any

from torch import Tensor

__all__ = ["digest"]

_SAMPLES = 100
"""How many images or clips of each part are read: all of them would take seconds."""


def digest(data: tuple[Any, ...]) -> str:
    """What tells a data set from others: shapes, every label, some images or clips, and what else it has.

    Parameters:
        data: such as :class:`snnlib.dataset.images.Images`.
    """
    found = hashlib.sha256()
    for value in data:
        if isinstance(value, Tensor):
            found.update(f"{value.dtype} {[*value.shape]}".encode())
            some = value if value.dim() == 1 else value[:: max(1, len(value) // _SAMPLES)]
            found.update(some.cpu().contiguous().numpy().tobytes())
        else:
            found.update(repr(value).encode())
    return found.hexdigest()[:16]
