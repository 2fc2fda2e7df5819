"""Steps that do something beside their result: they run in the plain loop, once for each step in time."""

import functools
import itertools
import logging
import random
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnlib import LIF, LIFParameters, scan, spike
from snnlib.engine import UntraceableError
from snnlib.engine.effects import EffectError, refuse_effects
from snnlib.engine.trace import trace
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
        self.recording, self.sum = True, 0.0

    def number(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        self.t += 1
        return of_gain(float(self.t > 5), input, state)

    def list(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        self.kept.append(state.v)
        return of_gain(1.0, input, state)

    def attribute(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        self.last = input
        return of_gain(1.0, input, state)

    def deletion(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        if hasattr(self, "gain"):
            del self.gain
        return of_gain(1.0, input, state)

    def cache(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        if self.gain is None:
            self.gain = 0.75
        return of_gain(self.gain, input, state)

    @functools.cached_property
    def made(self) -> float:
        return 0.75

    def property(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_gain(self.made, input, state)

    def recorder(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        if self.recording:
            self.sum += 1.0
        return of_gain(1.0, input, state)


@pytest.mark.parametrize(("which", "name"), [("number", "t"), ("list", "kept"), ("attribute", "last")])
def test_what_a_step_changes_is_named_and_it_is_not_fused(which: str, name: str):
    net = Counting()
    step = getattr(net, which)
    with pytest.raises(UntraceableError, match=rf"{which} cannot be fused: it changes Counting\.{name} while"):
        scan(step, x, backend="cpu")
    with pytest.warns(UserWarning, match=rf"plain loop, .* it changes Counting\.{name} while it runs"):
        scan(step, x)


def test_what_a_step_deletes_is_named():
    step = Counting().deletion
    with pytest.raises(EffectError, match=r"it changes Counting\.gain while"), refuse_effects(step, []):
        step(x[0], State(x[0]))


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


def test_a_counter_is_warned_of_once(recwarn: pytest.WarningsRecorder):
    warnings.simplefilter("always")
    net = Counting()
    for _ in range(3):
        scan(net.number, x)
    assert [str(w.message).count("changes Counting.t") for w in recwarn] == [1]


@pytest.mark.parametrize("which", ["cache", "property"])
def test_a_step_that_fills_a_cache_is_fused(which: str, recwarn: pytest.WarningsRecorder):
    step = getattr(Counting(), which)
    assert torch.equal(scan(step, x)[0], scan(step, x, backend="cpu")[0])
    assert not recwarn


@pytest.mark.filterwarnings("ignore:recorder runs in the plain loop")
class Masking(nn.Module):
    """Makes a tensor of the shape of its first input, and keeps it."""

    def __init__(self, buffer: bool) -> None:
        super().__init__()
        self.mask: Tensor | None
        if buffer:
            self.register_buffer("mask", None)
        else:
            self.mask = None

    def step(self, input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        if self.mask is None:
            self.mask = torch.full_like(input, 0.75)
        return of_gain(self.mask, input, state)


@pytest.mark.parametrize("buffer", [False, True], ids=["attribute", "buffer"])
def test_what_a_step_keeps_has_the_shape_of_its_input_and_not_of_a_trial(buffer: bool):
    net, x = Masking(buffer), 2 * torch.rand(T, 2, 7, generator=generator(0))
    with pytest.warns(UserWarning, match=r"it changes Masking\.mask while it runs"):
        z, _ = scan(net.step, x)
    assert net.mask is not None
    assert net.mask.shape == (2, 7)
    assert torch.equal(z, scan(Masking(buffer).step, x, backend="reference")[0])


def test_a_step_that_records_no_more_is_fused(monkeypatch: pytest.MonkeyPatch):
    net = Counting()
    for _ in range(3):
        scan(net.recorder, x)
    net.recording = False
    with monkeypatch.context() as patch:
        patch.delattr("snnlib.engine.reference.run")
        scan(net.recorder, x)
    net.recording, net.sum = True, 0.0
    scan(net.recorder, x)
    assert net.sum == T


@pytest.mark.filterwarnings("ignore:recorder runs in the plain loop")
def test_a_step_that_changes_what_it_reads_whatever_else_it_reads_is_tried_no_more(
    monkeypatch: pytest.MonkeyPatch,
):
    net, tried = Counting(), []
    with monkeypatch.context() as patch:
        patch.setattr("snnlib.engine.fused.trace", lambda *args: tried.append(0) or trace(*args))
        for k in range(40):
            net.recording = k + 1
            scan(net.recorder, x)
    assert 2 < len(tried) < 20


LOGGER = logging.getLogger("snnlib.tests")


def logging_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    logging.debug("a step")
    LOGGER.debug("a step")
    print(end="")
    return of_gain(1.0, input, state)


def test_a_step_may_log(recwarn: pytest.WarningsRecorder):
    for _ in range(2):
        scan(logging_step, x)
    scan(logging_step, x, backend="cpu")
    assert not recwarn


def test_large_tables_are_compared_quickly():
    table = [[[float(i + j + k) for i in range(24)] for j in range(24)] for k in range(24)]

    def reading_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return of_gain(table[0][1][2], input, state)

    start = time.perf_counter()
    scan(reading_step, x, backend="cpu")
    assert time.perf_counter() - start < 1.5


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
        return x.sigmoid()


class Parameters(NamedTuple):
    method: Any = "super"


def test_a_method_of_ones_own_that_counts():
    def step(input: Tensor, state: State, p: Parameters = Parameters(), dt: float = 0.001):
        return spike(input - 1.0, p.method), state

    with pytest.raises(UntraceableError, match=r"it changes Method\.calls while"):
        scan(step, x, p=Parameters(Method()), backend="cpu")
    scan(step, x, p=Parameters("super"), backend="cpu")


def pythons(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return of_gain(random.random(), input, state)


def numpys(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return of_gain(float(np.random.rand()), input, state)


def unread(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return of_gain(1.0 if random.random() < 2 else 0.0, input, state)


def imported(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    from random import gauss

    return of_gain(gauss(1.0, 0.1), input, state)


def torchs(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return of_gain(torch.rand_like(input), input, state)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (pythons, "it reads random, which draws random numbers"),
        (numpys, "it reads numpy.random, which draws"),
        (unread, "it reads random, which draws"),
        (imported, "it reads random, which draws"),
        (torchs, "it draws random numbers, aten.rand_like"),
    ],
)
def test_random_numbers_are_drawn_in_each_step(step: Callable[..., Any], says: str):
    """And none while it is traced: the first call is as in the plain loop."""
    found = []
    for backend in ("auto", "reference"):
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            output = scan(step, x, backend=backend)[0]
        assert [says in str(w.message) for w in caught] == [True] * (backend == "auto")
        found += [output, random.random(), np.random.rand(), float(torch.rand(()))]
    assert torch.equal(found[0], found[4])
    assert found[1:4] == found[5:]


OWN: dict[str, Callable[[], Any]] = {
    "Random": lambda: random.Random(1).random,
    "default_rng": lambda: np.random.default_rng(1).random,
    "RandomState": lambda: np.random.RandomState(1).rand,
    "partial": lambda: functools.partial(np.random.default_rng(1).normal, 0.5, 0.5),
    "iterator": lambda: functools.partial(next, iter([0.1 * k for k in range(60)])),
    "count": lambda: functools.partial(next, itertools.count()),
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.filterwarnings("ignore:drawing_step runs in the plain loop")
def test_what_a_generator_of_ones_own_draws_is_another_number_in_each_step(name: str):
    outputs = []
    for backend in ("auto", "reference"):
        draw = OWN[name]()

        def drawing_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001, draw: Any = draw):
            return of_gain(1.0 if draw() < 0.5 else 0.0, input, state)

        outputs.append(scan(drawing_step, x, backend=backend)[0])
    assert torch.equal(*outputs)


def test_what_another_thread_draws_is_its_own_affair():
    """A thread that loads data, say: nothing is refused for it, and it draws no number twice."""
    drawn, done = [], threading.Event()

    def load() -> None:
        while not done.is_set():
            drawn.append((random.random(), np.random.rand()))

    random.seed(3)
    np.random.seed(3)
    thread = threading.Thread(target=load)
    thread.start()
    try:
        for step, p in ((Counting().cache, None), (LIF().step, LIFParameters(v_th=0.8765))):  # nobody else's
            scan(step, x, p=p, backend="cpu")
        with pytest.warns(UserWarning, match="plain loop"):
            scan(Counting().number, x)
    finally:
        done.set()
        thread.join()
    random.seed(3)
    np.random.seed(3)
    assert drawn == [(random.random(), np.random.rand()) for _ in drawn]
