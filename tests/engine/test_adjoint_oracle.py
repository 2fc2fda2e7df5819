"""The adjoint against the event-driven oracle, on finer and finer grids."""

from collections.abc import Callable

import numpy as np
import pytest
from torch import Tensor

from snnlib import LSNNFeedForwardState, LSNNParameters, spike
from tests.engine.on_grid import STEPS, errors, posed

NETS = [(1, False, 5), (1, True, 5), (2, False, (6, 5)), (2, True, (6, 5))]

CASES = [(kind, *net) for kind in STEPS for net in NETS] + [("lif", 2, False, (20, 10))]
SEEDS = {
    ("lif", 1, True, 5): 2,
    ("lif", 2, True, (6, 5)): 601,
    ("lsnn", 2, True, (6, 5)): 4,
    ("lif_adex", 2, True, (6, 5)): 6,
}
"""Where not 1: it takes long until a net is drawn that crosses fast enough, or there is none."""


@pytest.mark.parametrize(("kind", "layers", "recurrent", "neurons"), CASES, ids=str)
def test_gradients_are_those_of_the_event_driven_net(kind: str, layers: int, recurrent: bool, neurons):
    """To every weight and parameter, within 1 % at dt = 10 us; and ten times closer at 1 us."""
    seed = SEEDS.get((kind, layers, recurrent, neurons), 1)
    made, factors = posed(kind, layers, recurrent, neurons, seed)
    coarse, fine = errors(made, factors, (1e-5, 1e-6))
    assert coarse < 0.01
    assert fine < 0.002


@pytest.mark.parametrize("kind", STEPS)
def test_the_error_falls_in_proportion_to_dt(kind: str):
    """Over two decades, from 100 to 1 us: the mean over four nets of its logarithm."""
    found = np.log10([errors(*posed(kind, 1, False, 5, seed), (1e-4, 1e-5, 1e-6)) for seed in range(2, 6)])
    assert -2.4 < (found[:, 2] - found[:, 0]).mean() < -1.6


def spiking_first_step(
    input: Tensor, state: LSNNFeedForwardState, p: LSNNParameters = LSNNParameters(), dt: float = 0.001
):
    """LSNN, that spikes of the state before the step, and integrates after."""
    z = spike(state.v - (p.v_th + p.beta * state.b), p.method, p.alpha)
    v, b, i = state.v + z * (p.v_reset - state.v), state.b + p.tau_adapt_inv * z, state.i + input
    v = v + dt * p.tau_mem_inv * ((p.v_leak - v) + i)
    return z, LSNNFeedForwardState(v=v, i=i - dt * p.tau_syn_inv * i, b=b - dt * p.tau_adapt_inv * b)


def late_threshold_step(
    input: Tensor, state: LSNNFeedForwardState, p: LSNNParameters = LSNNParameters(), dt: float = 0.001
):
    """LSNN, with a threshold that reads the rate, and a rate that decays from the one, before the step."""
    i = state.i + input
    v = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + i)
    z = spike(v - (p.v_th + p.beta * state.b), p.method, p.alpha)
    b = state.b - dt * p.tau_adapt_inv * state.b + p.tau_adapt_inv * z
    return z, LSNNFeedForwardState(v=v + z * (p.v_reset - v), i=i - dt * p.tau_syn_inv * i, b=b)


@pytest.mark.parametrize("step", [spiking_first_step, late_threshold_step])
@pytest.mark.parametrize(("layers", "recurrent", "neurons"), NETS, ids=str)
def test_spikes_may_read_the_state_before_the_step(
    monkeypatch: pytest.MonkeyPatch, step: Callable, layers: int, recurrent: bool, neurons
):
    """That differs from the state after it by what a step changes, which vanishes with dt."""
    monkeypatch.setitem(STEPS, "lsnn", (step, LSNNParameters))
    seed = SEEDS.get(("lsnn", layers, recurrent, neurons), 1)
    coarse, fine = errors(*posed("lsnn", layers, recurrent, neurons, seed), (1e-5, 1e-6))
    assert coarse < 0.015
    assert fine < 0.002
