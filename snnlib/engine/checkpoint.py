"""Long sequences a few steps at a time, and what lies between computed again on the way back if asked."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

from snnlib.engine.check import checked_part
from snnlib.engine.watched import is_exported

__all__ = ["in_chunks"]


def in_chunks(
    run: Callable[[Tensor, Any], tuple[Any, Any]],
    input: Tensor,
    state: Any,
    every: int | None,
    exact: bool = False,
    again: bool = True,
) -> tuple[Any, Any]:
    """``run(input, state)`` by chunks of ``every`` steps, of which only the states between them are kept.

    The backward pass runs each chunk forward again, the last one first. Gradients are those of the whole
    sequence. For T steps a neuron keeps its state T / every times, and for one chunk at a time what ``run``
    saves in ``every`` steps: least memory at about the square root of T. Input and output stay as they are,
    and forward is computed twice.

    With ``again=False`` all is kept and nothing is computed twice; but what ``run`` makes and forgets is never
    larger than a chunk.

    Parameters:
        run: ``(input, state) -> (output, state)`` over time; output may be a list of tensors.
        input: ``[T, B, *features]``.
        state: before the first step; None if ``run`` knows where to start.
        every: steps in a chunk; None runs the whole at once.
        exact: whether the adjoint is among what runs.
        again: whether to forget what is between the states, and compute it again.

    Raises:
        ValueError: ``every`` is no positive integer.
        RuntimeError: torch.compile meets the adjoint, whose chunks it would not connect.

    Source: Chen et al. 2016, arXiv:1604.06174; by :func:`torch.utils.checkpoint.checkpoint`.
    """
    name = "checkpoint_every" if again else "chunk_size"
    every = checked_part(name, every)
    if every is None or len(input) <= every or (again and (not torch.is_grad_enabled() or is_exported())):
        return run(input, state)
    if exact and torch.compiler.is_dynamo_compiling():
        raise RuntimeError(
            f"method='adjoint' with {name} carries a gradient from chunk to chunk, which "
            "torch.compile cannot follow; leave the layer out with torch.compiler.disable, or the option"
        )
    outputs = []
    for part in input.split(every):
        output, state = checkpoint(run, part, state, use_reentrant=False) if again else run(part, state)
        outputs.append(output)
    return tree_map(lambda *parts: torch.cat(parts), *outputs), state
