import math
import re

import numpy as np
import pytest
import torch

from snnlib.functional.encode import (
    constant_current_lif_encode,
    euclidean_distance,
    gaussian_rbf,
    poisson_encode,
    poisson_encode_step,
    population_encode,
    signed_poisson_encode,
    signed_poisson_encode_step,
    spike_latency_encode,
    spike_latency_lif_encode,
)
from snnlib.functional.lif import LIFParameters
from snnlib.functional.lif_box import LIFBoxParameters


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def lif_by_hand(current, steps, tau_mem_inv=100.0, v_leak=0.0, v_th=1.0, v_reset=0.0, dt=0.001):
    v = np.full(current.shape, v_leak)
    spikes = []
    for _ in range(steps):
        v = v + dt * tau_mem_inv * (v_leak - v + current)
        fired = v > v_th
        v = np.where(fired, v_reset, v)
        spikes.append(fired.astype(float))
    return np.stack(spikes)


def test_constant_current_gives_the_spikes_of_norse_example():
    spikes = constant_current_lif_encode(torch.tensor([2.0, 4.0, 8.0, 16.0]), 2)
    assert spikes.tolist() == [[0, 0, 0, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("kind", [LIFBoxParameters, LIFParameters])
def test_constant_current_equals_numpy(shape, kind):
    current = 1 + 6 * torch.rand(shape, generator=seeded(1), dtype=torch.float64)
    numbers = {"tau_mem_inv": 80.0, "v_leak": -0.2, "v_th": 0.7, "v_reset": 0.1}
    spikes = constant_current_lif_encode(current, 40, kind(**numbers), dt=0.002)
    expected = lif_by_hand(current.numpy(), 40, dt=0.002, **numbers)
    assert spikes.shape == (40, *shape)
    assert expected.sum() > 0
    np.testing.assert_array_equal(spikes.numpy(), expected)


def test_constant_current_takes_one_threshold_a_neuron():
    threshold = torch.tensor([0.5, 1.0, 3.0])
    spikes = constant_current_lif_encode(torch.full((2, 3), 2.0), 50, LIFBoxParameters(v_th=threshold))
    expected = lif_by_hand(np.full((2, 3), 2.0), 50, v_th=threshold.numpy())
    np.testing.assert_array_equal(spikes.numpy(), expected)
    assert spikes[..., 2].sum() == 0


def test_gradient_reaches_the_current():
    current = torch.tensor([0.5, 2.0], requires_grad=True)
    constant_current_lif_encode(current, 20).sum().backward()
    assert (current.grad > 0).all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_latency_keeps_the_first_spike_of_each_column(dtype):
    spikes = torch.rand(30, 4, 5, generator=seeded(2)) < 0.1
    kept = spike_latency_encode(spikes.to(dtype))
    expected = np.zeros((30, 4, 5))
    for b, n in np.ndindex(4, 5):
        times = np.flatnonzero(spikes[:, b, n].numpy())
        if len(times):
            expected[times[0], b, n] = 1
    assert kept.dtype == dtype
    np.testing.assert_array_equal(kept.numpy().astype(float), expected)
    assert 0 < expected.sum() < spikes.sum()


def test_latency_keeps_the_value_of_a_signed_spike():
    spikes = torch.tensor([[0.0, 1.0], [-1.0, -1.0], [1.0, 0.0]])
    assert spike_latency_encode(spikes).tolist() == [[0, 1], [-1, 0], [0, 0]]
    assert spike_latency_encode(torch.tensor([1.0, float("inf"), float("nan")])).tolist() == [1, 0, 0]


def test_latency_of_a_lif_is_the_closed_form():
    current = torch.tensor([0.9, 1.2, 2.0, 3.7, 9.0, 20.0], dtype=torch.float64)
    spikes = spike_latency_lif_encode(current, 60)
    assert spikes.sum(0).tolist() == [0, 1, 1, 1, 1, 1]
    for neuron, i in enumerate(current.tolist()[1:], start=1):
        first = int(spikes[:, neuron].argmax())
        # after n steps v = i (1 - 0.9^n), compared with a threshold of 1
        assert first + 1 == math.floor(math.log(1 - 1 / i) / math.log(0.9)) + 1
    fine = spike_latency_lif_encode(current, 6000, dt=1e-5)[:, 1:].argmax(0) * 1e-5
    exact = torch.log(current[1:] / (current[1:] - 1)) / 100
    torch.testing.assert_close(fine, exact.float(), rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("value", "f_max", "dt"), [(0.3, 100.0, 0.001), (1.0, 250.0, 0.002), (0.05, 1000.0, 0.001)]
)
def test_poisson_rate_is_within_five_deviations(value, f_max, dt):
    steps, neurons = 1000, 200
    spikes = poisson_encode(torch.full((neurons,), value), steps, f_max, dt, seeded(3))
    p = dt * f_max * value
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert abs(spikes.mean().item() - p) < 5 * math.sqrt(p * (1 - p) / (steps * neurons))
    pairs = (spikes[1:] * spikes[:-1]).mean().item()
    assert abs(pairs - p * p) < 5 * math.sqrt(p * p / ((steps - 1) * neurons))


@pytest.mark.parametrize("encode", [poisson_encode, signed_poisson_encode])
def test_a_seed_gives_the_same_spikes_in_every_dtype(encode):
    values = torch.linspace(0, 1, 9)
    first = encode(values, 200, 900.0, generator=seeded(4))
    assert first.shape == (200, 9)
    assert torch.equal(first, encode(values, 200, 900.0, generator=seeded(4)))
    assert not torch.equal(first, encode(values, 200, 900.0, generator=seeded(5)))
    exact = encode(values.double(), 200, 900.0, generator=seeded(4))
    assert exact.dtype == torch.float64
    assert torch.equal(first.double(), exact)
    half = encode(torch.tensor([0.25, 0.5]).bfloat16(), 3, generator=seeded(4))
    assert half.dtype == torch.bfloat16


def test_poisson_draws_from_the_global_generator_by_default():
    def draw():
        with torch.random.fork_rng():
            torch.manual_seed(6)
            return poisson_encode(torch.full((50,), 0.5), 20, 1000)

    assert torch.equal(draw(), draw())


def test_probabilities_zero_and_one_are_certain():
    spikes = poisson_encode(torch.tensor([0.0, 1.0]), 10_000, 1000.0, generator=seeded(7))
    assert spikes.sum(0).tolist() == [0, 10_000]
    signed = signed_poisson_encode(torch.tensor([0.0, 1.0, -1.0]), 10_000, 1000.0, generator=seeded(7))
    assert signed.sum(0).tolist() == [0, 10_000, -10_000]


def test_signed_spikes_are_the_spikes_of_the_size_with_the_sign():
    values = torch.tensor([-0.9, -0.2, 0.2, 0.9])
    signed = signed_poisson_encode(values, 500, 800.0, generator=seeded(8))
    size = poisson_encode(values.abs(), 500, 800.0, generator=seeded(8))
    assert torch.equal(signed, size * values.sign())
    assert not torch.signbit(signed[signed == 0]).any()


@pytest.mark.parametrize(
    ("step", "sequence"),
    [(poisson_encode_step, poisson_encode), (signed_poisson_encode_step, signed_poisson_encode)],
)
def test_one_step_is_a_sequence_of_one(step, sequence):
    values = torch.rand(40, 5, generator=seeded(9))
    one = step(values, 700.0, 0.001, seeded(10))
    assert one.shape == values.shape
    assert torch.equal(one, sequence(values, 1, 700.0, 0.001, seeded(10))[0])
    assert step(torch.ones(1000), generator=seeded(0)).sum() == 1000
    assert sequence(torch.ones(1000), 1, generator=seeded(0)).sum() < 200


def test_random_spikes_carry_no_gradient():
    values = torch.rand(3, requires_grad=True)
    assert not poisson_encode(values, 2).requires_grad
    assert not signed_poisson_encode(values, 2).requires_grad


def test_population_gives_norse_example():
    expected = [[1, 0.8825, 0.6065], [0.8825, 1, 0.8825], [0.6065, 0.8825, 1]]
    found = population_encode(torch.tensor([0, 0.5, 1]), 3)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=5e-5)


@pytest.mark.parametrize("out_features", [1, 2, 7])
@pytest.mark.parametrize("scale", [None, 2.5, torch.tensor(2.5), torch.tensor([[1.0], [4.0]]).double()])
def test_population_equals_numpy(out_features, scale):
    values = 3 * torch.rand(2, 4, generator=seeded(11), dtype=torch.float64) - 1
    found = population_encode(values, out_features, scale)
    last = np.broadcast_to(values.max().item() if scale is None else np.asarray(scale, dtype=float), (2, 4))
    expected = np.empty((2, 4, out_features))
    for b, n, k in np.ndindex(2, 4, out_features):
        centre = last[b, n] * k / max(out_features - 1, 1)
        expected[b, n, k] = math.exp(-last[b, n] * (values[b, n].item() - centre) ** 2 / 2)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_population_takes_a_kernel_and_a_distance():
    found = population_encode(
        torch.tensor([0.5, 3.0]), 3, 2.0, kernel=lambda d: 10 * d, distance_function=lambda x, y: (x - y).abs()
    )
    torch.testing.assert_close(found, torch.tensor([[10.0, 10.0, 30.0], [60.0, 40.0, 20.0]]))
    assert population_encode(torch.tensor(0.5), 3).shape == (3,)


def test_distance_is_squared_and_kernel_takes_it_so():
    assert euclidean_distance(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 5.0])).tolist() == [4.0, 49.0]
    assert gaussian_rbf(torch.tensor(9.0), sigma=1.5).item() == pytest.approx(math.exp(-2.0))


