"""Who looks at what is run: compilers, tracers and dispatch modes, torch.func, forward-mode differentiation.

What can be done without anybody noticing, values looked at or memory shared, cannot be done under their eyes.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

__all__ = [
    "UntilDrawn",
    "is_compiled",
    "is_concrete",
    "is_exported",
    "is_followed",
    "is_programmed",
    "is_recorded",
    "is_transformed",
    "is_watched",
    "unwatched",
]

_PLAIN = {Tensor, torch.nn.Parameter}
"""Types of tensors that do nothing of their own."""


def is_exported() -> bool:
    """Whether torch.export runs, in either of its ways.

    ``torch.compiler.is_exporting()`` says that, but torch.compile of torch 2.11 takes the call for true.
    """
    return bool(torch.compiler._is_exporting_flag)


def is_compiled() -> bool:
    """Whether a program is made, of which sizes may be left open: by torch.compile or torch.export."""
    return torch.compiler.is_dynamo_compiling() or is_exported()


def is_programmed() -> bool:
    """Whether a program is made that calls operators later: by torch.compile, make_fx or AOTAutograd."""
    if torch.compiler.is_dynamo_compiling():
        return True
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def is_followed() -> bool:
    """Whether somebody follows what operators run: a compiler, a dispatch mode."""
    return torch.compiler.is_dynamo_compiling() or torch._C._len_torch_dispatch_stack() > 0


def is_watched(tensors: Iterable[Tensor]) -> bool:
    """Whether somebody follows the operators, or one of these tensors does: it is of a type of its own."""
    return is_followed() or not _PLAIN.issuperset(map(type, tensors))


def is_transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is around what runs; torch.compile sees into both.

    Tensors that they do not know are no exception: what is made of them meets the others.
    """
    if torch.compiler.is_dynamo_compiling():
        return False
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def is_recorded(device: torch.device) -> bool:
    """Whether what is made there belongs to somebody: a program, torch.func, or a graph of CUDA's."""
    if is_followed() or is_transformed():
        return True
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def is_concrete(tensor: Tensor) -> bool:
    """Whether its values can be looked at for free: on the CPU, with nobody around."""
    return tensor.device.type == "cpu" and not is_followed() and not is_transformed()


@contextmanager
def unwatched() -> Iterator[None]:
    """Where the engine tries a step: out of everybody's sight, on the CPU, and as if nothing had been drawn.

    To switch off modes of the caller's imports torch's compiler, which whoever sets one has imported.
    """
    with ExitStack() as stack:
        if is_followed():
            stack.enter_context(_disable_current_modes())
        if torch._C._autograd._saved_tensors_hooks_get_disabled_error_message() is None:  # else there are none
            stack.enter_context(saved_tensors_hooks(lambda value: value, lambda value: value))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.autograd.set_detect_anomaly(False))  # it looks at the values of gradients
        stack.enter_context(torch.device("cpu"))
        stack.enter_context(_Undrawn())
        yield


def _draws(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operator draws from a generator; attention is tagged also where it drops nothing."""
    if torch.Tag.nondeterministic_seeded not in getattr(func, "tags", ()):
        return False
    names = [argument.name for argument in func._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return "dropout_p" not in names or given.get("dropout_p", 0.0) > 0


class _Undrawn(TorchDispatchMode):
    """Gives generators back the state that they had before each operator that draws from them."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip it imports it, and nothing here is ever compiled

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _draws(func, args, kwargs):
            return func(*args, **kwargs)
        given = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Generator))
        generator = next(given, torch.default_generator)
        before = generator.get_state()
        try:
            return func(*args, **kwargs)
        finally:
            generator.set_state(before)


class UntilDrawn(TorchDispatchMode):
    """Stops what runs before its first draw, by an error; ``stopped`` says whether it did.

    Programs of torch.compile run as they are: their seeds are drawn by operators too.
    """

    supports_higher_order_operators = True
    stopped = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip it imports it

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _draws(func, args, kwargs):
            self.stopped = True
            raise RuntimeError(f"{func} would draw")
        return func(*args, **kwargs)
