"""Decoders as modules, see :mod:`snnlib.functional.decode`."""

from torch import Tensor, nn

from snnlib.functional.decode import spike_index_decode

__all__ = ["SpikesToTimesDecoder"]


class SpikesToTimesDecoder(nn.Module):
    """The times of the first spikes of each neuron: :func:`.spike_index_decode` times ``dt``.

    Parameters:
        spike_count: how many spikes K of a neuron.
        convert_indices_to_times: give times in s, not numbers of steps.
        dt: time step in s.

    Shapes:
        input ``[T, B, *features]``, output ``[K, B, *features]``, inf where a neuron has no such spike.
    """

    over_time = True

    def __init__(self, spike_count: int = 1, convert_indices_to_times: bool = True, dt: float = 0.001) -> None:
        super().__init__()
        self.spike_count, self.convert_to_time, self.dt = int(spike_count), convert_indices_to_times, dt

    def forward(self, spike_input: Tensor) -> Tensor:
        steps = spike_index_decode(spike_input, self.spike_count)
        return steps * self.dt if self.convert_to_time else steps
