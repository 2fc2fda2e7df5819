"""What modules ask of time and state, and Lift, which runs over a sequence what takes single steps."""

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from snnlib.engine.check import check_dense, warn
from snnlib.engine.watched import UntilDrawn, is_followed, is_recorded
from snnlib.functional.lift import step_by_step
from snnlib.module.encode import ConstantCurrentLIFEncoder, PoissonEncoder

__all__ = ["Lift", "batched", "is_stateful", "refuse_misfit", "time_of"]


def is_stateful(module: nn.Module) -> bool:
    """Whether ``forward`` takes a state and returns it; torch's own recurrent layers do."""
    if isinstance(module, Lift):
        return is_stateful(module.lifted)
    return isinstance(module, nn.RNNBase) or "state" in _arguments(type(module).forward)


@functools.cache
def _arguments(forward: Callable[..., Any]) -> dict[str, bool]:
    """What it takes by name beside itself, and whether it has to be given."""
    named = [a for a in inspect.signature(forward).parameters.values() if a.kind not in _MANY]
    return {a.name: a.default is a.empty for a in named[1:]}


@functools.cache
def _needed(forward: Callable[..., Any]) -> tuple[str, ...]:
    """What it has to be given beside a state."""
    return tuple(name for name, needed in _arguments(forward).items() if needed and name != "state")


_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def time_of(module: nn.Module) -> bool | None:
    """Whether a module takes sequences, takes single steps, or has no opinion (it holds no state)."""
    if isinstance(module, nn.RNNBase):
        if module.batch_first:
            raise ValueError(f"{type(module).__name__} must not be batch_first: time comes first here")
        return True
    return getattr(module, "over_time", None)


def refuse_misfit(name: str, module: nn.Module) -> None:
    """Refuse what cannot stand in a chain: it takes more than one tensor, it attends over what to it is one
    sequence, or what is inside it cannot be there.

    A container of torch's own hands no state on, and knows no time.
    """
    needed = _needed(type(module).forward)
    if len(needed) > 1:
        taken = " and ".join(needed)
        raise ValueError(f"{_who(name, module)} takes {taken}, a chain hands it one tensor; call it by itself")
    if is_stateful(module):
        return
    if isinstance(module, nn.RNNCellBase):
        whole = type(module).__name__.removesuffix("Cell")
        raise ValueError(
            f"{_who(name, module)} would lose its state, which it calls hx; use nn.{whole} for a sequence, or "
            "a module whose forward takes a state and returns (output, state)"
        )
    inner = [m for m in module.modules() if m is not module]
    stateful = [m for m in inner if is_stateful(m)]
    if stateful:
        way_out = "call it by itself, or let its forward take a state and return (output, state)"
        if isinstance(module, nn.Sequential):
            way_out = "use SequentialState in its place"
        lost = type(stateful[0]).__name__
        raise ValueError(f"{_who(name, module)} would drop the state of the {lost} inside it; {way_out}")
    timed = [m for m in inner if getattr(m, "over_time", None)]
    if timed and not time_of(module):
        seer = type(timed[0]).__name__
        raise ValueError(
            f"{_who(name, module)} would run over [T*B, *features], and the {seer} inside it needs to see "
            "time; use SequentialState in its place, or set over_time = True on it"
        )
    if not time_of(module) and any(map(_attends_over_rows, inner)):
        _refuse_mixing(name, module)


def _refuse_mixing(name: str, module: nn.Module) -> None:
    """Refuse attention over rows in torch's own modules; others may turn them round and are warned of."""
    if any(map(_attends_over_rows, _given_rows(module))):
        raise _mixing(name, module)
    if module not in _WARNED:
        _WARNED.add(module)
        warn(
            f"{_who(name, module)} has attention without batch_first=True and is given rows [T*B, ...], of all "
            "samples and steps: it must turn them round itself, or it attends over them; with batch_first=True "
            "it need not, and to attend over time set over_time = True on it"
        )


_WARNED: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Modules that were warned of: chains look at theirs before each run."""


def _attends_over_rows(module: nn.Module) -> bool:
    return isinstance(module, nn.MultiheadAttention) and not module.batch_first


def _given_rows(module: nn.Module) -> Iterator[nn.Module]:
    """A module of torch's and those inside it that are given its rows as they are."""
    if type(module).__module__.startswith("torch.nn."):
        yield module
        for child in module.children():
            yield from _given_rows(child)


def _mixing(name: str, module: nn.Module) -> ValueError:
    return ValueError(
        f"{_who(name, module)} would attend over rows [T*B, ...], of all samples and steps: to attend over "
        "time set over_time = True on it, which is then given [T, B, *features]; to attend within a step "
        "give it batch_first=True and an input [T, B, tokens, features]"
    )


def _who(name: str, module: nn.Module) -> str:
    return f"module {name} ({type(module).__name__})"


_RANDOM_IN_TRAINING = (nn.modules.dropout._DropoutNd, nn.RReLU)
_RANDOM = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d, nn.modules.lazy.LazyModuleMixin)
"""Modules of torch's that draw numbers, the first two in training and the others always; lazy ones weights."""


def _is_random(module: nn.Module) -> bool:
    return isinstance(module, _RANDOM) or (isinstance(module, _RANDOM_IN_TRAINING) and module.training)


