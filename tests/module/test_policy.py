import numpy as np
import pytest
import torch

from snnlib import (
    LIFParameters,
    LIFRecurrentCell,
    LIParameters,
    LSNNParameters,
    LSNNRecurrentCell,
    SpikingPolicy,
    constant_current_lif_encode,
    li_feed_forward_step,
)
from snnlib.module.policy import RunningScale, tanh_network


@pytest.mark.parametrize(
    ("made", "cell"), [(LIFParameters, LIFRecurrentCell), (LSNNParameters, LSNNRecurrentCell)]
)
def test_a_policy_is_its_equations_step_by_step(made, cell):
    """With the time constants of the neurons in encoder and readout, and one time step."""
    torch.manual_seed(0)
    rates, dt = {"tau_syn_inv": 400.0, "tau_mem_inv": 150.0}, 0.002
    p = made(**rates)
    policy = SpikingPolicy(3, 20, 4, p, seq_length=12, input_scale=7.0, dt=dt)
    x = torch.randn(5, 3)
    scores = policy(x)
    assert scores.shape == (5, 4)
    current = 7.0 * torch.cat([x.clamp(min=0), (-x).clamp(min=0)], 1)
    spikes = constant_current_lif_encode(current, 12, LIFParameters(**rates), dt)
    neurons = cell(6, 20, p, dt, input_weights=policy.hidden.input_weights)
    neurons.load_state_dict(policy.hidden.state_dict())
    state, voltages, fired = None, [], 0.0
    rest = policy.readout.resting(torch.zeros(5, 4))
    for s in spikes:
        z, state = neurons(s, state)
        fired += float(z.detach().sum())
        v, rest = li_feed_forward_step(policy.weights(z), rest, LIParameters(**rates), dt)
        voltages.append(v)
    assert fired > 20
    assert torch.allclose(scores, torch.stack(voltages).mean(0), atol=1e-5)


def test_a_sign_is_two_channels():
    torch.manual_seed(0)
    policy = SpikingPolicy(1, 20, 2, seq_length=30)
    up, down = policy(torch.tensor([[2.0], [-2.0]]))
    assert not torch.allclose(up, down)
    assert policy(torch.zeros(1, 1)).abs().max() == 0  # no current, no spike


def test_the_gradient_reaches_every_weight():
    torch.manual_seed(0)
    policy = SpikingPolicy(2, 30, 2, LIFParameters(method="triangle"), seq_length=20, input_scale=10.0)
    policy(torch.randn(8, 2))[:, 0].sum().backward()
    for name, weight in policy.named_parameters():
        assert weight.grad.abs().max() > 0, name


def test_the_running_scale_is_that_of_all_it_has_seen():
    rng = np.random.default_rng(0)
    parts = [rng.normal([3.0, -1.0], [0.1, 20.0], (n, 2)).astype(np.float32) for n in (1, 50, 7, 400)]
    scale = RunningScale(2)
    assert torch.equal(scale(torch.ones(1, 2)), torch.ones(1, 2))
    for part in parts:
        scale.see(torch.from_numpy(part))
    whole = np.concatenate(parts).astype(np.float64)
    assert np.allclose(scale.mean, whole.mean(0), atol=1e-3)
    assert np.allclose(scale.variance, whole.var(0), rtol=1e-3)
    expected = (parts[2] - whole.mean(0)) / whole.std(0)
    assert np.allclose(scale(torch.from_numpy(parts[2])), expected, atol=1e-2)
    assert scale(torch.tensor([[1e6, -1e6]])).tolist() == [[10, -10]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.bool])
def test_the_scale_sees_inputs_of_any_dtype(dtype):
    x = torch.tensor([[0, 1], [1, 1], [1, 0], [0, 1]]).to(dtype)
    found, wanted = RunningScale(2), RunningScale(2)
    for _ in range(2):
        found.see(x)
        wanted.see(x.float())
    assert found.count == 8
    torch.testing.assert_close(found.state_dict(), wanted.state_dict())


def test_the_network_without_spikes():
    assert tanh_network(3, 16, 2)(torch.randn(5, 3)).shape == (5, 2)


def test_time_constants_that_are_loaded_are_those_of_the_encoder_too():
    torch.manual_seed(0)
    x = 3 * torch.randn(3, 4)
    policy, other = (SpikingPolicy(4, 9, 2, LIFParameters(tau_mem_inv=torch.tensor(t))) for t in (100.0, 150.0))
    for assign in (False, True):
        policy.hidden.tau_mem_inv.fill_(100.0)
        assert not torch.equal(policy(x), other(x))
        policy.load_state_dict(other.state_dict(), assign=assign)
        assert torch.equal(policy(x), other(x))
    assert other(x).abs().min() > 0
    with pytest.raises(ValueError, match=r"p.tau_mem_inv must be one number.*got shape \[6\]"):
        SpikingPolicy(4, 6, 2, LIFParameters(tau_mem_inv=torch.full((6,), 100.0)))


def test_nothing_seen_changes_no_scale():
    scale = RunningScale(3)
    scale.see(torch.zeros(0, 3))
    assert torch.equal(scale(torch.ones(1, 3)), torch.ones(1, 3))
