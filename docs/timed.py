"""Layers forward and backward, timed in turn in one process, for the scripts that print tables of pages."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch import Tensor

__all__ = ["in_turn"]


def in_turn(
    runs: Mapping[str, Callable[[Tensor], Tensor]], x: Tensor, gradient: Tensor, passes: int, before: int
) -> dict[str, tuple[float, float]]:
    """Medians of the times forward and backward, in ms.

    Parameters:
        runs: by name, what gives an output of an input.
        x: the input, whose gradient is taken too.
        gradient: of the output.
        passes: that are counted.
        before: passes that are not.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(before + passes):
        for name, run in runs.items():
            times = _timed(run, x, gradient)
            taken[name] += [times] if turn >= before else []
    return {name: (median(t[0] for t in own), median(t[1] for t in own)) for name, own in taken.items()}


def _timed(run: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> tuple[float, float]:
    leaf = x.detach().requires_grad_()
    start = _clock(x)
    output = run(leaf)
    half = _clock(x)
    output.backward(gradient)
    return 1e3 * (half - start), 1e3 * (_clock(x) - half)


def _clock(x: Tensor) -> float:
    """The time in s, when a GPU has done what it was told."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()
