"""Every random state of a process, and seeds for what has one of its own."""

import random
from typing import Any, cast

import numpy as np
import torch

__all__ = ["own_seed", "random_state", "set_random_state"]


def own_seed(seed: int, what: str, number: int = 0) -> int:
    """The seed of one thing, and of a number of it, in a run with ``seed``.

    It has 32 bits: torch's generator on the CPU takes no more of a seed, and 2**32 + 5 would be 5.
    """
    return int(np.random.SeedSequence([seed, number, *what.encode()]).generate_state(1)[0])


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
