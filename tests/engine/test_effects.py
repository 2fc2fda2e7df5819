"""Steps that do something beside their result: they run in the plain loop, once for each step in time."""

import random
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnlib import scan, spike
from snnlib.engine import UntraceableError
from tests.neurons import generator


class State(NamedTuple):
    v: Tensor


T = 12
x = 2 * torch.rand(T, 2, 3, generator=generator(0))


def of_gain(gain: Any, input: Tensor, state: State) -> tuple[Tensor, State]:
    v = 0.9 * state.v + gain * input
    z = spike(v - 1.0, "arctan")
    return z, State(v - z)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.t, self.kept = 0, []
        self.last: Any = None
        self.gain: float | None = None

    def number(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        self.t += 1
        return of_gain(float(self.t > 5), input, state)

    def list(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        self.kept.append(state.v)
        return of_gain(1.0, input, state)

    def attribute(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        self.last = input
        return of_gain(1.0, input, state)

    def cache(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        if self.gain is None:
            self.gain = 0.75
        return of_gain(self.gain, input, state)


@pytest.mark.parametrize(("which", "name"), [("number", "t"), ("list", "kept"), ("attribute", "last")])
def test_what_a_step_changes_is_named_and_it_is_not_fused(which: str, name: str):
    net = Counting()
    step = getattr(net, which)
    with pytest.raises(UntraceableError, match=rf"{which} cannot be fused: it changes Counting\.{name} while"):
        scan(step, x, backend="cpu")
    with pytest.warns(UserWarning, match=rf"plain loop, .* it changes Counting\.{name} while it runs"):
        scan(step, x)


def test_a_counter_counts_every_step_of_every_call():
    """Traced a few times before the first, and perhaps the second call, and then no more."""
    net = Counting()
    with warnings.catch_warnings(action="ignore"):
        scan(net.number, x)
        scan(net.number, x)
        net.t = 0
        output, _ = scan(net.number, x)
    assert net.t == T
    net.t = 0
    assert torch.equal(output, scan(net.number, x, backend="reference")[0])
    assert output.sum() > 0


def test_a_step_that_fills_a_cache_is_fused_when_that_is_full(recwarn: pytest.WarningsRecorder):
    net = Counting()
    first, _ = scan(net.cache, x)
    assert [str(w.message).count("changes Counting.gain") for w in recwarn] == [1]
    assert torch.equal(first, scan(net.cache, x, backend="cpu")[0])


def test_a_global_and_a_variable_of_the_closure():
    count = 0

    def counting_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        nonlocal count
        count += 1
        return of_gain(1.0, input, state)

    with pytest.raises(UntraceableError, match="it changes count while"):
        scan(counting_step, x, backend="cpu")


class Method:
    calls = 0

    def __call__(self, x: Tensor, alpha: Any) -> Tensor:
        self.calls += 1
        return torch.sigmoid(x)


class Parameters(NamedTuple):
    method: Any = "super"


def test_a_method_of_ones_own_that_counts():
    def step(input: Tensor, state: State, p: Parameters = Parameters(), dt: float = 0.001):
        return spike(input - 1.0, p.method), state

    with pytest.raises(UntraceableError, match=r"it changes Method\.calls while"):
        scan(step, x, p=Parameters(Method()), backend="cpu")


def pythons(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return of_gain(random.random(), input, state)


def numpys(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return of_gain(float(np.random.rand()), input, state)


def unread(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return of_gain(1.0 if random.random() < 2 else 0.0, input, state)


def torchs(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return of_gain(torch.rand_like(input), input, state)


@pytest.mark.parametrize(
    ("step", "whose"), [(pythons, "of Python's"), (numpys, "of NumPy's"), (unread, "of Python's"), (torchs, "")]
)
def test_random_numbers_are_drawn_in_each_step(step: Callable[..., Any], whose: str):
    """And none while it is traced: the first call is as in the plain loop."""
    found = []
    for backend in ("auto", "reference"):
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            output = scan(step, x, backend=backend)[0]
        assert [f"it draws random numbers {whose}".strip() in str(w.message) for w in caught] == [True] * (
            backend == "auto"
        )
        found += [output, random.random(), np.random.rand(), float(torch.rand(()))]
    assert torch.equal(found[0], found[4])
    assert found[1:4] == found[5:]


def test_what_others_draw_meanwhile_does_not_count(monkeypatch: pytest.MonkeyPatch):
    """A thread that loads data, say."""
    drawn = []

    def step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        if not drawn:
            drawn.append(random.random())  # as if by another thread
        return of_gain(1.0, input, state)

    monkeypatch.setattr("snnlib.engine.effects._compare", lambda *_: None)
    scan(step, x, backend="cpu")
    assert len(drawn) == 1
