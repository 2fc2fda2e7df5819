"""What a step does beside its result: traced, it would do so while it is traced, and never again."""

import functools
import io
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from snnlib.engine.outside import Search
from snnlib.engine.step import StepError, UntraceableError

__all__ = ["EffectError", "refuse_effects"]

_DRAWING = random, np.random, np.random.default_rng
_GENERATORS = random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator
"""What draws random numbers, and types of what does. torch's are noticed when they draw."""


class EffectError(UntraceableError):
    """A step changes something beside its result."""


@contextmanager
def refuse_effects(step: Callable[..., Any], more: list[Any]) -> Iterator[None]:
    """Refuse a step that changes what it reads outside, or that reads what is another thing at each step.

    That a step draws random numbers of Python's or NumPy's is read from its code, and before it runs: the state
    of their generators would not tell who drew, and nobody could draw again what another thread has drawn.

    Parameters:
        step: the neuron's step, which is traced within.
        more: other functions that it calls, its parameters say.

    Raises:
        EffectError: names what it changes.
        UntraceableError: names what it reads: a generator, an iterator, a tensor if the step fails within.
        StepError: the step fails within.
    """
    functions = [getattr(step, "exact_of", step), *more]
    before, held = _read(functions), [(own, dict(own)) for own in _attributes(functions)]
    try:
        yield
        _compare(before, _read(functions))
    except StepError as error:
        _compare(before, _read(functions))
        _refuse_tensors(before, error)
        raise
    finally:
        for own, old in held:
            _without_new_tensors(own, old)


def _attributes(functions: list[Any]) -> list[dict[str, Any]]:
    """Those of the objects whose methods these are, and the buffers of modules."""
    own = [vars(f.__self__) for f in functions if isinstance(f, MethodType) and hasattr(f.__self__, "__dict__")]
    return own + [attributes["_buffers"] for attributes in own if "_buffers" in attributes]


def _without_new_tensors(own: dict[str, Any], old: dict[str, Any]) -> None:
    """Take back tensors that a step kept for its next call: they are of the shape that it was tried with."""
    for name, value in list(own.items()):
        if isinstance(value, Tensor) and old.get(name) is not value:
            if name in old:
                own[name] = old[name]
            else:
                del own[name]


def _read(functions: list[Any]) -> list[Any]:
    return [item for function in functions for item in _Held().start(function)]


def _compare(before: list[Any], after: list[Any]) -> None:
    if before == after:
        return
    known, found = set(before), set(after)
    changed = [v for v in after if v not in known] or [v for v in before if v not in found]
    if changed:
        raise EffectError(f"it changes {changed[0][0]} while it runs")


def _refuse_tensors(read: list[Any], error: StepError) -> None:
    """Of a step that failed: with tensors of its own, because these do not fit to what it was tried with."""
    found = [(name, held[0].thing) for name, *held in read if isinstance(held[0], _Same)]
    if found:
        name, tensor = max(found, key=lambda pair: pair[1].numel())
        raise UntraceableError(
            f"it reads {name}, a tensor of shape {list(tensor.shape)} made outside of the step and not in its "
            "parameters; make it a field of p"
        ) from error


def _refuse_drawing(name: str, value: Any) -> None:
    while isinstance(value, functools.partial):
        value = value.func
    owner = value.__self__ if isinstance(value, BuiltinFunctionType | MethodType) else value
    if isinstance(owner, _GENERATORS) or any(value is one for one in _DRAWING):
        raise UntraceableError(
            f"it reads {name}, which draws random numbers; what is drawn before can be a part of the input"
        )
    if isinstance(value, Iterator) and not isinstance(value, io.IOBase):
        raise UntraceableError(f"it reads {name}, an iterator, which gives something else at each step")


class _Same:
    """A thing, equal to itself alone, and kept, so that nothing else can get its id."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


class _Held(Search):
    """A walk that sees tensors and the length of containers too, and says whose attributes it sees."""

    def value(
        self, name: str, value: Any, names: tuple[str, ...], deep: int, owner: Any = None
    ) -> Iterator[Any]:
        if owner is not None:
            of = owner.__name__ if isinstance(owner, ModuleType) else type(owner).__name__
            name = f"{of}.{name}"
        _refuse_drawing(name, value)
        if isinstance(value, Tensor):
            yield name, _Same(value)
        elif isinstance(value, list | dict | set | deque):
            yield name, len(value)
        yield from super().value(name, value, names, deep, owner)
