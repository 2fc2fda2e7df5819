"""The adjoint: against a closed form, a transcription by hand and the reference; faults of Norse's; slopes."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from snnlib import (
    LIF,
    LIFExParameters,
    LIFFeedForwardState,
    LIFParameters,
    LIFRecurrent,
    lif_ex_feed_forward_step,
    lif_feed_forward_step,
    spike_slopes,
)
from snnlib.engine import scan
from tests.engine.cases import EXACT
from tests.engine.equality import FUSED_BACKENDS, device_of, everything, recurrent_case
from tests.neurons import SPIKING, Neuron, draw_input, draw_parameters, generator, name_of


def test_the_closed_form_of_a_first_spike():
    """tau_mem = 2 tau_syn and one input spike: dt/dw within 0.1 % at dt = 1 us.

    v = w (y - y^2) with y = exp(-tau_mem_inv t) crosses 1 where y = (1 + sqrt(1 - 4 / w)) / 2.
    """
    w, dt, rate = 6.0, 1e-6, 100.0
    root = math.sqrt(1 - 4 / w)
    wanted = -1 / (w**2 * rate * (1 + root) / 2 * root)
    weight = torch.tensor(w, dtype=torch.float64, requires_grad=True)
    x = torch.zeros(12_000, 1, 1, dtype=torch.float64)
    x[0] = 1.0
    z, _ = scan(lif_feed_forward_step, weight * x, None, EXACT, dt=dt)
    assert float(z.detach().sum()) == 1
    first = (z[:, 0, 0] * torch.arange(1, len(x) + 1) * dt).sum()
    assert float(first.detach()) == pytest.approx(-math.log((1 + root) / 2) / rate, abs=3 * dt)
    (found,) = torch.autograd.grad(first, weight)
    assert float(found) == pytest.approx(wanted, rel=1e-3)


def by_hand(x: np.ndarray, g: np.ndarray, dt: float, p: LIFParameters, last: tuple[float, float]):
    """LIF for one neuron, forward and back, equation by equation: gradient of the input and spikes."""
    a, b = dt * p.tau_mem_inv, dt * p.tau_syn_inv
    v, i = p.v_leak, 0.0
    steps = []
    for now in x:
        i = i + now
        before, v = v, v + a * (p.v_leak - v + i)
        steps.append((before, v, i))
        i = i - b * i
        v = p.v_reset if v > p.v_th else v
    lv, li = last
    given = np.zeros_like(x)
    beyond = g[-1]
    for k in reversed(range(len(x))):
        before, v, i = steps[k]
        li = (1 - b) * li
        if v > p.v_th:
            moved = -a * (p.v_leak - p.v_reset + i)  # the membrane, had the spike come a step later
            lv = -(beyond - g[k] + lv * moved) / (v - before)
        given[k] = li = li + a * lv
        lv = (1 - a) * lv
        beyond = g[k]
    return given, np.array([v > p.v_th for _, v, _ in steps], float)


@pytest.mark.parametrize("backend", ["reference", *FUSED_BACKENDS])
def test_lif_is_its_transcription_by_hand(backend: str):
    rng, dt = np.random.default_rng(0), 0.0013
    p = EXACT._replace(v_leak=0.1, v_reset=-0.2, tau_mem_inv=130.0, tau_syn_inv=170.0)
    x, g, last = 2 * rng.random(60) * (rng.random(60) < 0.6), rng.standard_normal(60), (0.7, -0.4)
    wanted, spikes = by_hand(x, g, dt, p, last)
    assert 3 < spikes.sum() < 30
    given = torch.tensor(x, dtype=torch.float64, device=device_of(backend)).view(-1, 1, 1).requires_grad_()
    z, state = scan(lif_feed_forward_step, given, None, p, dt=dt, backend=backend)
    assert z.flatten().tolist() == spikes.tolist()
    loss = (z.flatten() * torch.tensor(g).to(z)).sum() + last[0] * state.v.sum() + last[1] * state.i.sum()
    (found,) = torch.autograd.grad(loss, given)
    np.testing.assert_allclose(found.flatten().cpu(), wanted, rtol=1e-9)


def test_dw_in_is_taken_before_the_synaptic_decay():
    """An input counts for the membrane of its own step in full; only later steps see it decayed."""
    dt, p = 0.001, EXACT
    a, b = dt * p.tau_mem_inv, dt * p.tau_syn_inv
    x = torch.tensor([6.0, 6.0, 0.0], dtype=torch.float64).view(3, 1, 1).requires_grad_()
    z, _ = scan(lif_feed_forward_step, x, None, p, dt=dt)
    assert z.flatten().tolist() == [0.0, 1.0, 0.0]
    (given,) = torch.autograd.grad((z.flatten() * torch.tensor([0.3, 1.0, 0.2], dtype=torch.float64)).sum(), x)
    first, second, _ = given.flatten().tolist()
    assert second != 0
    assert first / second == pytest.approx((1 - a) + (1 - b))  # after the decay it would be (1 - b) times that


@pytest.mark.parametrize("backend", ["reference", *FUSED_BACKENDS])
def test_dw_rec_is_that_of_the_spikes_before(backend: str):
    """dW_rec[n, m] is the sum over t of the gradient that neuron n receives at t times z_m(t - 1)."""
    neuron, x, state, weights = recurrent_case((30, 4, 6), torch.float64)
    p = neuron.parameters(method="adjoint")
    device = device_of(backend)
    x, weights = x.to(device).requires_grad_(), weights.to(device).requires_grad_()
    state = type(state)(*(v.to(device) for v in state))
    z, _ = scan(neuron.step, x, state, p, recurrent_weights=weights, backend=backend)
    loss = (z * torch.randn(z.shape, generator=generator(4), dtype=z.dtype).to(device)).sum()
    given, grown = torch.autograd.grad(loss, [x, weights])
    before = torch.cat([state.z[None], z.detach()[:-1]])
    torch.testing.assert_close(grown, torch.einsum("tbn,tbm->nm", given, before))
    assert not torch.allclose(grown, torch.einsum("tbn,tbm->nm", given, z.detach()))


def test_the_slopes_before_and_after_a_reset_are_two():
    """At a spike the adjoint of the membrane is multiplied by v'(+) / v'(-), which is not one."""
    dt, p = 1e-5, EXACT
    x = torch.zeros(600, 1, 1, dtype=torch.float64)
    x[0] = 8.0
    state = LIFFeedForwardState(*torch.zeros(2, 1, 1, dtype=torch.float64, requires_grad=True).unbind())
    z, _ = scan(lif_feed_forward_step, x, state, p, dt=dt)
    assert float(z.detach().sum()) == 2
    first = int(z.detach().flatten().argmax())
    one, after = scan(lif_feed_forward_step, x[: first + 1], state, p, dt=dt)
    assert float(one.detach().sum()) == 1
    (found,) = torch.autograd.grad(after.v.sum(), state.v)
    current = float(after.i.detach())
    factor = (current - p.v_reset) / (current - p.v_th)
    free = (1 - dt * p.tau_mem_inv) ** (first + 1)
    assert float(found) == pytest.approx(factor * free, rel=5e-3)
    assert abs(factor - 1) > 0.05


@pytest.mark.parametrize("backend", ["reference", *FUSED_BACKENDS])
@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_every_input_has_its_gradient(backend: str, neuron: Neuron):
    """To the input, the initial state and every parameter; none vanishes but where nothing depends on it."""
    source = generator(7)
    x = draw_input(neuron, source, (40, 4, 5)).to(device_of(backend))
    p = draw_parameters(neuron, source, (5,))._replace(method="adjoint")
    p = type(p)(*(v.to(x) if isinstance(v, Tensor) else v for v in p))
    state = neuron.state(*(torch.zeros_like(x[0]) for _ in neuron.state._fields))
    values = everything(backend, neuron.step, x, state, p)
    count = len(neuron.state._fields)
    names = [*neuron.state._fields, *(k for k, v in p._asdict().items() if isinstance(v, Tensor))]
    for name, value in zip(["input", *names], values[1 + count :], strict=True):
        assert value.isfinite().all()
        # a neuron at rest is held by no refractory period
        assert value.abs().max() > 0 or name == "rho", name


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("backend", FUSED_BACKENDS)
@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_whatever_learns_gradients_are_those_of_the_reference(backend: str, neuron: Neuron, share: float):
    """What is kept for events and what for every step hangs on which parameters are tensors."""
    source = generator(3)
    shape = (40, 3, 7) if backend == "cpu" else (12, 2, 3)
    x = draw_input(neuron, source, shape).to(device_of(backend))
    drawn = draw_parameters(neuron, source, ())
    learn = {name: torch.rand((), generator=source) < share for name in neuron.ranges}
    p = drawn._replace(
        method="adjoint",
        **{
            name: getattr(drawn, name).to(x) if own else float(getattr(drawn, name))
            for name, own in learn.items()
        },
    )
    state = neuron.state(*(torch.zeros_like(x[0]) for _ in neuron.state._fields))
    wanted = everything("reference", neuron.step, x, state, p)
    assert 0 < wanted[0].mean() < 1
    for ours, theirs in zip(everything(backend, neuron.step, x, state, p), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def test_the_least_slope_bounds_the_gradient():
    """A membrane that just touches its threshold: dh is no less than alpha dt."""
    x = torch.tensor([10.0 * (1 + 1e-9)], dtype=torch.float64).view(1, 1, 1).requires_grad_()
    start = LIFFeedForwardState(*torch.tensor([1 - 1e-9, 1.0], dtype=torch.float64).view(2, 1, 1).unbind())
    found = []
    for alpha in (1.0, 50.0):
        given = x * 1e-9
        z, state = scan(lif_feed_forward_step, given, start, EXACT._replace(alpha=alpha))
        assert float(z.detach()) == 1
        found.append(float(torch.autograd.grad(state.v.sum(), x)[0]))
    assert found[0] == pytest.approx(50 * found[1])


def test_slopes_can_be_counted():
    torch.manual_seed(0)
    for layer in (LIF(EXACT), LIFRecurrent(5, 5, EXACT)):
        x = torch.rand(50, 3, 5)
        z, _ = layer(x)
        slopes = spike_slopes(layer, x)
        assert torch.equal(slopes > 0, z > 0)
        assert 0 < int((slopes[z > 0] < 150.0).sum()) < int(z.sum())
    v = torch.tensor([[0.9]])
    (only,) = spike_slopes(LIF(EXACT), torch.tensor([[[3.0]]]), LIFFeedForwardState(v, torch.zeros(1, 1)))
    assert float(only) == pytest.approx(100 * (3.0 - 0.9), rel=1e-4)


def test_slopes_of_a_sequence_in_parts():
    torch.manual_seed(0)
    layer, x = LIFRecurrent(5, 5, EXACT._replace(v_th=0.3), dt=0.002), 5 * torch.rand(50, 3, 5)
    z, state = layer(x[:20])
    assert z[-1].any()  # which the neurons hear in the second part
    slopes = spike_slopes(layer, x)
    assert torch.equal(slopes > 0, layer(x)[0] > 0)
    torch.testing.assert_close(spike_slopes(layer, x[20:], state), slopes[20:])


@pytest.mark.parametrize("backend", ["reference", *FUSED_BACKENDS])
def test_a_spike_far_above_its_threshold_has_a_gradient(backend: str):
    """The exponential drive of such a membrane is infinite in float32, and is never integrated."""
    x = torch.zeros(6, 1, 1, device=device_of(backend))
    x[0] = 600.0
    x.requires_grad_()
    z, _ = scan(lif_ex_feed_forward_step, x, None, LIFExParameters(method="adjoint"), backend=backend)
    assert bool(z.all())
    (found,) = torch.autograd.grad((z.flatten() * torch.arange(6.0, device=z.device)).sum(), x)
    assert found.isfinite().all()
    assert found[:3].all()  # nobody hears of the last ones