TIMED = [constant_current_lif_encode, spike_latency_lif_encode, poisson_encode, signed_poisson_encode]
SPIKES = [poisson_encode, signed_poisson_encode]
STEPS = [poisson_encode_step, signed_poisson_encode_step]


@pytest.mark.parametrize("encode", TIMED)
@pytest.mark.parametrize("length", [0, -3, 2.0, "4", True, torch.tensor(3.0)])
def test_a_wrong_length_is_refused(encode, length):
    with pytest.raises(ValueError, match=re.escape(f"seq_length={length!r}")):
        encode(torch.tensor([0.5]), length)


@pytest.mark.parametrize("encode", TIMED)
def test_every_kind_of_integer_is_a_length(encode):
    assert encode(torch.tensor([0.5]), np.int64(4)).shape == (4, 1)
    assert encode(torch.tensor([0.5]), torch.tensor(4)).shape == (4, 1)
    assert population_encode(torch.tensor([0.5]), np.uint8(3)).shape == (1, 3)


@pytest.mark.parametrize("out_features", [0, 1.5])
def test_a_wrong_population_is_refused(out_features):
    with pytest.raises(ValueError, match=f"out_features={out_features}"):
        population_encode(torch.tensor([0.5]), out_features)


@pytest.mark.parametrize("encode", [*TIMED, population_encode])
def test_integers_and_nan_are_refused(encode):
    name = "input_current" if "lif" in encode.__name__ else "input_values"
    with pytest.raises(ValueError, match=rf"{name} must be floating point, got dtype torch.int64"):
        encode(torch.tensor([1, 0]), 3)
    with pytest.raises(ValueError, match=rf"{name} must be .*, got nan at index \[1, 0\]"):
        encode(torch.tensor([[0.1], [math.nan]]), 3)
    with pytest.raises(ValueError, match=rf"{name} must be .*, got inf at index \[1\]"):
        encode(torch.tensor([0.1, math.inf]), 3)


