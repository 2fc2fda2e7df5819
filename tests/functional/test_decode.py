import numpy as np
import pytest
import torch

from snnlib.functional.decode import (
    last_decode,
    max_decode,
    mean_decode,
    spike_count_decode,
    spike_index_decode,
    spike_time_decode,
    sum_decode,
)

REDUCTIONS = {
    sum_decode: lambda x, d: x.sum(d),
    mean_decode: lambda x, d: x.mean(d),
    max_decode: lambda x, d: x.max(d),
    last_decode: lambda x, d: np.take(x, -1, d),
    spike_count_decode: lambda x, d: (x != 0).sum(d),
}


@pytest.mark.parametrize("decode", REDUCTIONS)
@pytest.mark.parametrize("dimension", [0, 1, -1])
def test_equals_numpy_in_every_dimension(decode, dimension):
    x = torch.randn(6, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).relu()
    found = decode(x, dimension).numpy()
    np.testing.assert_allclose(found, REDUCTIONS[decode](x.numpy(), dimension), rtol=1e-14)
    if dimension == 0:
        assert torch.equal(decode(x), decode(x, 0))


def test_gradients_of_the_reductions():
    x = torch.tensor([[1.0, 4.0], [3.0, 4.0], [2.0, 0.0]], requires_grad=True)

    def gradient(decode):
        return torch.autograd.grad(decode(x).sum(), x)[0].tolist()

    assert gradient(sum_decode) == [[1, 1]] * 3
    torch.testing.assert_close(torch.tensor(gradient(mean_decode)), torch.full((3, 2), 1 / 3))
    assert gradient(max_decode) == [[0, 0.5], [1, 0.5], [0, 0]]
    assert gradient(last_decode) == [[0, 0], [0, 0], [1, 1]]


def test_count_is_an_integer_without_a_gradient():
    spikes = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.5, 1.0]], requires_grad=True)
    count = spike_count_decode(spikes)
    assert count.dtype == torch.int64
    assert count.tolist() == [3, 1]
    assert not count.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_time_of_the_first_spike(dtype):
    spikes = torch.rand(700, 5, 6, generator=torch.Generator().manual_seed(1)) < 0.004
    spikes[:, 0, 0] = False
    spikes[0, 0, 1] = True
    found = spike_time_decode(spikes.to(dtype), dt=0.002)
    expected = np.full((5, 6), 700 * 0.002)
    for b, n in np.ndindex(5, 6):
        times = np.flatnonzero(spikes[:, b, n].numpy())
        if len(times):
            expected[b, n] = times[0] * 0.002
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found[0, 0] == pytest.approx(1.4)
    assert found[0, 1] == 0
    assert spikes.sum(0).max() > 1
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_gradient_of_the_time_ends_at_the_second_spike():
    columns = [[0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]]
    spikes = torch.tensor(columns, dtype=torch.float64).T.requires_grad_()
    time = spike_time_decode(spikes, dt=0.1)
    torch.testing.assert_close(time.detach(), torch.tensor([0.6, 0.1, 0.0, 0.5], dtype=torch.float64))
    weight = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(time, spikes, weight)
    until_second = [6, 4, 1, 6]
    expected = torch.zeros(6, 4, dtype=torch.float64)
    for column, end in enumerate(until_second):
        for t in range(end):
            expected[t, column] = -(6 - t) * 0.1 * weight[column]
    torch.testing.assert_close(gradient, expected)


def test_steps_of_the_first_spikes_and_their_gradient():
    spikes = torch.tensor([[0, 1, 0, 1], [1, 1, 0, 0], [1, 1, 0, 0]], dtype=torch.float64).requires_grad_()
    steps = spike_index_decode(spikes, 2)
    assert steps.tolist() == [[1, 0, torch.inf, 0], [2, 1, torch.inf, torch.inf]]
    weight = torch.tensor([[1.0, 2.0, 9.0, 3.0], [4.0, 5.0, 9.0, 9.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(steps, spikes, weight)
    assert gradient.tolist() == [[0, -2, 0, -3], [-1, -5, 0, 0], [-4, 0, 0, 0]]
    assert spike_index_decode(spikes, 7).shape == (3, 4)


@pytest.mark.parametrize("decode", [*REDUCTIONS, spike_index_decode, spike_time_decode])
def test_a_sequence_without_steps_is_refused(decode):
    with pytest.raises(ValueError, match=r"must have a step in dimension 0, got shape \[0, 3\]"):
        decode(torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"must have a step in dimension 0, got shape \[\]"):
        decode(torch.tensor(1.0))


@pytest.mark.parametrize("decode", REDUCTIONS)
@pytest.mark.parametrize("dimension", [2, -3])
def test_a_dimension_that_is_not_there_is_refused(decode, dimension):
    with pytest.raises(ValueError, match=rf"in dimension {dimension}, got shape \[4, 3\]"):
        decode(torch.zeros(4, 3), dimension)


def test_a_wrong_time_step_is_refused():
    with pytest.raises(ValueError, match=r"dt=-0\.1"):
        spike_time_decode(torch.zeros(4, 3), dt=-0.1)


@pytest.mark.parametrize("count", [0, -1, 1.5])
def test_a_count_that_is_none_is_refused(count):
    with pytest.raises(ValueError, match=f"count must be an integer of at least 1, got count={count}"):
        spike_index_decode(torch.ones(3, 2), count)


def test_every_kind_of_integer_is_a_count():
    z = torch.eye(3)
    assert torch.equal(spike_index_decode(z, np.int64(2)), spike_index_decode(z, 2))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_the_mean_of_spikes_that_are_no_floats(dtype):
    assert mean_decode(torch.tensor([[1], [0]]).to(dtype)).tolist() == [0.5]
