"""Every neuron: its equations against NumPy, its gradients against finite differences, what it is for."""

import functools
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import snnlib
import snnlib.functional as functional
from snnlib import engine
from snnlib.functional import (
    IZHIKEVICH_BEHAVIORS,
    IAFParameters,
    IzhikevichState,
    LIFBoxParameters,
    LIFFeedForwardState,
    LIFParameters,
    LIFRefracFeedForwardState,
    LIFRefracParameters,
    LIParameters,
    LSNNFeedForwardState,
    LSNNParameters,
    iaf_feed_forward_step,
    izhikevich_feed_forward_step,
    li_feed_forward_step,
    lif_box_feed_forward_step,
    lif_feed_forward_step,
    lif_refrac_feed_forward_step,
    lsnn_feed_forward_step,
)
from tests.neurons import (
    NEURONS,
    SPIKING,
    draw_input,
    draw_parameters,
    draw_state,
    generator,
    loop,
    name_of,
    same,
)

# these are tests of the steps: the plain loop runs them, but where a test is about the engine
scan = functools.partial(engine.scan, backend="reference")

# -- the equations of the docstrings, in NumPy ---------------------------------------------------------------


def jump_and_leak(x, s, p, dt, pull=0.0):
    """Synaptic jump, membrane, synaptic decay: what most neurons begin with."""
    rate = dt * p.tau_mem_inv
    i = x + s.i
    v = (1 - rate) * s.v + rate * (p.v_leak + i + pull)
    return v, (1 - dt * p.tau_syn_inv) * i


def onset(s, p):
    return p.delta_T * np.exp(s.v / p.delta_T) * np.exp(-p.v_th / p.delta_T)


def li(x, s, p, dt):
    v, i = jump_and_leak(x, s, p, dt)
    return v, {"v": v, "i": i}


def li_box(x, s, p, dt):
    rate = dt * p.tau_mem_inv
    v = (1 - rate) * s.v + rate * (p.v_leak + x)
    return v, {"v": v}


def lif(x, s, p, dt):
    v, i = jump_and_leak(x, s, p, dt)
    z = v > p.v_th
    return z, {"v": np.where(z, p.v_reset, v), "i": i}


def lif_refrac(x, s, p, dt):
    moved, i = jump_and_leak(x, s, p, dt)
    held = s.rho >= dt / 2
    v = np.where(held, s.v, moved)
    z = ~held & (v > p.v_th)
    return z, {
        "v": np.where(z, p.v_reset, v),
        "i": i,
        "rho": np.where(z, p.rho_reset, np.maximum(s.rho - dt, 0)),
    }


def lif_box(x, s, p, dt):
    v = s.v - dt * p.tau_mem_inv * (s.v - p.v_leak - x)
    z = v > p.v_th
    return z, {"v": np.where(z, p.v_reset, v)}


def lsnn(x, s, p, dt):
    v, i = jump_and_leak(x, s, p, dt)
    b = (1 - dt * p.tau_adapt_inv) * s.b
    z = v > p.v_th + p.beta * b
    return z, {"v": np.where(z, p.v_reset, v), "i": i, "b": np.where(z, b + p.tau_adapt_inv, b)}


def iaf(x, s, p, dt):
    z = s.v + x > p.v_th
    return z, {"v": np.where(z, p.v_reset, s.v + x)}


def lif_ex(x, s, p, dt):
    v, i = jump_and_leak(x, s, p, dt, onset(s, p))
    z = v > p.v_th
    return z, {"v": np.where(z, p.v_reset, v), "i": i}


def lif_adex(x, s, p, dt):
    v, i = jump_and_leak(x, s, p, dt, onset(s, p) - s.a)
    keep = 1 - dt * p.tau_ada_inv
    a = keep * s.a + (1 - keep) * p.adaptation_current * (s.v - p.v_leak)
    z = v > p.v_th
    return z, {"v": np.where(z, p.v_reset, v), "i": i, "a": np.where(z, a + p.adaptation_spike, a)}


def izhikevich(x, s, p, dt):
    h = dt * p.tau_inv
    v = s.v + h * (s.v * (p.sq * s.v + p.mn) + p.bias + x - s.u)
    u = (1 - h * p.a) * s.u + h * p.a * p.b * s.v
    z = v > p.v_th
    return z, {"v": np.where(z, p.c, v), "u": np.where(z, u + p.d, u)}


