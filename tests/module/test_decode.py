"""Decoders as modules."""

import pytest
import torch

from snnlib import SpikesToTimesDecoder


def test_times_of_spikes_as_a_module():
    spikes = torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]], [[0.0, 1.0]]])
    assert SpikesToTimesDecoder(2, dt=0.5)(spikes).tolist() == [[[0.5, 0.0]], [[torch.inf, 0.5]]]
    assert SpikesToTimesDecoder(convert_indices_to_times=False)(spikes).tolist() == [[[1.0, 0.0]]]


def test_of_fewer_steps_than_spikes_the_rest_did_not_come():
    spikes = torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]], requires_grad=True)
    times = SpikesToTimesDecoder(3, dt=0.5)(spikes)
    assert times.tolist() == [[[0.5, 0.0]], [[torch.inf, 0.5]], [[torch.inf, torch.inf]]]
    (gradient,) = torch.autograd.grad(times[times.isfinite()].sum(), spikes)
    assert gradient.tolist() == [[[0.0, -0.5]], [[-0.5, -0.5]]]


@pytest.mark.parametrize("dt", [-1.0, torch.nan])
def test_a_wrong_time_step_is_refused(dt):
    with pytest.raises(ValueError, match=f"dt={dt}"):
        SpikesToTimesDecoder(dt=dt)


@pytest.mark.parametrize("count", [0, 2.7])
def test_a_count_that_is_none_is_refused(count):
    with pytest.raises(
        ValueError, match=f"spike_count must be an integer of at least 1, got spike_count={count}"
    ):
        SpikesToTimesDecoder(count)
