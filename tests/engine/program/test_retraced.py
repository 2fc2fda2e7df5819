"""A state that nothing but spikes drives is found on the way back: which, how well, for how long."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from snnlib import LSNN, LSNNParameters, lsnn_feed_forward_step
from snnlib.engine import scan
from snnlib.engine.later import later_step
from snnlib.engine.program import Traced
from snnlib.engine.trace import trace
from snnlib.functional import spike
from snnlib.functional.threshold import reset
from tests.engine.cases import Exact
from tests.engine.equality import assert_equal, device_of, kept_by, needs_triton
from tests.neurons import SPIKING, Neuron, draw_input, draw_state, generator, name_of

LSNN_NEURON = next(neuron for neuron in SPIKING if neuron.name == "lsnn")


class Adapting(NamedTuple):
    v: Tensor
    a: Tensor

    @classmethod
    def initial(cls, p: Any) -> "Adapting":
        return cls(v=0.0, a=0.0)  # type: ignore[arg-type]


def adapting(change: Any) -> Any:
    """A step whose threshold hangs on a state ``a``, which changes by ``change(a, v, x)`` and with a spike."""

    def step(input: Tensor, state: Adapting, p: Exact = Exact(), dt: float = 0.001):
        v = state.v + 100 * dt * (input - state.v)
        a = state.a + dt * change(state.a, v, input)
        z = spike(v - 1.0 - 0.5 * a, p.method, p.alpha)
        return z, Adapting(reset(v, z, 0.0), a + 0.3 * z)

    return step


OWN = LSNN_NEURON._replace(
    name="own",
    step=adapting(lambda a, v, x: 2 - 5 * a),
    parameters=Exact,
    state=Adapting,
    start={"v": (-0.5, 0.9), "a": (0.0, 0.5)},
)


def traced(step: Any, p: Any, *learned: str) -> Traced:
    given = p._replace(**dict.fromkeys(learned))
    return trace(later_step(step), given, learned, learned, 0.001, torch.float32, "retraced")


@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_which(neuron: Neuron):
    found = traced(neuron.step, neuron.parameters(method="adjoint"))
    assert found.retraced == ((2,) if neuron.name == "lsnn" else ())
    if found.retraced:
        assert len(found.saved) == 1


def test_a_factor_must_be_a_number():
    p = LSNNParameters(method="adjoint")
    assert traced(lsnn_feed_forward_step, p, "v_th", "beta").retraced == (2,)
    assert traced(lsnn_feed_forward_step, p, "tau_adapt_inv").retraced == ()


@pytest.mark.parametrize(("change", "is_retraced"), [
    (lambda a, v, x: -5 * a, True),
    (lambda a, v, x: 3 - 5 * a, True),
    (lambda a, v, x: 5 * a, True),
    (lambda a, v, x: x - 5 * a, False),
    (lambda a, v, x: v - 5 * a, False),
    (lambda a, v, x: -5 * a * a, False),
    (lambda a, v, x: -1000 * a, False),
])  # fmt: skip
def test_what_drives_it(change: Any, is_retraced: bool):
    """Spikes and numbers, nothing else; and not where nothing is left of it after one step."""
    assert (1 in traced(adapting(change), Exact()).retraced) == is_retraced


def test_not_where_it_has_room_anyway():
    """A spike that needs the membrane and the state itself, and no current: both lie in one array."""

    def step(input: Tensor, state: Adapting, p: Exact = Exact(), dt: float = 0.001):
        v = state.v + 100 * dt * (state.a - state.v)
        z = spike(v - 1.0 + 0 * input, p.method, p.alpha)
        return z, Adapting(reset(v, z, 0.0), state.a - 5 * dt * state.a + 0.3 * z)

    found = traced(step, Exact())
    assert (len(found.saved), found.retraced) == (1, ())


def owed_step(input: Tensor, state: Adapting, p: Exact = Exact(), dt: float = 0.001):
    """A refractory period as time that is owed."""
    v = state.v + 100 * dt * (input - state.v) * (state.a <= 0).to(input.dtype)
    z = spike(v - 1.0, p.method, p.alpha)
    return z, Adapting(reset(v, z, 0.0), state.a - dt + 0.005 * z)


def slower_step(input: Tensor, state: Adapting, p: Exact = Exact(), dt: float = 0.001):
    """Slower after the first spike."""
    v = state.v + 100 * dt * (input - state.v) * (1 - 0.5 * (state.a > 0).to(input.dtype))
    a = state.a - 50 * dt * state.a
    z = spike(v - 1.0 - 0.5 * a, p.method, p.alpha)
    return z, Adapting(reset(v, z, 0.0), a + 0.3 * z)


def positive_step(input: Tensor, state: Adapting, p: Exact = Exact(), dt: float = 0.001):
    v = state.v + 100 * dt * (input - state.v)
    a = state.a - 50 * dt * state.a
    z = spike(v - 1.0 - 0.5 * torch.relu(a), p.method, p.alpha)
    return z, Adapting(reset(v, z, 0.0), a + 0.3 * z)


@needs_triton
@pytest.mark.parametrize("step", [owed_step, slower_step, positive_step])
def test_not_where_it_is_compared(step: Any):
    """A state that is on the edge of a condition would come back a last bit beside it."""
    assert traced(step, Exact()).retraced == ()
    neuron = OWN._replace(name=step.__name__, step=step)
    x = 15 * torch.rand(15, 2, 8, generator=generator(0))
    z = assert_equal("gpu", neuron, x, Adapting(torch.zeros(2, 8), torch.zeros(2, 8)), Exact())[0]
    assert z.any()


@pytest.mark.parametrize("jump", [torch.floor, torch.sign])
def test_not_where_it_jumps(jump: Any):
    def step(input: Tensor, state: Adapting, p: Exact = Exact(), dt: float = 0.001):
        v = state.v + 100 * dt * (input - state.v) * (1 + 0.5 * jump(state.a))
        a = state.a - 50 * dt * state.a
        z = spike(v - 1.0 - 0.5 * a, p.method, p.alpha)
        return z, Adapting(reset(v, z, 0.0), a + 0.3 * z)

    assert traced(step, Exact()).retraced == ()


class Twice(NamedTuple):
    v: Tensor
    a: Tensor
    b: Tensor


def twice(heard: Any) -> Any:
    """A step with a fast and a slow adaptation, of which the threshold hears the second in its own way."""

    def step(input: Tensor, state: Twice, p: Exact = Exact(), dt: float = 0.001):
        v = state.v + 100 * dt * (input - state.v)
        a, b = state.a - 50 * dt * state.a, state.b - 2 * dt * state.b
        z = spike(v - 1.0 - 0.5 * a - 0.2 * heard(b), p.method, p.alpha)
        return z, Twice(reset(v, z, 0.0), a + 0.3 * z, b + 0.1 * z)

    return step


def test_the_faster_of_two_says_for_how_long():
    found = traced(twice(lambda b: b), Exact())
    assert (found.retraced, found.most_steps) == ((1, 2), 31)


def test_none_of_two_where_one_is_compared():
    assert traced(twice(torch.relu), Exact()).retraced == ()


@pytest.mark.parametrize(("rate", "steps"), [(1 / 0.7, 1125), (100.0, 15), (0.0, float("inf"))])
def test_for_how_long(rate: float, steps: float):
    p = LSNNParameters(method="adjoint", tau_adapt_inv=rate)
    assert traced(lsnn_feed_forward_step, p).most_steps == steps


@needs_triton
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(21, 2, 5), (8, 2, 3), (1, 1, 4), (0, 2, 3), (3, 0, 2)], ids=str)
@pytest.mark.parametrize("neuron", [LSNN_NEURON, OWN], ids=name_of)
def test_gradients_are_those_of_the_plain_loop(neuron: Neuron, shape: tuple[int, ...], dtype: torch.dtype):
    source = generator(7)
    x, state = 15 * draw_input(neuron, source, shape, dtype), draw_state(neuron, source, shape[1:], dtype)
    z = assert_equal("gpu", neuron, x, state, neuron.parameters(method="adjoint"))[0].detach()
    assert not z.numel() or z.any()
    assert len(z) < 2 or not z.numel() or (z[1:] * z[:-1]).any()


@needs_triton
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("learned", [("beta",), ("v_th", "v_reset"), ("tau_adapt_inv", "beta")], ids=str)
def test_parameters_that_learn(learned: tuple[str, ...]):
    """``beta`` asks for the adaptation in every step, and none is kept for it."""
    source = generator(5)
    x, state = 15 * draw_input(LSNN_NEURON, source, (19, 2, 5)), draw_state(LSNN_NEURON, source, (2, 5))
    drawn = {name: 1.1 * torch.as_tensor(getattr(LSNNParameters(), name)).double() + 0.01 for name in learned}
    p = LSNNParameters(method="adjoint", **drawn)
    assert assert_equal("gpu", LSNN_NEURON, x, state, p)[0].any()


@needs_triton
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("shape", [(12, 2, 6), (1, 2, 5), (6, 2, 130), (0, 2, 5)], ids=str)
def test_recurrent_layers(shape: tuple[int, ...]):
    source = generator(3)
    x = 15 * draw_input(LSNN_NEURON, source, shape, torch.float64)
    inner = draw_state(LSNN_NEURON, source, shape[1:], torch.float64)
    state = LSNN_NEURON.recurrent_state(torch.zeros_like(inner.v), *inner)
    weights = torch.randn(shape[2], shape[2], generator=source, dtype=torch.float64) / shape[2] ** 0.5
    p = LSNNParameters(method="adjoint")
    z = assert_equal("gpu", LSNN_NEURON, x, state, p, recurrent_weights=weights)[0]
    assert not z.numel() or z.any()


@needs_triton
def test_a_longer_sequence_keeps_it():
    """One number of each step, and one row for the way back; or two numbers."""
    p = LSNNParameters(method="adjoint", tau_adapt_inv=100.0)
    for steps, rows in ((15, 16 + 1), (16, 2 * 16)):
        x = 20 * torch.rand(steps, 2, 40, generator=generator(steps)).to(device_of("gpu"))
        leaf = x.requires_grad_()
        z, sizes = kept_by(lambda leaf=leaf: scan(lsnn_feed_forward_step, leaf, p=p, backend="gpu")[0])
        sizes.pop(z.data_ptr(), None)
        assert sum(sizes.values()) == 4 * rows * x[0].numel()
        gradients = []
        for backend in ("gpu", "reference"):
            z, _ = scan(lsnn_feed_forward_step, leaf, p=p, backend=backend)
            weight = torch.randn(z.shape, generator=generator(1)).to(z)
            gradients += torch.autograd.grad((z * weight).sum(), leaf)
        assert z.sum() > 10
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@needs_triton
def test_a_state_that_was_returned_may_be_written_to():
    layer = LSNN(LSNNParameters(method="adjoint"), backend="gpu")
    x = 20 * torch.rand(12, 2, 5, generator=generator(0)).to(device_of("gpu"))
    gradients = []
    for write in (False, True):
        leaf = x.clone().requires_grad_()
        z, state = layer(leaf)
        if write:
            state.b.detach().fill_(50.0)
        (z * torch.arange(12.0).view(-1, 1, 1).to(z)).sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0].any()
    assert torch.equal(*gradients)