EQUATIONS = {
    f.__name__: f for f in (li, li_box, lif, lif_refrac, lif_box, lsnn, iaf, lif_ex, lif_adex, izhikevich)
}


def arrays(values):
    """A NamedTuple of tensors as NumPy arrays with the same names."""
    numbers = {k: v.detach().numpy() for k, v in values._asdict().items() if isinstance(v, torch.Tensor)}
    return SimpleNamespace(**numbers)


# -- values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dt", [0.001, 0.0004, 0.0017])
@pytest.mark.parametrize("shape", [(), (5,), (4, 5)], ids=["one value", "a neuron", "a sample and neuron"])
@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_step_is_its_equation(neuron, shape, dt):
    """60 steps of random input, with parameters and states that are not the defaults."""
    source = generator(len(shape))
    p = draw_parameters(neuron, source, shape)
    state = draw_state(neuron, source, (4, 5))
    x = draw_input(neuron, source, (60, 4, 5))
    numbers, wanted = arrays(p), arrays(state)
    equation = EQUATIONS[neuron.name]
    spikes = 0
    for t in range(60):
        z, state = neuron.step(x[t], state, p, dt)
        wanted_z, fields = equation(x[t].numpy(), wanted, numbers, dt)
        wanted = SimpleNamespace(**fields)
        if neuron.spikes:
            np.testing.assert_array_equal(z.numpy(), wanted_z, err_msg=f"spikes at step {t}")
            spikes += int(wanted_z.sum())
        else:
            np.testing.assert_allclose(z.numpy(), wanted_z, rtol=1e-12, atol=1e-12)
        assert type(state) is neuron.state
        assert set(fields) == set(state._fields)
        for name, value in state._asdict().items():
            error = f"{name} at step {t}"
            np.testing.assert_allclose(value.numpy(), fields[name], rtol=1e-12, atol=1e-12, err_msg=error)
    if neuron.spikes:
        assert 20 < spikes < 0.75 * x.numel(), "the test says little about the spike or what lies between"


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_the_defaults_are_the_numbers_of_the_parameters(neuron):
    """A step without ``p`` and ``dt`` uses Parameters() and 1 ms."""
    source = generator(0)
    state, x = draw_state(neuron, source, (2, 3)), draw_input(neuron, source, (2, 3))
    same(neuron.step(x, state), neuron.step(x, state, neuron.parameters(), 0.001))
    numbers = SimpleNamespace(**neuron.parameters()._asdict())
    _, fields = EQUATIONS[neuron.name](x.numpy(), arrays(state), numbers, 0.001)
    for name, value in neuron.step(x, state)[1]._asdict().items():
        np.testing.assert_allclose(value.numpy(), fields[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_the_table_knows_every_number_and_every_state(neuron):
    """Otherwise a new parameter would go untested."""
    p = neuron.parameters()
    assert set(neuron.ranges) == set(p._fields) - {"method", "alpha", "detach_reset"}
    assert set(neuron.start) == set(neuron.state._fields)
    assert neuron.name in EQUATIONS
    for name, (low, high) in neuron.ranges.items():
        assert low < high, name


@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_a_neuron_at_its_threshold_does_not_spike(neuron):
    """H(0) = 0, for every neuron: a membrane that lands on the threshold exactly stays."""
    state = neuron.state(**{name: torch.zeros(1, 1, dtype=torch.float64) for name in neuron.state._fields})
    x = torch.full((1, 1), 0.37, dtype=torch.float64)
    high = {"lsnn": {"beta": 0.0}, "izhikevich": {"bias": 0.0}}.get(neuron.name, {})
    # the onset of lif_ex and lif_adex depends on the threshold: with a small delta_T it vanishes
    sharp = {"delta_T": 1e-4} if "delta_T" in neuron.ranges else {}
    _, after = neuron.step(x, state, neuron.parameters(v_th=1e6, **high, **sharp))
    landing = after.v.item()
    z, after = neuron.step(x, state, neuron.parameters(v_th=landing, **high, **sharp))
    assert z.item() == 0.0
    assert after.v.item() == landing
    below = np.nextafter(landing, -1.0).item()
    z, _ = neuron.step(x, state, neuron.parameters(v_th=below, **high, **sharp))
    assert z.item() == 1.0


# -- gradients -----------------------------------------------------------------------------------------------


def gradients(run, neuron, p, state, x):
    """Of a random linear function of outputs and final state, to everything that run depends on."""
    leaves = {f"state.{k}": v for k, v in state._asdict().items()} | {"input": x}
    leaves |= {f"p.{k}": v for k, v in p._asdict().items() if isinstance(v, torch.Tensor)}
    for leaf in leaves.values():
        leaf.requires_grad_()
    output, final = run(x, state, p)
    source = generator(99)
    loss = sum(
        (torch.randn(value.shape, generator=source, dtype=value.dtype) * value).sum()
        for value in (output, *final)
    )
    found = torch.autograd.grad(loss, list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("detach", [True, False], ids=["detached", "free"])
@pytest.mark.parametrize("shape", [(), (3,)], ids=["one value", "a neuron"])
@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_gradients_of_scan_are_those_of_a_loop(neuron, shape, detach):
    """To the input, the initial state and every number among the parameters, and none of them vanishes."""
    # a surrogate with long tails: izhikevich is 80 mV below its threshold for most of the time
    options = {"method": "arctan", "alpha": 0.5, "detach_reset": detach} if neuron.spikes else {}
    dt = 0.0013

    def case():
        source = generator(5)
        p = draw_parameters(neuron, source, shape, **options)
        return p, draw_state(neuron, source, (4, 3)), draw_input(neuron, source, (25, 4, 3))

    wanted = gradients(lambda x, s, p: loop(neuron.step, x, s, p, dt), neuron, *case())
    plain = {"dt": dt, "backend": "reference"}
    found = gradients(lambda x, s, p: engine.scan(neuron.step, x, s, p, **plain), neuron, *case())
    for name, gradient in wanted.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
        )
        if name != "state.rho":  # forgotten after so many steps; see the gradient checks below
            assert gradient.abs().max() > 0, f"{name} has no effect here: the comparison is empty"


def smooth(x, alpha):
    """A spike that is differentiable, so that finite differences can judge the gradient."""
    return torch.sigmoid(4 * x)


@pytest.mark.parametrize("shape", [(), (2,)], ids=["one value", "a neuron"])
@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_gradcheck_with_a_smooth_spike(neuron, shape):
    """Input, initial state and parameters, against central differences in float64.

    lif_refrac: its mask ``free`` steps where rho crosses dt/2, so the case is one that keeps away from it, and
    ``rho`` takes no gradient from the spikes, by its docstring, so the final rho is not among the outputs.
    """
    source = generator(11)
    options = {"method": smooth, "detach_reset": False} if neuron.spikes else {}
    p = draw_parameters(neuron, source, shape, **options)
    names = list(neuron.ranges)
    state = draw_state(neuron, source, (2, 2))
    x = draw_input(neuron, source, (4, 2, 2))
    dt = 0.0012
    if neuron.name == "izhikevich":  # near its peak, or the spike is a constant
        state = state._replace(v=torch.tensor([[24.0, 31.0], [28.0, -55.0]], dtype=torch.float64))
    masks = []

    def run(x, *rest):
        own = p._replace(**dict(zip(names, rest[len(state) :], strict=True)))
        outputs, s = [], neuron.state(*rest[: len(state)])
        for t in range(len(x)):
            if neuron.name == "lif_refrac":
                masks.append((s.rho < dt / 2).tolist())
            z, s = neuron.step(x[t], s, own, dt)
            outputs.append(z)
        # the final state, but the rho of lif_refrac
        return torch.stack(outputs), *(value for name, value in s._asdict().items() if name != "rho")

    leaves = [x, *state, *(getattr(p, name) for name in names)]
    for leaf in leaves:
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(run, leaves, eps=1e-6, atol=1e-6, rtol=1e-4)
    if masks:
        steps = np.array(masks[:4])
        assert (np.array(masks).reshape(-1, *steps.shape) == steps).all(), "the mask moved: choose another seed"
        assert 0 < steps.mean() < 1, "neurons must be held at some steps and free at others"


def test_gradcheck_of_the_refractory_time():
    """rho follows ``max(rho - dt, 0) + z (rho_reset - max(rho - dt, 0))``: gradients to rho and rho_reset."""
    v = torch.tensor([[0.3, -0.4, 0.2, 0.9]], dtype=torch.float64)
    rho = torch.tensor([[0.0, 0.0004, 0.0044, 0.0091]], dtype=torch.float64, requires_grad=True)
    rho_reset = torch.tensor(0.0052, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[3.0, 1.0, 2.0, 0.0]], dtype=torch.float64)

    def run(rho, rho_reset):
        s = LIFRefracFeedForwardState(v, torch.zeros_like(v), rho)
        p = LIFRefracParameters(rho_reset=rho_reset, method=smooth)
        for _ in range(3):
            _, s = lif_refrac_feed_forward_step(x, s, p)
        return s.rho

    # differences of 1e-6 s are small beside the times here, of milliseconds
    assert torch.autograd.gradcheck(run, (rho, rho_reset), eps=1e-6, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_detach_reset_changes_the_gradient_and_nothing_else(neuron):
    def case(detach):
        source = generator(7)
        p = draw_parameters(neuron, source, (), method="arctan", alpha=0.5, detach_reset=detach)
        state, x = draw_state(neuron, source, (4, 3)), draw_input(neuron, source, (30, 4, 3))
        x.requires_grad_()
        output, final = scan(neuron.step, x, state, p)
        (gradient,) = torch.autograd.grad(output.sum() + final.v.sum(), x)
        return output, final, gradient

    detached, free = case(True), case(False)
    assert detached[0].sum() > 10
    same(detached[:2], free[:2])
    assert not torch.allclose(detached[2], free[2])


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_a_detached_reset_passes_nothing_through_the_spike(neuron, detach):
    """The membrane after one step then does not depend on the threshold; otherwise it does, by its reset."""
    source = generator(8)
    p = draw_parameters(neuron, source, (), method="arctan", alpha=0.5, detach_reset=detach)
    if "delta_T" in neuron.ranges:  # the onset knows the threshold without a spike
        p = p._replace(delta_T=1e-4)
    p = p._replace(v_th=p.v_th.requires_grad_())
    state = draw_state(neuron, source, (4, 3))
    if neuron.name == "lif_refrac":
        state = state._replace(rho=torch.zeros_like(state.rho))
    _, state = neuron.step(draw_input(neuron, source, (4, 3)), state, p, 0.001)
    gradient = torch.zeros(())
    if state.v.requires_grad:
        (gradient,) = torch.autograd.grad(state.v.sum(), p.v_th)
    assert (gradient.abs().item() > 1e-6) is not detach


# -- steps with weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_weighted_step_is_weights_before_the_step(neuron):
    """x[b, n] = sum_m input_weights[n, m] input[b, m] + sum_k recurrent_weights[n, k] z[b, k]."""
    source = generator(4)
    batch, inputs, size, dt = 3, 4, 5, 0.0008
    p = draw_parameters(neuron, source, (size,))
    state = draw_state(neuron, source, (batch, size))
    scale = neuron.input[0] + neuron.input[1]
    spikes = (torch.rand(batch, inputs, generator=source) < 0.6).double()
    w_in = scale * torch.randn(size, inputs, generator=source, dtype=torch.float64)
    w_rec = scale * torch.randn(size, size, generator=source, dtype=torch.float64)
    z = (torch.rand(batch, size, generator=source) < 0.5).double()
    x = np.einsum("nm,bm->bn", w_in.numpy(), spikes.numpy())
    if neuron.recurrent_state is neuron.state:  # li_step: no recurrence
        found_z, found = neuron.weighted_step(spikes, state, w_in, p, dt)
        before: tuple[str, ...] = ()
    else:
        x = x + np.einsum("nk,bk->bn", w_rec.numpy(), z.numpy())
        start = neuron.recurrent_state(z, *state)
        found_z, found = neuron.weighted_step(spikes, start, w_in, w_rec, p, dt)
        before = ("z",)
    wanted_z, wanted = neuron.step(torch.from_numpy(x), state, p, dt)
    assert type(found) is neuron.recurrent_state
    assert found._fields == (*before, *neuron.state._fields)
    same(found_z, wanted_z, rtol=1e-12, atol=1e-12)
    same(tuple(found), (wanted_z, *wanted) if before else tuple(wanted), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_weighted_step_has_the_defaults_of_the_step(neuron):
    source = generator(4)
    state = draw_state(neuron, source, (2, 3))
    if neuron.recurrent_state is not neuron.state:
        state = neuron.recurrent_state(torch.ones(2, 3, dtype=torch.float64), *state)
    weights = (torch.eye(3, dtype=torch.float64),) * (1 if neuron.recurrent_state is neuron.state else 2)
    x = draw_input(neuron, source, (2, 3))
    same(
        neuron.weighted_step(x, state, *weights),
        neuron.weighted_step(x, state, *weights, neuron.parameters(), 0.001),
    )


# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_everything_of_a_neuron_is_public(neuron):
    """Importable from snnlib.functional and snnlib under its own name, listed, and picklable by that name."""
    for thing in {
        neuron.step,
        neuron.parameters,
        neuron.state,
        neuron.weighted_step,
        neuron.recurrent_state,
    }:
        name = thing.__name__
        for module in (functional, snnlib):
            assert getattr(module, name) is thing
            assert name in module.__all__
        assert pickle.loads(pickle.dumps(thing)) is thing
        assert thing.__doc__


def test_all_names_exist():
    for module in (functional, snnlib):
        assert len(set(module.__all__)) == len(module.__all__)
        for name in module.__all__:
            assert hasattr(module, name), name


# -- rest ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_initial_is_the_rest_of_the_parameters(neuron):
    """v at the leak, all else at zero; izhikevich at its lower fixed point, or where it comes closest."""
    source = generator(2)
    p = draw_parameters(neuron, source)
    state = neuron.state.initial(p)
    assert type(state) is neuron.state
    if neuron.name == "izhikevich":
        roots = np.roots([float(p.sq), float(p.mn - p.b), float(p.bias)])
        v = min(roots.real)
        wanted = {"v": v, "u": float(p.b) * v}
        assert state._asdict() == pytest.approx(wanted, rel=1e-9)
        return
    wanted = dict.fromkeys(state._fields, 0.0) | ({} if neuron.name == "iaf" else {"v": p.v_leak})
    assert {name: float(value) for name, value in state._asdict().items()} == {
        name: float(value) for name, value in wanted.items()
    }


@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_a_neuron_at_rest_does_not_spike_without_input(neuron):
    output, _ = scan(neuron.step, torch.zeros(400, 1, 1))
    assert output.sum() == 0


@pytest.mark.parametrize("name", ["li", "li_box", "lif", "lif_refrac", "lif_box", "lsnn", "iaf"])
def test_rest_is_a_fixed_point(name):
    """Without input nothing moves, also with a leak that is not zero. (lif_ex and lif_adex drift to theirs, a
    little above the leak, by their onset; izhikevich too.)"""
    neuron = next(neuron for neuron in NEURONS if neuron.name == name)
    p = draw_parameters(neuron, generator(3))
    x = torch.zeros(50, 2, 3, dtype=torch.float64)
    _, start = scan(neuron.step, x[:0], p=p)
    _, final = scan(neuron.step, x, p=p)
    same(final, start, rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("behavior", IZHIKEVICH_BEHAVIORS)
def test_izhikevich_behaviors_start_at_rest(behavior):
    """From ``initial`` and without input, none of them spikes."""
    output, _ = scan(izhikevich_feed_forward_step, torch.zeros(600, 1, 1), p=IZHIKEVICH_BEHAVIORS[behavior])
    assert output.sum() == 0


# -- what a neuron is for ------------------------------------------------------------------------------------


def closed_form(x, p, dt, steps):
    """The membrane after each step of a constant input from rest, without spikes.

    The current after its jump is the geometric sum i_t = x (1 - d^(t+1)) / (1 - d), d = 1 - dt tau_syn_inv, and
    v_t - v_leak = g sum_s c^(t-s) i_s, c = 1 - g, g = dt tau_mem_inv, is two geometric sums again.
    """
    g, n = dt * p.tau_mem_inv, np.arange(1, steps + 1)
    c, d = 1 - g, 1 - dt * p.tau_syn_inv
    return p.v_leak + g * x / (1 - d) * ((1 - c**n) / (1 - c) - d * (c**n - d**n) / (c - d))


@pytest.mark.parametrize("dt", [0.001, 0.0005])
@pytest.mark.parametrize(
    "p",
    [LIFParameters(v_th=float("inf")), LIFParameters(150.0, 70.0, v_leak=0.4, v_th=float("inf"))],
    ids=["defaults", "others"],
)
def test_membrane_of_lif_under_a_constant_current(p, dt):
    """200 steps in float32 follow the closed form of the recursion; nothing spikes at an infinite threshold."""
    x = torch.tensor([[0.3, -0.8]])
    state = LIFFeedForwardState(v=torch.full((1, 2), p.v_leak), i=torch.zeros(1, 2))
    found = []
    for _ in range(200):
        z, state = lif_feed_forward_step(x, state, p, dt)
        assert z.sum() == 0
        found.append(state.v[0].double().numpy())
    wanted = np.stack([closed_form(value, p, dt, 200) for value in x[0].double().numpy()], axis=1)
    assert np.abs(wanted).max() > 1.0
    np.testing.assert_allclose(np.stack(found), wanted, rtol=1e-5, atol=1e-6)
    _, final = scan(lif_feed_forward_step, x.expand(200, 1, 2), p=p, dt=dt)
    np.testing.assert_allclose(final.v[0].double().numpy(), wanted[-1], rtol=1e-5)


def test_membrane_of_li_under_a_constant_current():
    """The output of a leaky integrator is its membrane, step by step."""
    p = LIParameters(170.0, 90.0, v_leak=-0.3)
    voltage, _ = scan(li_feed_forward_step, torch.full((200, 1, 1), 0.7), p=p, dt=0.0007)
    wanted = closed_form(0.7, p, 0.0007, 200)
    np.testing.assert_allclose(voltage.flatten().double().numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_lif_box_relaxes_to_its_input():
    """v_t = v_leak + x (1 - (1 - dt tau_mem_inv)^t)."""
    p = LIFBoxParameters(tau_mem_inv=80.0, v_leak=0.1, v_th=float("inf"))
    for steps in (1, 7, 300):
        _, state = scan(lif_box_feed_forward_step, torch.full((steps, 1, 1), 0.9), p=p, dt=0.002)
        assert state.v.item() == pytest.approx(0.1 + 0.9 * (1 - (1 - 0.16) ** steps), rel=1e-5)


def test_iaf_counts_charge():
    """0.25 a step at a threshold of 1 (not reached at 1 itself) is one spike in five steps, whatever dt."""
    for dt in (0.001, 0.01):
        output, _ = scan(iaf_feed_forward_step, torch.full((20, 1, 1), 0.25), p=IAFParameters(), dt=dt)
        assert output.flatten().nonzero().flatten().tolist() == [4, 9, 14, 19]


@pytest.mark.parametrize(
    ("rho_reset", "dt"),
    [
        (0.005, 0.001),
        (0.005, 0.0001),
        (0.003, 0.0005),
        (0.007, 0.0007),
        (0.0024, 0.001),
        (0.0026, 0.001),
        (0.0004, 0.001),
        (0.0, 0.001),
        (0.02, 0.0001),
        (0.1, 0.01),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lif_refrac_is_held_for_its_refractory_period(rho_reset, dt, dtype):
    """round(rho_reset / dt) steps at v_reset without a spike, whatever arrives; the current goes on."""
    held = round(rho_reset / dt)
    p = LIFRefracParameters(rho_reset=rho_reset, v_reset=-0.3, tau_syn_inv=20.0)
    zero = torch.zeros(1, 1, dtype=dtype)
    state = LIFRefracFeedForwardState(zero, zero, zero)
    x = torch.full((1, 1), 1000.0, dtype=dtype)
    trains, current = [], []
    for _ in range(2 * held + 3):
        z, state = lif_refrac_feed_forward_step(x, state, p, dt)
        trains.append(z.item())
        current.append(state.i.item())
        assert state.v.item() == pytest.approx(-0.3, abs=0.003)
    assert trains == [1.0, *[0.0] * held] * 2 + [1.0]
    assert current == sorted(current)
    assert current[-1] > current[0]


def test_lif_refrac_does_not_spike_while_it_is_held():
    """Not even with a membrane above its threshold; once free it does."""
    v = torch.full((1, 2), 5.0, dtype=torch.float64)
    state = LIFRefracFeedForwardState(v, torch.zeros_like(v), torch.tensor([[0.0, 0.002]], dtype=torch.float64))
    train = []
    for _ in range(3):
        z, state = lif_refrac_feed_forward_step(torch.zeros_like(v), state)
        train.append(z[0].tolist())
    assert train == [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("detach", [True, False])
def test_rho_of_lif_refrac_carries_no_gradient_from_the_spikes(detach):
    """As its docstring says, whatever becomes of the membrane's reset."""
    x = torch.full((1, 3), 30.0, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, 3, dtype=torch.float64)
    start = LIFRefracFeedForwardState(zero, zero, zero.clone().requires_grad_())
    p = LIFRefracParameters(method="arctan", detach_reset=detach)
    z, state = lif_refrac_feed_forward_step(x, start, p)
    assert z.sum() == 3
    (gradient,) = torch.autograd.grad(state.rho.sum(), x, allow_unused=True)
    assert gradient is None or not gradient.any()


@pytest.mark.parametrize("drive", [1.2, 2.5])
@pytest.mark.parametrize("dt", [0.001, 0.0005])
def test_b_of_lsnn_averages_to_the_firing_rate_in_hz(drive, dt):
    """At a regular rate, over whole intervals; beta = 0, so that the rate is the drive's alone."""
    p = LSNNParameters(beta=0.0, tau_adapt_inv=25.0)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    state = LSNNFeedForwardState(v=zero, i=zero, b=zero)
    x = torch.full((1, 1), drive * dt * 200.0, dtype=torch.float64)  # a steady current of about drive
    spikes, b = [], []
    for t in range(round(0.8 / dt)):
        z, state = lsnn_feed_forward_step(x, state, p, dt)
        b.append(state.b.item())
        if z.item():
            spikes.append(t)
    late = [t for t in spikes if t * dt > 0.4]  # ten time constants on
    intervals = np.diff(late)
    assert len(set(intervals.tolist())) == 1, "the case is meant to fire regularly"
    rate = 1 / (intervals[0] * dt)
    assert 20 < rate < 300
    assert np.mean(b[late[0] : late[-1]]) == pytest.approx(rate, rel=1e-3)


def test_threshold_of_lsnn_rises_by_beta_times_b():
    """v between v_th and v_th + beta b does not spike, above it does."""
    p = LSNNParameters(v_th=1.0, beta=0.02, tau_mem_inv=0.0, tau_adapt_inv=10.0)
    v = torch.tensor([[0.99, 1.01, 1.39, 1.41]], dtype=torch.float64)
    b = torch.tensor([[0.0, 0.0, 20.0, 20.0]], dtype=torch.float64)  # 19.8 after the decay of one step
    zero = torch.zeros_like(v)
    z, _ = lsnn_feed_forward_step(zero, LSNNFeedForwardState(v, zero, b), p)
    assert z.tolist() == [[0.0, 1.0, 0.0, 1.0]]


def test_izhikevich_tonic_and_phasic_spiking():
    """Under the currents of Izhikevich 2004, figure 1: one fires on and on, the other once at the onset."""
    onset_at, steps = 200, 1600

    def times(behavior, current):
        x = torch.zeros(steps, 1, 1)
        x[onset_at:] = current
        output, _ = scan(izhikevich_feed_forward_step, x, p=IZHIKEVICH_BEHAVIORS[behavior])
        return output.flatten().nonzero().flatten()

    tonic = times("tonic_spiking", 14.0)
    assert len(tonic) >= 10
    assert tonic.min() > onset_at
    late = tonic[tonic > 600].diff()
    assert late.max() - late.min() <= 2
    phasic = times("phasic_spiking", 0.5)
    assert len(phasic) == 1
    assert onset_at < phasic.item() < onset_at + 200


def test_tau_inv_of_izhikevich_stretches_time_and_nothing_else():
    """Only dt tau_inv counts: twice the rate at half the step is the same sequence."""
    p = IZHIKEVICH_BEHAVIORS["tonic_spiking"]
    x = torch.full((400, 1, 1), 14.0, dtype=torch.float64)
    one, state = scan(izhikevich_feed_forward_step, x, p=p, dt=0.001)
    other, final = scan(izhikevich_feed_forward_step, x, p=p._replace(tau_inv=2 * p.tau_inv), dt=0.0005)
    assert one.sum() > 2
    assert isinstance(final, IzhikevichState)
    same((other, final), (one, state), rtol=1e-12, atol=1e-12)
