"""What backends make of their arguments before a loop runs, and the memory for what it gives."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from snnlib.engine.program import Traced

__all__ = ["outputs", "own", "still", "wide"]


def still(input: Tensor) -> tuple[Tensor, int]:
    """An input that stays the same over time as one row, and 0; another one as it is, and 1."""
    moves = input.stride(0) != 0 or input.shape[0] <= 1
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
    dtype: torch.dtype,
    new: Callable[[Sequence[int], torch.dtype], Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """Memory for the output of a sequence, and for what is saved of it.

    Parameters:
        shape: of the output.
        dtype: of the state.
        new: makes memory.
    """
    rows = traced.rows_before + shape[0], *shape[1:]
    return new(shape, dtype), [new(rows, kind) for kind in traced.types_of_saved(dtype)]
