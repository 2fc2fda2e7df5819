"""Networks that choose actions: recurrent spiking neurons between an encoder and a readout."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from snnlib.engine.scan import Backend
from snnlib.functional.encode import constant_current_lif_encode
from snnlib.functional.li import LIParameters
from snnlib.functional.lif import LIFParameters
from snnlib.functional.lsnn import LSNNParameters
from snnlib.module.li import LI
from snnlib.module.lif import LIFRecurrent
from snnlib.module.lsnn import LSNNRecurrent

__all__ = ["RunningScale", "SpikingPolicy", "tanh_network"]


class SpikingPolicy(nn.Module):
    """Scores of actions from observations, each presented for a number of time steps, from rest.

    ::

        s     = spikes of LIF neurons under the currents  input_scale (max(x, 0), max(-x, 0))     [T, B, 2 M]
        z     = recurrent neurons of s                                                            [T, B, N]
        v     = leaky integrators of W z                                                          [T, B, A]
        score = mean of v over time                                                               [B, A]

    Parameters:
        input_size, hidden_size, actions: M observed numbers, N neurons, A actions.
        p: of the neurons; LSNNParameters make them adaptive.
        seq_length: time steps T of a presentation.
        input_scale: current of an observation of 1, in thresholds.
        dt: time step in s.
        backend: see :func:`snnlib.engine.scan`.

    Shapes:
        input ``[B, M]``, around 1 in size; output ``[B, A]``, unnormalised log-probabilities. One observation,
        ``[M]``, has scores ``[A]``.

    Raises:
        ValueError: a time constant is not one number; and see :func:`snnlib.engine.scan` and
            :func:`~snnlib.functional.encode.constant_current_lif_encode`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        actions: int,
        p: LIFParameters | LSNNParameters = LIFParameters(),
        seq_length: int = 16,
        input_scale: float = 5.0,
        dt: float = 0.001,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        self.seq_length, self.input_scale, self.dt = seq_length, input_scale, dt
        for name in ("tau_syn_inv", "tau_mem_inv"):
            value = getattr(p, name)
            if isinstance(value, Tensor) and value.numel() != 1:
                raise ValueError(
                    f"p.{name} must be one number, it is that of encoder and readout too; "
                    f"got shape {list(value.shape)}"
                )
        neurons: Any = LSNNRecurrent if isinstance(p, LSNNParameters) else LIFRecurrent
        self.hidden = neurons(2 * input_size, hidden_size, p, dt, backend=backend)
        self.weights = nn.Linear(hidden_size, actions, bias=False)
        readout = LIParameters(tau_syn_inv=p.tau_syn_inv, tau_mem_inv=p.tau_mem_inv)
        self.readout = LI(readout, dt, backend=backend)

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() == 1:
            return cast(Tensor, self(input[None])[0])
        current = self.input_scale * torch.cat([input.relu(), (-input).relu()], 1)
        encoder = LIFParameters(tau_mem_inv=self.hidden.p.tau_mem_inv)
        spikes = constant_current_lif_encode(current, self.seq_length, encoder, self.dt)
        z, _ = self.hidden(spikes)
        voltage: Tensor = self.readout(self.weights(z))[0]
        return voltage.mean(0)


def tanh_network(input_size: int, hidden_size: int, outputs: int) -> nn.Sequential:
    """Two hidden layers without spikes, ``[B, input_size]`` to ``[B, outputs]``."""
    first, second = nn.Linear(input_size, hidden_size), nn.Linear(hidden_size, hidden_size)
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Linear(hidden_size, outputs))


class RunningScale(nn.Module):
    """Subtract the mean of all inputs seen so far and divide by their standard deviation.

    It learns from :meth:`see` alone, not from ``forward``. Results are kept within -10 and 10.

    Shapes:
        input ``[B, features]`` on any device, output the same on the module's.

    Source:
        Chan, Golub & LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample variances.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, input: Tensor) -> Tensor:
        mean, variance = self.get_buffer("mean"), self.get_buffer("variance")
        return ((input.to(mean.device) - mean) / (variance + 1e-8).sqrt()).clamp(-10, 10)

    @torch.no_grad()
    def see(self, input: Tensor) -> None:
        """Take a batch of inputs into the mean and the variance."""
        if not len(input):
            return
        mean, variance, count = (self.get_buffer(name) for name in ("mean", "variance", "count"))
        x = input.to(mean)
        count += len(x)
        share = len(x) / count
        step = x.mean(0) - mean
        variance.lerp_(x.var(0, correction=0), share).add_(share * (1 - share) * step.square())
        mean.add_(share * step)
