"""A sum over what a neuron did as a module, see :mod:`snnlib.functional.regularization`."""

from typing import Any

from torch import Tensor, nn

from snnlib.functional.regularization import Accumulator, regularize_step, spike_accumulator

__all__ = ["RegularizationCell"]


class RegularizationCell(nn.Module):
    """Sums up what a neuron does, for a term of the loss.

    ::

        z, s = cell(input, s)
        z, total = regularization(z, s)
        loss = ... + 1e-3 * total

    Spikes can be of a step or of a sequence. For voltages over a sequence see :func:`.voltage_accumulator`.

    Other than a neuron it keeps its sum itself, in ``state``: set it to None before the next sequence.

    Parameters:
        accumulator: what is summed up, :func:`.spike_accumulator`, :func:`.voltage_accumulator` or one's own.
        state: the sum to begin with; None for none.
    """

    def __init__(self, accumulator: Accumulator = spike_accumulator, state: Any = None) -> None:
        super().__init__()
        self.accumulator, self.state = accumulator, state

    def forward(self, z: Tensor, s: Any) -> tuple[Tensor, Any]:
        _, self.state = regularize_step(z, s, self.accumulator, self.state)
        return z, self.state
