"""Every step is the equation of its docstring, in NumPy; its defaults, its threshold."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import snnlib.functional as F
from tests.neurons import NEURONS, SPIKING, draw_input, draw_parameters, draw_state, generator, name_of, same


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


_SPIKE = ("super", None, True)
_LIF = (200.0, 100.0, 0.0, 1.0, 0.0)
# 1/s, thresholds and s; of izhikevich mV and ms
DEFAULTS = {
    "CorrelationSensorParameters": (1.0, 1.0, 10.0, 10.0),
    "IAFParameters": (1.0, 0.0, *_SPIKE),
    "IzhikevichParameters": (0.02, 0.2, -65.0, 6.0, 0.04, 5.0, 140.0, 30.0, 250.0, *_SPIKE),
    "LIBoxParameters": (100.0, 0.0),
    "LIFAdExParameters": (4.0, 0.02, 0.5, 2.0, *_LIF, *_SPIKE),
    "LIFBoxParameters": (*_LIF[1:], *_SPIKE),
    "LIFExParameters": (0.5, *_LIF, *_SPIKE),
    "LIFParameters": (*_LIF, *_SPIKE),
    "LIFRefracParameters": (*_LIF, 0.005, *_SPIKE),
    "LIParameters": _LIF[:3],
    "LSNNParameters": (200.0, 100.0, 1 / 0.7, 0.0, 1.0, 0.0, 0.18, *_SPIKE),
    "STDPParameters": (1.0, 1.0, 20.0, 20.0, 0.0, 1.0, 0.001, 0.001, "additive", 0.0, True),
    "TsodyksMakramParameters": (20.0, 50.0, 1 / 0.75, 0.45),
}


def test_the_defaults_are_these():
    names = [name for name in F.__all__ if name.endswith("Parameters")]
    assert {name: tuple(getattr(F, name)()) for name in names} == DEFAULTS


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