@pytest.mark.parametrize("encode", SPIKES)
def test_values_outside_of_the_range_are_refused(encode):
    with pytest.raises(ValueError, match=r"input_values must be finite and in .*, got 1\.5 at index \[2\]"):
        encode(torch.tensor([0.0, 1.0, 1.5]), 3)
    with pytest.raises(ValueError, match=r"input_values must be finite and in .*, got -1\.25"):
        encode(torch.tensor(-1.25), 3)


def test_only_the_signed_encoder_takes_negative_values():
    with pytest.raises(ValueError, match=r"input_values must be finite and in \[0, 1\], got -0.5"):
        poisson_encode(torch.tensor([-0.5]), 3)
    with pytest.raises(ValueError, match=r"input_values must be finite and in \[0, 1\], got -0.5"):
        poisson_encode_step(torch.tensor([-0.5]))
    assert signed_poisson_encode(torch.tensor([-0.5]), 3).shape == (3, 1)


@pytest.mark.parametrize("step", STEPS)
def test_a_rate_that_is_no_probability_is_refused(step):
    with pytest.raises(ValueError, match=r"dt \* f_max .*dt=0.002, f_max=600"):
        step(torch.tensor([0.5]), 600, 0.002)
    with pytest.raises(ValueError, match="f_max=-1"):
        step(torch.tensor([0.5]), -1)
    with pytest.raises(ValueError, match="dt=0"):
        step(torch.tensor([0.5]), 100, 0)
    for several in (torch.tensor([5.0, 9.0]), np.array([5.0, 9.0])):
        with pytest.raises(ValueError, match=r"f_max must be one number, got shape \[2\]"):
            step(torch.tensor([0.5, 0.5]), several)
    assert step(torch.tensor([0.5]), torch.tensor(5.0)).shape == (1,)


def test_other_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="input_spikes must be"):
        spike_latency_encode(torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"scale must be finite .*, got nan"):
        population_encode(torch.tensor([0.5]), 3, math.nan)
    with pytest.raises(ValueError, match=r"scale must be .*, got -0\.5"):
        population_encode(torch.tensor([-0.5, -2.0]), 3)
    for scale in (torch.ones(3), torch.ones(1, 2)):
        with pytest.raises(ValueError, match=r"scale must broadcast to \[2\], got shape"):
            population_encode(torch.tensor([0.5, 1.0]), 3, scale)
    with pytest.raises(ValueError, match="tau_mem_inv=-1"):
        constant_current_lif_encode(torch.tensor([0.5]), 3, LIFBoxParameters(tau_mem_inv=-1.0))


@pytest.mark.parametrize("step", [poisson_encode_step, signed_poisson_encode_step])
def test_a_single_number_is_encoded(step):
    for rate in (1000, torch.tensor([1000.0]), np.array([[1000.0]])):
        spikes = step(torch.tensor(1.0), f_max=rate)
        assert isinstance(spikes, torch.Tensor)
        assert (spikes.shape, float(spikes)) == ((), 1.0)


def test_a_population_of_nothing_needs_a_scale():
    with pytest.raises(ValueError, match="scale must be given where input_values is empty"):
        population_encode(torch.zeros(0), 4)
    assert population_encode(torch.zeros(0), 4, scale=1.0).shape == (0, 4)
