"""Where every neuron rests, and what it is for."""

import numpy as np
import pytest
import torch

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
from tests.functional.plain import scan
from tests.neurons import NEURONS, SPIKING, draw_parameters, generator, name_of, same


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


# rows (a, b, c, d) of the program for figure 1 of Izhikevich 2004
FIGURE_1 = {
    "tonic_spiking": (0.02, 0.2, -65, 6),
    "phasic_spiking": (0.02, 0.25, -65, 6),
    "tonic_bursting": (0.02, 0.2, -50, 2),
    "phasic_bursting": (0.02, 0.25, -55, 0.05),
    "mixed_mode": (0.02, 0.2, -55, 4),
    "spike_frequency_adaptation": (0.01, 0.2, -65, 8),
    "class_1_excitability": (0.02, -0.1, -55, 6),
    "class_2_excitability": (0.2, 0.26, -65, 0),
    "subthreshold_oscillation": (0.05, 0.26, -60, 0),
    "resonator": (0.1, 0.26, -60, -1),
    "rebound_spike": (0.03, 0.25, -60, 4),
    "rebound_burst": (0.03, 0.25, -52, 0),
}


def test_izhikevich_behaviors_have_the_numbers_of_his_figure():
    assert {name: p[:4] for name, p in IZHIKEVICH_BEHAVIORS.items()} == FIGURE_1
    for name, p in IZHIKEVICH_BEHAVIORS.items():
        parabola = (0.04, 4.1, 108) if name == "class_1_excitability" else (0.04, 5, 140)
        assert (p.sq, p.mn, p.bias, p.v_th) == (*parabola, 30), name


@pytest.mark.parametrize("behavior", IZHIKEVICH_BEHAVIORS)
def test_izhikevich_behaviors_start_at_rest(behavior):
    """From ``initial`` and without input, none of them spikes."""
    output, _ = scan(izhikevich_feed_forward_step, torch.zeros(600, 1, 1), p=IZHIKEVICH_BEHAVIORS[behavior])
    assert output.sum() == 0


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
