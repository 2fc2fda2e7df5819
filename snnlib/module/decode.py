"""Decoders as modules, see :mod:`snnlib.functional.decode`."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from snnlib.engine.check import check_parameters, checked_length
from snnlib.functional.decode import spike_index_decode

__all__ = ["SpikesToTimesDecoder"]


class SpikesToTimesDecoder(nn.Module):
    """The times of the first spikes of each neuron: :func:`.spike_index_decode` times ``dt``.

    Parameters:
        spike_count: how many spikes K of a neuron.
        convert_indices_to_times: give times in s, not numbers of steps.
        dt: time step in s.

    Raises:
        ValueError: ``spike_count`` is no positive integer, or ``dt`` is not positive.

    Shapes:
        input ``[T, B, *features]``, output ``[K, B, *features]``, inf where a neuron has no such spike.
    """

    over_time = True

    def __init__(self, spike_count: int = 1, convert_indices_to_times: bool = True, dt: float = 0.001) -> None:
        super().__init__()
        check_parameters(None, dt)
        self.spike_count = checked_length("spike_count", spike_count)
        self.convert_to_time, self.dt = convert_indices_to_times, dt

    def forward(self, spike_input: Tensor) -> Tensor:
        steps = spike_index_decode(spike_input, self.spike_count)
        missing = self.spike_count - len(steps)
        if missing > 0:  # there are fewer steps than spikes to look for
            steps = pad(steps, [0, 0] * (steps.dim() - 1) + [0, missing], value=torch.inf)
        return steps * self.dt if self.convert_to_time else steps
