"""Decoders as modules."""

import torch

from snnlib import SpikesToTimesDecoder


def test_times_of_spikes_as_a_module():
    spikes = torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]], [[0.0, 1.0]]])
    assert SpikesToTimesDecoder(2, dt=0.5)(spikes).tolist() == [[[0.5, 0.0]], [[torch.inf, 0.5]]]
    assert SpikesToTimesDecoder(convert_indices_to_times=False)(spikes).tolist() == [[[1.0, 0.0]]]
