"""The adjoint against the event-driven oracle, on finer and finer grids."""

import numpy as np
import pytest

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
