"""What modules ask of time and state, and Lift, which runs over a sequence what takes single steps."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from snnlib.functional.lift import step_by_step

__all__ = ["Lift", "batched", "is_stateful", "refuse_lost_state", "time_of"]


def is_stateful(module: nn.Module) -> bool:
    """Whether ``forward`` takes a state and returns it; torch's own recurrent layers do."""
    if isinstance(module, Lift):
        return is_stateful(module.lifted)
    return isinstance(module, nn.RNNBase) or _takes_state(type(module).forward)


@functools.cache
def _takes_state(forward: Callable[..., Any]) -> bool:
    return "state" in inspect.signature(forward).parameters


def time_of(module: nn.Module) -> bool | None:
    """Whether a module takes sequences, takes single steps, or has no opinion (it holds no state)."""
    if isinstance(module, nn.RNNBase):
        if module.batch_first:
            raise ValueError(f"{type(module).__name__} must not be batch_first: time comes first here")
        return True
    return getattr(module, "over_time", None)


def refuse_lost_state(name: str, module: nn.Module) -> None:
    """A container of torch's own hands no state on, and knows no time."""
    if is_stateful(module):
        return
    inner = [m for m in module.modules() if m is not module]
    stateful = [m for m in inner if is_stateful(m)]
    if stateful:
        raise ValueError(
            f"module {name} ({type(module).__name__}) would drop the state of the "
            f"{type(stateful[0]).__name__} inside it; use SequentialState in its place"
        )
    timed = [m for m in inner if getattr(m, "over_time", None)]
    if timed and not time_of(module):
        raise ValueError(
            f"module {name} ({type(module).__name__}) would run over [T*B, *features], and the "
            f"{type(timed[0]).__name__} inside it needs to see time; use SequentialState in its place"
        )


_RANDOM = (
    *(nn.modules.dropout._DropoutNd, nn.RReLU),
    *(nn.FractionalMaxPool2d, nn.FractionalMaxPool3d),
)
"""Modules of torch's that draw numbers in training."""


def batched(module: nn.Module, x: Tensor, once: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Run a module without time over ``[T, B, ...]`` in one call.

    Parameters:
        once: the one step that ``x`` repeats, if a module before this one made it.

    Returns:
        Its output, and the one step that this repeats, if it does. The way back from ``x[0]`` would fill a
        whole sequence with zeros, and add its steps up again.
    """
    steps, batch = x.shape[:2]
    random = any(isinstance(m, _RANDOM) for m in module.modules())
    if steps > 1 and x.stride(0) == 0 and not (random and module.training):
        y: Tensor = module(x[0] if once is None else once)
        return _repeated(y, steps), y
    return module(x.flatten(0, 1)).unflatten(0, (steps, batch)), None


def _repeated(y: Tensor, steps: int) -> Tensor:
    """``y.expand(steps, ...)``, whose gradient lies in memory as ``y`` does."""
    if y.dim() == 4 and y.is_contiguous(memory_format=torch.channels_last):
        return y.movedim(1, -1).expand(steps, -1, -1, -1, -1).movedim(-1, 2)
    return y.expand(steps, *y.shape)


class Lift(nn.Module):
    """Run a module that takes single steps over a sequence.

    ::

        output, state = Lift(cell)(input, state)        a module with a state, step after step
        output, state = Lift(cell)((input, state))      the same, as Norse takes it
        output = Lift(conv)(input)                      one without, once over [T*B, ...]

    Parameters:
        module: a cell, a SequentialState of cells, or a module without a state.

    Shapes:
        input ``[T, B, *features]``, output ``[T, B, *features]``.

    Raises:
        ValueError: ``module`` takes sequences already.
    """

    over_time = True

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        if time_of(module):
            raise ValueError(f"{type(module).__name__} takes sequences already, Lift is for single steps")
        refuse_lost_state("lifted", module)
        self.lifted = module

    def forward(self, input: Tensor | tuple[Tensor, Any], state: Any = None) -> Any:
        if isinstance(input, tuple):
            input, state = input
        if not is_stateful(self.lifted):
            return batched(self.lifted, input)[0]
        return step_by_step(self.lifted, input, state)
