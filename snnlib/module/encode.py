"""Encoders as modules, see :mod:`snnlib.functional.encode`."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from snnlib.functional.encode import (
    constant_current_lif_encode,
    euclidean_distance,
    gaussian_rbf,
    poisson_encode,
    population_encode,
    signed_poisson_encode,
    spike_latency_encode,
    spike_latency_lif_encode,
)
from snnlib.functional.lif import LIFParameters
from snnlib.functional.lif_box import LIFBoxParameters
from snnlib.module.parameters import Parametric, described, register

__all__ = [
    "ConstantCurrentLIFEncoder",
    "PoissonEncoder",
    "PopulationEncoder",
    "SignedPoissonEncoder",
    "SpikeLatencyEncoder",
    "SpikeLatencyLIFEncoder",
]


class ConstantCurrentLIFEncoder(Parametric):
    """Spikes of neurons that a constant current drives: :func:`.constant_current_lif_encode`.

    Parameters:
        seq_length: time steps T.
        p: of the neurons; tensors are registered, see :class:`.Parametric`.
        dt: time step in s.

    Shapes:
        input ``[B, *features]``, output ``[T, B, *features]``.
    """

    def __init__(
        self, seq_length: int, p: LIFBoxParameters | LIFParameters = LIFParameters(), dt: float = 0.001
    ) -> None:
        super().__init__(p, LIFParameters() if isinstance(p, LIFParameters) else LIFBoxParameters(), dt)
        self.seq_length = seq_length

    def extra_repr(self) -> str:
        return f"{described(seq_length=self.seq_length)}, {super().extra_repr()}"

    def forward(self, input: Tensor) -> Tensor:
        return constant_current_lif_encode(input, self.seq_length, self.p, self.dt)


class SpikeLatencyLIFEncoder(ConstantCurrentLIFEncoder):
    """The first spike of neurons that a constant current drives: :func:`.spike_latency_lif_encode`.

    Parameters and shapes are those of :class:`ConstantCurrentLIFEncoder`.
    """

    def forward(self, input: Tensor) -> Tensor:
        return spike_latency_lif_encode(input, self.seq_length, self.p, self.dt)


class SpikeLatencyEncoder(nn.Module):
    """The first spike of each neuron: :func:`.spike_latency_encode`, on ``[T, B, *features]``."""

    over_time = True

    def forward(self, input: Tensor) -> Tensor:
        return spike_latency_encode(input)


class PoissonEncoder(nn.Module):
    """Poisson spikes at rates between 0 and ``f_max``: :func:`.poisson_encode`.

    Parameters:
        seq_length: time steps T.
        f_max: rate of a value of 1, Hz.
        dt: time step in s.
        generator: of the random numbers; torch's global one if None.

    Shapes:
        input ``[B, *features]`` between 0 and 1, output ``[T, B, *features]``.
    """

    def __init__(
        self,
        seq_length: int,
        f_max: float = 100.0,
        dt: float = 0.001,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.seq_length, self.f_max, self.dt, self.generator = seq_length, f_max, dt, generator

    def extra_repr(self) -> str:
        return described(seq_length=self.seq_length, f_max=self.f_max, dt=self.dt)

    def forward(self, input: Tensor) -> Tensor:
        return poisson_encode(input, self.seq_length, self.f_max, self.dt, self.generator)


class SignedPoissonEncoder(PoissonEncoder):
    """Poisson spikes with the sign of their value: :func:`.signed_poisson_encode`.

    Parameters and shapes are those of :class:`PoissonEncoder`, values between -1 and 1.
    """

    def forward(self, input: Tensor) -> Tensor:
        return signed_poisson_encode(input, self.seq_length, self.f_max, self.dt, self.generator)


class PopulationEncoder(nn.Module):
    """Each value as the activity of neurons that prefer different values: :func:`.population_encode`.

    Parameters:
        out_features: neurons for each value.
        scale: largest preferred value; the largest input if None. A tensor is registered.
        kernel: activity of a neuron at a distance from what it prefers.
        distance_function: that distance.

    Shapes:
        input ``[*shape]``, output ``[*shape, out_features]``.
    """

    scale: float | Tensor | None

    def __init__(
        self,
        out_features: int,
        scale: float | Tensor | None = None,
        kernel: Callable[[Tensor], Tensor] = gaussian_rbf,
        distance_function: Callable[[Tensor, Tensor], Tensor] = euclidean_distance,
    ) -> None:
        super().__init__()
        self.out_features, self.kernel, self.distance_function = out_features, kernel, distance_function
        register(self, "scale", scale)

    def extra_repr(self) -> str:
        return described(out_features=self.out_features, scale=self.scale)

    def forward(self, input: Tensor) -> Tensor:
        return population_encode(input, self.out_features, self.scale, self.kernel, self.distance_function)