def batched(
    name: str, module: nn.Module, x: Tensor, once: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Run a module without time over ``[T, B, ...]`` in one call.

    Parameters:
        name: of the module, for what is said where it cannot be run so.
        once: the one step that ``x`` repeats, if a module before this one made it.

    Returns:
        Its output, and the one step that this repeats, if it does. The way back from ``x[0]`` would fill a
        whole sequence with zeros, and add its steps up again.

    Raises:
        ValueError: the module does not keep dimension 0, or there is no batch, of which the module would take
            features for samples.
    """
    check_dense(x)
    if x.dim() < 6:  # as many as a Conv3d wants
        _refuse_unbatched(name, module, x)
    steps, batch = x.shape[:2]
    if steps > 1 and x.stride(0) == 0 and not _draws(module):
        y = _undrawn(module, x.device, lambda: _rows(name, module, x[0] if once is None else once))
        if y is not None:
            return _repeated(y, steps), y
    return _rows(name, module, x.flatten(0, 1)).unflatten(0, (steps, batch)), None


_BY_FEATURES = (nn.Linear, nn.LayerNorm, nn.modules.batchnorm._NormBase, nn.GroupNorm)
"""Modules that want features behind time and batch."""


def _refuse_unbatched(name: str, module: nn.Module, x: Tensor) -> None:
    """Refuse a sequence that lacks its batch: torch's modules would take all of it for one sample."""
    least = 3 if isinstance(module, _BY_FEATURES) else 0
    if isinstance(module, nn.modules.conv._ConvNd):
        least = 3 + len(module.kernel_size)
    if x.dim() < least:
        raise ValueError(
            f"input must be [T, B, *features] before {_who(name, module)}, in {least} dimensions or more, got "
            f"shape {list(x.shape)}; one sequence: x.unsqueeze(1)"
        )


_DRAWING: dict[bool, weakref.WeakSet[nn.Module]] = {mode: weakref.WeakSet() for mode in (False, True)}
"""Modules that were seen to draw numbers, in evaluation and in training."""


def _draws(module: nn.Module) -> bool:
    """Whether it is known to draw numbers, so that each step has to have its own."""
    if not is_followed() and module in _DRAWING[module.training]:
        return True
    return any(map(_is_random, module.modules()))


def _undrawn(module: nn.Module, device: torch.device, run: Callable[[], Tensor]) -> Tensor | None:
    """What ``run`` gives, or None if it would draw numbers of torch's, before which it is stopped.

    The buffers are then as they were, and other threads have drawn what they have drawn.
    """
    if is_recorded(device) or all(map(_is_torchs, module.modules())):
        return run()
    held = [(m._buffers, *buffer) for m in module.modules() for buffer in m.named_buffers(recurse=False)]
    kept = [value.detach().clone() for _, _, value in held]
    mode = UntilDrawn()
    try:
        with mode:
            y = run()
    except Exception:
        if not mode.stopped:
            raise
    if not mode.stopped:
        return y
    _DRAWING[module.training].add(module)
    with torch.no_grad():
        for (buffers, name, value), before in zip(held, kept, strict=True):
            buffers[name] = value  # it may have been replaced
            if not value.equal(before):
                value.copy_(before)
    return None


def _is_torchs(module: nn.Module) -> bool:
    """Whether it is known when a module draws: it is one of torch's, or like these, and has no hooks."""
    known = type(module).__module__.startswith(("torch.nn.", "snnlib.module.sparse"))
    return known and not (module._forward_hooks or module._forward_pre_hooks)


def _rows(name: str, module: nn.Module, x: Tensor) -> Tensor:
    """What a module makes of rows ``[T*B, ...]`` or ``[B, ...]``, if that has as many."""
    if x.dim() == 2 and isinstance(module, nn.TransformerEncoderLayer | nn.TransformerEncoder):
        raise _mixing(name, module)  # which torch takes for one sequence without a batch
    y = module(x)
    if not isinstance(y, Tensor) or y.shape[:1] != x.shape[:1]:
        found = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
        way_out = "call it by itself before or after the net, or set over_time = True where it takes and "
        way_out += "returns [T, B, *features]"
        if isinstance(module, ConstantCurrentLIFEncoder | PoissonEncoder):
            way_out = f"call it by itself before the net: net({type(module).__name__}(...)(x))"
        raise ValueError(
            f"{_who(name, module)} must keep the first dimension of {list(x.shape)}, which counts "
            f"steps and samples, got {found}: {way_out}"
        )
    return y


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

    A sequence that is one step repeated without a copy (``x.expand(T, ...)``) passes a module without a state
    once over ``[B, ...]``, unless it draws random numbers of torch's, which are drawn for each step.

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
        refuse_misfit("lifted", module)
        self.lifted = module

    def forward(self, input: Tensor | tuple[Tensor, Any], state: Any = None) -> Any:
        if isinstance(input, tuple):
            input, state = input
        if not is_stateful(self.lifted):
            return batched("lifted", self.lifted, input)[0]
        if len(input):
            return step_by_step(self.lifted, input, state)
        # the one step of zeros that tells the shape is none that a batch norm may learn from
        kept = {name: value.clone() for name, value in self.lifted.named_buffers()}
        return step_by_step(lambda *given: functional_call(self.lifted, kept, given), input, state)
