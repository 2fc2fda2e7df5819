import itertools
import math

import numpy as np
import pytest
import torch

from snnlib.functional.correlation import (
    CorrelationSensorParameters,
    CorrelationSensorState,
    correlation_based_update,
    correlation_sensor_step,
)


def measure(z_pre, z_post, p=CorrelationSensorParameters(), dt=0.001, state=None):
    """Run the sensor over z_pre [T, B, M] and z_post [T, B, N]."""
    if state is None:
        state = CorrelationSensorState.initial(
            z_pre.shape[1], z_post.shape[2], z_pre.shape[2], dtype=z_pre.dtype
        )
    for pre, post in zip(z_pre, z_post, strict=True):
        state = correlation_sensor_step(pre, post, state, p, dt)
    return state


def pair(t_pre, t_post, steps=60):
    """One synapse with spikes at the given steps."""
    z_pre, z_post = torch.zeros(2, steps, 1, 1, dtype=torch.float64)
    z_pre[t_pre], z_post[t_post] = 1.0, 1.0
    return z_pre, z_post


def by_events(z_pre, z_post, p, dt):
    """Causal and anti-causal sums of one synapse from its list of spikes, and who came last."""
    events = [(t, 0) for t in np.flatnonzero(z_pre)] + [(t, 1) for t in np.flatnonzero(z_post)]
    events.sort()
    causal = anti_causal = 0.0
    for (before, side_before), (now, side) in itertools.pairwise(events):
        if (side_before, side) == (0, 1):
            causal += p.eta_p * (1 - dt * p.tau_c_inv) ** (now - before)
        elif (side_before, side) == (1, 0):
            anti_causal += p.eta_m * (1 - dt * p.tau_ac_inv) ** (now - before)
    return events[-1][1] if events else 0, causal, anti_causal


def test_random_spikes_equal_a_list_of_events():
    generator = torch.Generator().manual_seed(0)
    z_pre = (torch.rand(80, 3, 4, generator=generator) < 0.15).double()
    z_post = (torch.rand(80, 3, 2, generator=generator) < 0.1).double()
    z_post[:, 2, 1] = 0
    p = CorrelationSensorParameters(eta_p=0.7, eta_m=1.3, tau_ac_inv=40.0, tau_c_inv=25.0)
    found = measure(z_pre, z_post, p, dt=0.002)
    assert (z_pre.unsqueeze(2) * z_post.unsqueeze(3)).sum() > 0, "the case must hold spikes in the same step"
    for b, n, m in np.ndindex(3, 2, 4):
        expected = by_events(z_pre[:, b, m].numpy(), z_post[:, b, n].numpy(), p, 0.002)
        synapse = [field[b, n, m].item() for field in found[:3]]
        np.testing.assert_allclose(synapse, expected, rtol=1e-12)


@pytest.mark.parametrize("distance", [1, 5, 40])
def test_one_pair_is_an_exponential_of_its_distance(distance):
    p = CorrelationSensorParameters(eta_p=2.0, eta_m=3.0, tau_ac_inv=20.0, tau_c_inv=10.0)
    causal = measure(*pair([3], [3 + distance]), p)
    assert causal.correlation_trace.item() == pytest.approx(2 * math.exp(-0.01 * distance), rel=3e-3)
    assert causal.anti_correlation_trace.item() == 0
    assert causal.post_pre.item() == 1
    anti_causal = measure(*pair([3 + distance], [3]), p)
    assert anti_causal.anti_correlation_trace.item() == pytest.approx(3 * math.exp(-0.02 * distance), rel=1e-2)
    assert anti_causal.correlation_trace.item() == 0
    assert anti_causal.post_pre.item() == 0


def test_a_side_that_spikes_alone_measures_nothing():
    for times in (([2, 9, 30], []), ([], [2, 9, 30])):
        found = measure(*pair(*times))
        assert found.correlation_trace.item() == found.anti_correlation_trace.item() == 0


def test_spikes_in_one_step_are_a_causal_pair_without_distance():
    found = measure(*pair([7], [7]))
    assert [field.item() for field in found[:3]] == [1, 1, 0]


def test_only_neighbours_pair_and_pairs_add_up():
    decay = 0.99
    found = measure(*pair([1, 4, 20], [6, 9]))
    assert found.correlation_trace.item() == pytest.approx(decay**2)
    assert found.anti_correlation_trace.item() == pytest.approx(decay**11)
    twice = measure(*pair([1, 20], [6, 29]))
    assert twice.correlation_trace.item() == pytest.approx(decay**5 + decay**9)
    assert twice.anti_correlation_trace.item() == pytest.approx(decay**14)


