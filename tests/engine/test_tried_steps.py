"""What the engine does with a step before it is fused: it runs it, and nobody may notice."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from snnlib import LI, LIF, LIFFeedForwardState, LIFParameters, UntraceableError, lif_feed_forward_step
from snnlib.engine import scan
from snnlib.engine.adjoint import _look
from snnlib.engine.fused import _compiled
from snnlib.engine.trace import trace
from tests.engine.equality import kept_by
from tests.neurons import generator

X = 20 * torch.rand(10, 2, 3, generator=generator(0))


def noisy(given: torch.Generator | None) -> Callable[..., Any]:
    """A step, new each time, that draws with a generator."""

    def noisy_step(input: Tensor, state: LIFFeedForwardState, p=LIFParameters(), dt=0.001):
        noise = torch.rand(input.shape, generator=given) + torch.zeros_like(input).uniform_(generator=given)
        return lif_feed_forward_step(input + 1e4 * dt * noise, state, p, dt)

    return noisy_step


@pytest.mark.parametrize("own", [False, True], ids=["global", "own"])
@pytest.mark.parametrize("method", ["super", "adjoint"])
@pytest.mark.filterwarnings("ignore:.*draws random numbers")
def test_a_step_that_draws_is_tried_without_a_draw(own: bool, method: str):
    given = torch.Generator() if own else None
    p, results = LIFParameters(method=method), []
    step = noisy(given)
    _look.cache_clear()
    for backend in ("auto", "auto", "reference"):  # cold, warm, and the law
        (given or torch.default_generator).manual_seed(3)
        results.append(scan(step, X, p=p, backend=backend)[1].i)
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[2])


@pytest.mark.filterwarnings("ignore:.*draws random numbers")
def test_spikes_that_are_drawn_are_those_of_their_seed():
    spikes = []
    layer = LIF(LIFParameters(method="logistic", alpha=2.0, tau_mem_inv=113.0))  # nobody else has these
    for _ in range(2):
        torch.manual_seed(0)
        spikes.append(layer(X / 10)[0])
    assert torch.equal(*spikes)


def of_four(input: Tensor, state: LIFFeedForwardState, p=LIFParameters(), dt=0.001):
    """A step of four small ones."""
    z, state = scan(lif_feed_forward_step, input.expand(4, *input.shape), state, p, dt=dt / 4)
    return z.amax(0), state


def of_a_layer(input: Tensor, state: LIFFeedForwardState, p=LIFParameters(), dt=0.001):
    _, inner = LI(dt=dt)(input[None])
    return lif_feed_forward_step(input + inner.i, state, p, dt)


@pytest.mark.parametrize("step", [of_four, of_a_layer])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_step_may_run_sequences_of_its_own(step: Any, threads: int):
    """It is not fused itself."""
    wanted = scan(step, X, backend="reference")[0]
    rest = LIFFeedForwardState(torch.zeros(()), torch.zeros(()))
    _compiled.cache_clear()
    with pytest.warns(UserWarning, match=f"{step.__name__} runs in the plain loop"):
        found = in_threads(threads, lambda k: scan(step, X, rest if k else None)[0])
    for value in found:
        assert torch.equal(value, wanted)
    assert float(wanted.sum()) > 0


def in_threads(count: int, run: Callable[[int], Tensor]) -> list[Tensor]:
    found: list[Tensor] = []
    threads = [threading.Thread(target=lambda k=k: found.append(run(k)), daemon=True) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert len(found) == count, "a thread hangs or has failed"
    return found


class Ready:
    """Of which no look from outside tells whether it is."""

    now: int | None = None

    def __getattr__(self, name: str) -> bool:
        return type(self).now is not None


READY = Ready()


def waiting_step(input: Tensor, state: LIFFeedForwardState, p=LIFParameters(), dt=0.001):
    if not READY.is_so:
        raise RuntimeError("not configured yet")
    return lif_feed_forward_step(input, state, p, dt)


def test_a_step_that_was_not_ready_is_fused_when_it_is(monkeypatch: pytest.MonkeyPatch):
    with pytest.warns(UserWarning, match="not configured"), pytest.raises(RuntimeError, match="not configured"):
        scan(waiting_step, X)
    with pytest.raises(UntraceableError, match="not configured yet"):
        scan(waiting_step, X, backend="cpu")
    monkeypatch.setattr(Ready, "now", 1)
    assert torch.equal(scan(waiting_step, X, backend="cpu")[0], scan(lif_feed_forward_step, X)[0])


WIDE = torch.ones(3)


def shaped_step(input: Tensor, state: LIFFeedForwardState, p=LIFParameters(), dt=0.001):
    return lif_feed_forward_step(input.view(2, 3), state, p, dt)


def unpacking_step(input: Tensor, state: LIFFeedForwardState, p=LIFParameters(), dt=0.001):
    _, _ = input.shape
    return lif_feed_forward_step(input, state, p, dt)


def wide_step(input: Tensor, state: LIFFeedForwardState, p=LIFParameters(), dt=0.001):
    return lif_feed_forward_step(input * torch.cat([WIDE, WIDE]).view(2, 3), state, p, dt)


@pytest.mark.parametrize(
    ("step", "times", "says"),
    [
        (shaped_step, 8, "RuntimeError: shape '[2, 3]' is invalid for input of size 3"),
        (unpacking_step, 8, "ValueError: not enough values to unpack"),
        (wide_step, 1, "it reads WIDE, a tensor of shape [3] made outside of the step"),
    ],
)
def test_a_step_that_fails_whenever_it_is_tried_is_not_tried_for_ever(
    step: Any, times: int, says: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
):
    tried = []
    monkeypatch.setattr("snnlib.engine.fused.trace", lambda *args: tried.append(0) or trace(*args))
    for _ in range(12):
        assert torch.equal(scan(step, X)[0], scan(lif_feed_forward_step, X)[0])
    assert len(tried) == times
    assert [says in str(w.message) for w in recwarn] == [True]


def test_a_step_that_fails_says_so_itself(recwarn: pytest.WarningsRecorder):
    def failing_step(input: Tensor, state: LIFFeedForwardState, p=LIFParameters(), dt=0.001):
        raise KeyError("of its own")

    for _ in range(12):
        with pytest.raises(KeyError, match="of its own"):
            scan(failing_step, X)
    assert ["KeyError: 'of its own'" in str(w.message) for w in recwarn] == [True]


@pytest.mark.parametrize("method", ["super", "adjoint"])
def test_a_step_is_tried_where_tensors_must_not_be_saved(method: str):
    p = LIFParameters(method=method, tau_mem_inv=117.0)  # nobody else has this
    with torch.autograd.graph.disable_saved_tensors_hooks("no hooks"):
        spikes, _ = LIF(p)(X.clone().requires_grad_())
    assert torch.equal(spikes, LIF(p, backend="reference")(X)[0])


@pytest.mark.parametrize("method", ["super", "adjoint"])
def test_who_packs_what_is_saved_sees_nothing_of_a_trial(method: str):
    p = LIFParameters(method=method, tau_mem_inv=118.0)  # nobody else has this
    first, again = (kept_by(lambda: LIF(p)(X.clone().requires_grad_())[0])[1] for _ in range(2))
    assert sorted(first.values()) == sorted(again.values())


@pytest.mark.parametrize("method", ["super", "adjoint"])
def test_a_step_is_tried_where_gradients_are_looked_at(method: str):
    """As in Lightning's ``detect_anomaly=True``; a graph of the caller's is looked at as before."""
    x, layer = X.clone().requires_grad_(), LIF(LIFParameters(method=method, tau_mem_inv=119.0), backend="cpu")
    with torch.autograd.set_detect_anomaly(True):
        spikes, _ = layer(x)
        spikes.sum().backward()
        said = pytest.warns(UserWarning, match="Error detected in SqrtBackward0")
        with said, pytest.raises(RuntimeError, match="returned nan values"):
            (0 * torch.sqrt(layer(x)[0] - 1)).sum().backward()
