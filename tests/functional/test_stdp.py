import math

import numpy as np
import pytest
import torch

from snnlib.functional.stdp import STDPParameters, STDPState, stdp_step_linear

ALGORITHMS = ["additive", "additive_step", "multiplicative_pow", "multiplicative_relu"]


def learn(z_pre, z_post, w, p=STDPParameters(), dt=0.001):
    """Run STDP over z_pre [T, B, M] and z_post [T, B, N]."""
    state = STDPState(torch.zeros_like(z_pre[0]), torch.zeros_like(z_post[0]))
    for pre, post in zip(z_pre, z_post, strict=True):
        w, state = stdp_step_linear(pre, post, w, state, p, dt)
    return w, state


def change_of_a_pair(t_pre, t_post, p=STDPParameters(), dt=0.001, steps=110, batch=1):
    z_pre, z_post = torch.zeros(2, steps, batch, 1, dtype=torch.float64)
    z_pre[t_pre], z_post[t_post] = 1.0, 1.0
    w = torch.full((1, 1), 0.5, dtype=torch.float64)
    return (learn(z_pre, z_post, w, p, dt)[0] - w).item()


def single(w, p, causal):
    """The change of one weight by a spike that meets a trace of 1 on the other side."""
    one, none = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    weight = torch.full((1, 1), w, dtype=torch.float64)
    p = p._replace(tau_pre_inv=0.0, tau_post_inv=0.0)
    spikes = (none, one, weight, STDPState(one, none)) if causal else (one, none, weight, STDPState(none, one))
    return (stdp_step_linear(*spikes, p)[0] - weight).item()


@pytest.mark.parametrize("distance", [1, 2, 10, 50])
def test_window_is_exponential_on_both_sides(distance):
    p = STDPParameters(
        a_pre=2.0, a_post=3.0, tau_pre_inv=50.0, tau_post_inv=25.0, eta_plus=1e-3, eta_minus=2e-3
    )
    dt = 1e-4
    causal = change_of_a_pair([5], [5 + distance], p, dt)
    assert causal == pytest.approx(1e-3 * 2 * math.exp(-distance * dt * 50), rel=2e-3)
    anti_causal = change_of_a_pair([5 + distance], [5], p, dt)
    assert anti_causal == pytest.approx(-2e-3 * 3 * math.exp(-distance * dt * 25), rel=2e-3)


def test_euler_window_is_as_documented():
    assert change_of_a_pair([5], [15]) == pytest.approx(1e-3 * 0.98**10, rel=1e-12)
    assert change_of_a_pair([15], [5]) == pytest.approx(-1e-3 * 0.98**10, rel=1e-12)


def test_a_pair_does_not_depend_on_the_time_step():
    coarse = change_of_a_pair([5], [15], dt=1e-3)
    fine = change_of_a_pair([5], [105], dt=1e-4)
    assert coarse == pytest.approx(fine, rel=2e-2)


def test_spikes_in_one_step_count_on_both_sides():
    p = STDPParameters(a_pre=2.0, a_post=3.0, eta_plus=1e-3, eta_minus=1e-2)
    assert change_of_a_pair([5], [5], p) == pytest.approx(1e-3 * 2 - 1e-2 * 3, rel=1e-12)


def test_random_spikes_equal_the_sum_over_all_pairs():
    generator = torch.Generator().manual_seed(0)
    z_pre = (torch.rand(50, 3, 4, generator=generator) < 0.2).double()
    z_post = (torch.rand(50, 3, 2, generator=generator) < 0.2).double()
    w = torch.rand(2, 4, generator=generator, dtype=torch.float64)
    p = STDPParameters(0.8, 1.2, 30.0, 60.0, eta_plus=2e-3, eta_minus=3e-3, hardbound=False)
    expected = w.numpy().copy()
    for n, m, b in np.ndindex(2, 4, 3):
        for t_pre in np.flatnonzero(z_pre[:, b, m].numpy()):
            for t_post in np.flatnonzero(z_post[:, b, n].numpy()):
                distance = abs(int(t_post) - int(t_pre))
                if t_pre <= t_post:
                    expected[n, m] += 2e-3 * 0.8 * (1 - 0.03) ** distance
                if t_post <= t_pre:
                    expected[n, m] -= 3e-3 * 1.2 * (1 - 0.06) ** distance
    before = w.clone()
    found, state = learn(z_pre, z_post, w, p)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert torch.equal(w, before)
    assert state.t_pre.shape == (3, 4)
    assert state.t_post.shape == (3, 2)


def test_changes_are_summed_over_the_batch():
    assert change_of_a_pair([5], [9], batch=3) == pytest.approx(3 * change_of_a_pair([5], [9]), rel=1e-12)


# room to w_max = 2 and to w_min = -1, then the factors of potentiation and depression at mu = 0.5
CASES = [
    ("additive", 0.5, 1, 1),
    ("additive", 2.0, 1, 1),
    ("additive_step", 0.5, 1, 1),
    ("additive_step", 2.0, 0, 1),
    ("additive_step", -1.0, 1, 0),
    ("multiplicative_pow", 0.5, 1.5**0.5, 1.5**0.5),
    ("multiplicative_pow", 1.75, 0.25**0.5, 2.75**0.5),
    ("multiplicative_pow", 2.25, 0, 3.25**0.5),
    ("multiplicative_relu", 1.75, 0.25, 2.75),
    ("multiplicative_relu", -1.5, 3.5, 0),
]


