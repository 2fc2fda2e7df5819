"""Every random state of a process."""

import random
from typing import Any, cast

import numpy as np
import torch

__all__ = ["random_state", "set_random_state"]


def random_state() -> dict[str, Any]:
    """Every random state of the process, as plain values and tensors."""
    kind, keys, *rest = cast(tuple[Any, ...], np.random.get_state())
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": [kind, keys.tolist(), *rest],
        "python": [version, list(numbers), gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set every random state to what :func:`random_state` gave."""
    torch.set_rng_state(state["torch"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, at, *rest = state["numpy"]
    if not 0 <= at <= len(keys):  # NumPy would read beyond them
        raise ValueError(f"numpy[2] must be 0 to {len(keys)}, got {at}")
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), at, *rest))
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