def test_a_state_of_the_three_fields_of_norse_is_one_that_never_spiked():
    zeros = [torch.zeros(1, 1, 1, dtype=torch.float64) for _ in range(3)]
    z_pre, z_post = pair([2, 12], [5])
    found = measure(z_pre, z_post, state=CorrelationSensorState(*zeros))
    for one, other in zip(found, measure(z_pre, z_post), strict=True):
        assert torch.equal(one, other)


def test_initial_has_shape_and_dtype():
    state = CorrelationSensorState.initial(2, 3, 4, device="cpu", dtype=torch.float64)
    for field in state:
        assert field.shape == (2, 3, 4)
        assert field.dtype == torch.float64
        assert not field.any()


@pytest.mark.parametrize(
    ("pre", "post", "state"),
    [((2, 4), (2, 4), (2, 3, 4)), ((1, 4), (2, 3), (2, 3, 4)), ((4,), (3,), (1, 3, 4))],
)
def test_shapes_that_do_not_fit_are_refused(pre, post, state):
    fields = [torch.zeros(state)] * 3
    with pytest.raises(ValueError, match=r"z_pre must be .*got \[") as error:
        correlation_sensor_step(torch.zeros(pre), torch.zeros(post), CorrelationSensorState(*fields))
    assert str(list(post)) in str(error.value)


def test_wrong_rates_are_refused():
    state = CorrelationSensorState.initial(1, 1, 1)
    z = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="tau_c_inv=-1"):
        correlation_sensor_step(z, z, state, CorrelationSensorParameters(tau_c_inv=-1.0))
    with pytest.raises(ValueError, match="dt=0"):
        correlation_sensor_step(z, z, state, dt=0.0)


def sensors():
    traces = torch.arange(24.0).view(2, 2, 3, 2)
    return CorrelationSensorState(torch.zeros(2, 3, 2), traces[0], 100 + traces[1])


def test_update_hands_all_traces_over_flat_and_adds_the_result_in_place_of_each_weight():
    seen = []

    def rule(x):
        seen.append(x)
        return torch.arange(6.0)

    weights = torch.full((3, 2), 10.0)
    new = correlation_based_update(6, rule, weights, sensors(), 0.5, 3)
    state = sensors()
    flat = torch.cat([state.correlation_trace.flatten(), state.anti_correlation_trace.flatten()])
    assert torch.equal(seen[0], flat)
    torch.testing.assert_close(new, torch.tensor([[10.0, 10.5], [11.0, 11.5], [12.0, 12.5]]))
    assert torch.equal(weights, torch.full((3, 2), 10.0))


@pytest.mark.parametrize("every", [3, np.int64(3)])
def test_update_comes_every_ts_frequency_steps(every):
    weights = torch.zeros(3, 2)
    changed = [
        bool(correlation_based_update(ts, lambda x: x[:6], weights, sensors(), 1.0, every).any())
        for ts in range(7)
    ]
    assert changed == [True, False, False, True, False, False, True]


def test_update_takes_a_module_and_a_local_rule():
    torch.manual_seed(0)
    linear = torch.nn.Linear(24, 6)
    weights = torch.rand(3, 2)
    state = sensors()
    new = correlation_based_update(0, linear, weights, state, 0.1, 1)
    new.sum().backward()
    assert new.shape == (3, 2)
    assert linear.weight.grad.any()

    def local(x):
        causal, anti_causal = x.view(2, 2, 3, 2)
        return (causal - anti_causal).mean(0)

    expected = weights + 0.1 * (state.correlation_trace - state.anti_correlation_trace).mean(0)
    torch.testing.assert_close(correlation_based_update(0, local, weights, state, 0.1, 1), expected)


def test_a_wrong_update_is_refused():
    with pytest.raises(ValueError, match=r"linear_update must return 6 values .*got shape \[5\]"):
        correlation_based_update(0, lambda x: x[:5], torch.zeros(3, 2), sensors(), 1.0, 1)
    for frequency in (0, -2, 1.5):
        with pytest.raises(ValueError, match=f"ts_frequency={frequency}"):
            correlation_based_update(1, lambda x: x[:6], torch.zeros(3, 2), sensors(), 1.0, frequency)


def test_update_of_weights_of_each_samples_own():
    state = sensors()
    weights = torch.rand(2, 3, 2)

    def local(x):
        causal, anti_causal = x.view(2, 2, 3, 2)
        return causal - 2 * anti_causal * weights

    new = correlation_based_update(4, local, weights, state, 0.1, 2)
    for b in range(2):
        change = state.correlation_trace[b] - 2 * state.anti_correlation_trace[b] * weights[b]
        torch.testing.assert_close(new[b], weights[b] + 0.1 * change)
