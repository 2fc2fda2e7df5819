"""What a step does beside its result: traced, it would do so while it is traced, and never again."""

import pickle
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

from snnlib.engine.outside import Search
from snnlib.engine.step import UntraceableError

__all__ = ["EffectError", "refuse_effects"]


class EffectError(UntraceableError):
    """A step changes something beside its result."""


@contextmanager
def refuse_effects(step: Callable[..., Any], more: list[Any], once: Callable[[], Any]) -> Iterator[None]:
    """Refuse a step that changes what it reads outside, or that draws random numbers of Python's or NumPy's.

    Where it is refused, these generators are as they were before; torch's always are, see
    :func:`snnlib.engine.watched.unwatched`.

    Parameters:
        step: the neuron's step, which is traced within.
        more: other functions that it calls, its parameters say.
        once: runs it once.

    Raises:
        EffectError: names what it changes.
    """
    functions = [getattr(step, "exact_of", step), *more]
    before, drawn = _read(functions), _generators()
    try:
        yield
        _compare(before, _read(functions))
        _refuse_drawing(drawn, once)
    except BaseException:
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])
        raise


def _read(functions: list[Any]) -> list[Any]:
    return [item for function in functions for item in _Held().start(function)]


def _compare(before: list[Any], after: list[Any]) -> None:
    new, gone = ([v for v in a if v not in b] for a, b in ((after, before), (before, after)))
    if new or gone:
        raise EffectError(f"it changes {(new or gone)[0][0]} while it runs")


def _generators() -> tuple[Any, Any]:
    return random.getstate(), np.random.get_state()


def _refuse_drawing(before: tuple[Any, Any], once: Callable[[], Any]) -> None:
    now = _generators()
    if pickle.dumps(now) == pickle.dumps(before):
        return
    once()  # it may have been another thread that drew
    for name, was, found in zip(("Python's random", "NumPy's random"), now, _generators(), strict=True):
        if pickle.dumps(was) != pickle.dumps(found):
            raise EffectError(f"it draws random numbers of {name}")


class _Same:
    """A thing, equal to itself alone, and kept, so that nothing else can get its id."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._thing is other._thing

    __hash__ = None  # type: ignore[assignment]


class _Held(Search):
    """A walk that sees tensors and the length of containers too, and says whose attributes it sees."""

    def value(
        self, name: str, value: Any, names: tuple[str, ...], deep: int, owner: Any = None
    ) -> Iterator[Any]:
        name = name if owner is None else f"{type(owner).__name__}.{name}"
        if isinstance(value, Tensor):
            yield name, _Same(value)
        elif isinstance(value, list | dict | set | deque):
            yield name, len(value)
        yield from super().value(name, value, names, deep, owner)
