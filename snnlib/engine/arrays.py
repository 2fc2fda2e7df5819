"""What backends make of their arguments before a loop runs, and the memory for what it gives."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from snnlib.engine.program import Traced

__all__ = ["outputs", "own", "still", "wide"]


def still(input: Tensor) -> tuple[Tensor, int]:
    """An input that stays the same over time as one row, and 0; another one as it is, and 1."""
    moves = input.stride(0) != 0 or len(input) <= 1
    return (input if moves else input[:1]).contiguous(), int(moves)


def own(states: Sequence[Tensor]) -> list[Tensor]:
    """Copies, which the loop writes to."""
    return [value.clone(memory_format=torch.contiguous_format) for value in states]


def wide(parameters: Sequence[Tensor], shape: torch.Size) -> list[Tensor]:
    """One value for each neuron."""
    return [value.expand(shape).contiguous() for value in parameters]


def outputs(
    traced: Traced,
    shape: Sequence[int],
    states: Sequence[Tensor],
    new: Callable[[Sequence[int], torch.dtype], Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """Memory for the output of a sequence, and for what is saved of it, with what lies before the first step.

    Parameters:
        shape: of the output.
        states: before the first step, without an output that returns.
        new: makes memory.
    """
    dtype = states[0].dtype
    rows = traced.rows_before + shape[0], *shape[1:]
    kept = [new(rows, kind) for kind in traced.types_of_saved(dtype)]
    if traced.slot is not None:
        kept[0][0] = states[traced.slot]
    return new(shape, dtype), kept