@pytest.mark.parametrize(("algorithm", "w", "up", "down"), CASES)
def test_change_depends_on_the_weight_as_the_table_says(algorithm, w, up, down):
    p = STDPParameters(
        w_min=-1.0, w_max=2.0, eta_plus=1e-3, eta_minus=2e-3, stdp_algorithm=algorithm, mu=0.5, hardbound=False
    )
    assert single(w, p, causal=True) == pytest.approx(1e-3 * up, rel=1e-9, abs=1e-12)
    assert single(w, p, causal=False) == pytest.approx(-2e-3 * down, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("mu", "up"), [(0.0, 1.0), (1.0, 0.3)])
def test_mu_goes_from_additive_to_linear(mu, up):
    p = STDPParameters(stdp_algorithm="multiplicative_pow", mu=mu)
    assert single(0.7, p, causal=True) == pytest.approx(1e-3 * up, rel=1e-9)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("bound", [1.0, torch.tensor([[0.8, 0.9], [1.0, 0.7]])])
def test_hard_bounds_hold(algorithm, bound):
    p = STDPParameters(w_max=bound, eta_plus=0.4, eta_minus=0.3, stdp_algorithm=algorithm, mu=0.5)
    generator = torch.Generator().manual_seed(1)
    z_pre = (torch.rand(100, 2, 2, generator=generator) < 0.3).float()
    z_post = (torch.rand(100, 2, 2, generator=generator) < 0.3).float()
    state = STDPState(torch.zeros(2, 2), torch.zeros(2, 2))
    w, loose = torch.full((2, 2), 0.5), False
    for pre, post in zip(z_pre, z_post, strict=True):
        free, _ = stdp_step_linear(pre, post, w, state, p._replace(hardbound=False))
        w, state = stdp_step_linear(pre, post, w, state, p)
        loose |= bool(((free < 0) | (free > bound)).any())
        assert ((w >= 0) & (w <= bound)).all()
    assert loose, "the case must need its bounds"


def test_an_unknown_algorithm_is_refused():
    z = torch.zeros(1, 1)
    with pytest.raises(ValueError, match=r"stdp_algorithm must be one of .*'multiplicative_pow'.*, got 'hebb'"):
        stdp_step_linear(z, z, z, STDPState(z, z), STDPParameters(stdp_algorithm="hebb"))


@pytest.mark.parametrize(
    ("pre", "post", "w"), [((2, 4), (2, 3), (4, 3)), ((1, 4), (2, 3), (3, 4)), ((4,), (3,), (3, 4))]
)
def test_shapes_that_do_not_fit_are_refused(pre, post, w):
    z_pre, z_post = torch.zeros(pre), torch.zeros(post)
    with pytest.raises(ValueError, match=r"w \[N, M\] or \[B, N, M\], got \[") as error:
        stdp_step_linear(z_pre, z_post, torch.zeros(w), STDPState(z_pre, z_post))
    assert str(list(w)) in str(error.value)


def test_wrong_rates_are_refused():
    z = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="tau_post_inv=-5"):
        stdp_step_linear(z, z, z, STDPState(z, z), STDPParameters(tau_post_inv=-5.0))
    with pytest.raises(ValueError, match="dt=-1"):
        stdp_step_linear(z, z, z, STDPState(z, z), dt=-1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_weights_of_each_samples_own_change_as_if_it_were_alone(algorithm):
    generator = torch.Generator().manual_seed(3)
    z_pre = (torch.rand(40, 3, 5, generator=generator) < 0.2).double()
    z_post = (torch.rand(40, 3, 2, generator=generator) < 0.2).double()
    w = torch.rand(3, 2, 5, generator=generator, dtype=torch.float64)
    p = STDPParameters(stdp_algorithm=algorithm, mu=0.5, eta_plus=0.02, eta_minus=0.01)
    new, state = learn(z_pre, z_post, w, p)
    assert state.t_pre.shape == (3, 5)
    assert not torch.equal(new, w)
    for b in range(3):
        alone, _ = learn(z_pre[:, b : b + 1], z_post[:, b : b + 1], w[b], p)
        torch.testing.assert_close(new[b], alone)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.bfloat16])
def test_spikes_may_have_any_dtype(dtype):
    generator = torch.Generator().manual_seed(4)
    z_pre, z_post = (torch.rand(3, n, generator=generator) < 0.5 for n in (5, 2))
    traces, w = STDPState(torch.rand(3, 5), torch.rand(3, 2)), torch.rand(2, 5)
    found = stdp_step_linear(z_pre.to(dtype), z_post.to(dtype), w, traces)
    torch.testing.assert_close(found, stdp_step_linear(z_pre.float(), z_post.float(), w, traces))


def test_no_state_is_no_trace():
    z_pre, z_post, w = torch.ones(2, 3), torch.ones(2, 4), torch.rand(4, 3)
    zeros = STDPState(torch.zeros(2, 3), torch.zeros(2, 4))
    for given in ((None,), ()):
        for found, wanted in zip(
            stdp_step_linear(z_pre, z_post, w, *given), stdp_step_linear(z_pre, z_post, w, zeros), strict=True
        ):
            torch.testing.assert_close(found, wanted)
