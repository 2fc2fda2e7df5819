"""From values to spikes: constant currents, Poisson spikes, latencies and populations."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from snnlib.engine.check import check_broadcasts, check_floating, check_parameters, checked_length
from snnlib.engine.scan import scan
from snnlib.engine.state import integration_dtype
from snnlib.engine.step import Scalar
from snnlib.engine.watched import is_concrete
from snnlib.functional.lif import LIFParameters
from snnlib.functional.lif_box import LIFBoxParameters, lif_box_feed_forward_step

__all__ = [
    "constant_current_lif_encode",
    "euclidean_distance",
    "gaussian_rbf",
    "poisson_encode",
    "poisson_encode_step",
    "population_encode",
    "signed_poisson_encode",
    "signed_poisson_encode_step",
    "spike_latency_encode",
    "spike_latency_lif_encode",
]


def constant_current_lif_encode(
    input_current: Tensor,
    seq_length: int,
    p: LIFBoxParameters | LIFParameters = LIFBoxParameters(),
    dt: float = 0.001,
) -> Tensor:
    """Spikes of leaky integrate-and-fire neurons, each driven by a current that stays the same.

    ::

        z[t], v = lif_box_feed_forward_step(input_current, v, p, dt)        t = 0 .. T-1, from v = v_leak

    There is no synapse: of :class:`~snnlib.functional.lif.LIFParameters`, ``tau_syn_inv`` is not read. A
    current that does not exceed ``v_th - v_leak`` never makes a spike where ``v_leak <= v_th``.

    Parameters:
        input_current: current in units of voltage, any shape, floating point.
        seq_length: number of steps T.
        p: parameters of :func:`~snnlib.functional.lif_box.lif_box_feed_forward_step`; tensors broadcast
            over ``input_current``.
        dt: time step in s.

    Returns:
        Spikes, 0 or 1, ``[T, *input_current.shape]``. The gradient reaches the currents as ``p.method`` says.

    Raises:
        ValueError: ``seq_length`` is no positive integer; ``input_current`` is not floating point or not
            finite (values are looked at on the CPU, outside compilers); a parameter is wrong.

    Source:
        Gerstner et al. 2014, Neuronal Dynamics, chapter 1.
    """
    seq_length = checked_length("seq_length", seq_length)
    _check_values("input_current", input_current)
    if isinstance(p, LIFParameters):
        p = LIFBoxParameters(*(getattr(p, name) for name in LIFBoxParameters._fields))
    # scan wants a batch: a single number becomes a batch of one
    batch = input_current.reshape(1) if input_current.dim() == 0 else input_current
    spikes, _ = scan(lif_box_feed_forward_step, batch.expand(seq_length, *batch.shape), p=p, dt=dt)
    return spikes.reshape(seq_length, *input_current.shape)


def poisson_encode(
    input_values: Tensor,
    seq_length: int,
    f_max: float = 100,
    dt: float = 0.001,
    generator: Generator | None = None,
) -> Tensor:
    """Random spikes whose rate is the value.

    ::

        P(z[t] = 1) = dt f_max input_values        independently in every step

    the Bernoulli approximation of a Poisson process with the rate ``f_max input_values``.

    Parameters:
        input_values: values in [0, 1], any shape, floating point.
        seq_length: number of steps T.
        f_max: rate of the value 1, in Hz.
        dt: time step in s.
        generator: source of the random numbers, on the device of ``input_values``; torch's global one if
            None. The same seed gives the same spikes, in every dtype of the input.

    Returns:
        Spikes, 0 or 1, ``[T, *input_values.shape]`` in the dtype of the input, without a gradient.

    Raises:
        ValueError: ``seq_length`` is no positive integer; ``input_values`` are not floating point or leave
            [0, 1] (looked at on the CPU, outside compilers); ``dt f_max`` is no probability.

    Source:
        Dayan & Abbott 2001, Theoretical Neuroscience, section 1.4.
    """
    seq_length = checked_length("seq_length", seq_length)
    return _fired(input_values, (seq_length,), 0.0, f_max, dt, generator).to(input_values.dtype)


def poisson_encode_step(
    input_values: Tensor, f_max: float = 1000, dt: float = 0.001, generator: Generator | None = None
) -> Tensor:
    """One step of :func:`poisson_encode`: spikes in the shape of ``input_values``.

    As in Norse, ``f_max`` is 1000 Hz here and 100 Hz there when it is not given.
    """
    return _fired(input_values, (), 0.0, f_max, dt, generator).to(input_values.dtype)


def signed_poisson_encode(
    input_values: Tensor,
    seq_length: int,
    f_max: float = 100,
    dt: float = 0.001,
    generator: Generator | None = None,
) -> Tensor:
    """Random spikes whose rate is the size of the value and whose sign is its sign.

    ::

        P(z[t] = sign(input_values)) = dt f_max |input_values|,    else z[t] = 0

    Arguments, result and errors as in :func:`poisson_encode`, with values in [-1, 1] and spikes -1, 0 or 1.
    """
    seq_length = checked_length("seq_length", seq_length)
    return _signed(_fired(input_values, (seq_length,), -1.0, f_max, dt, generator), input_values)


def signed_poisson_encode_step(
    input_values: Tensor, f_max: float = 1000, dt: float = 0.001, generator: Generator | None = None
) -> Tensor:
    """One step of :func:`signed_poisson_encode`: spikes in the shape of ``input_values``.

    As in Norse, ``f_max`` is 1000 Hz here and 100 Hz there when it is not given.
    """
    return _signed(_fired(input_values, (), -1.0, f_max, dt, generator), input_values)


def spike_latency_encode(input_spikes: Tensor) -> Tensor:
    """Keep the first spike of each neuron.

    ::

        output[t] = input_spikes[t] where input_spikes[0..t] hold one entry that is not 0, else 0

    Parameters:
        input_spikes: ``[T, *features]``, time first, any dtype; what is not 0 is a spike.

    Returns:
        The same shape and dtype. The gradient of ``output`` passes from a neuron's first spike up to the step
        before its second one.

    Raises:
        ValueError: ``input_spikes`` has no dimension for time.

    Source:
        Van Rullen & Thorpe 2001, Rate coding versus temporal order coding.
    """
    if input_spikes.dim() == 0:
        raise ValueError(f"input_spikes must be [T, *features], got the number {input_spikes.item()}")
    first = (input_spikes != 0).cumsum(0) == 1
    return torch.where(first, input_spikes, torch.zeros_like(input_spikes))


def spike_latency_lif_encode(
    input_current: Tensor,
    seq_length: int,
    p: LIFBoxParameters | LIFParameters = LIFBoxParameters(),
    dt: float = 0.001,
) -> Tensor:
    """The first spike under a constant current, the earlier the stronger the current is.

    :func:`spike_latency_encode` of :func:`constant_current_lif_encode`; arguments and errors as there. In
    continuous time the spike comes ``log(I / (I - v_th)) / tau_mem_inv`` seconds after the start, for a
    current I above ``v_th`` and a neuron at rest at 0.

    Returns:
        Spikes, 0 or 1, at most one a neuron, ``[T, *input_current.shape]``.
    """
    return spike_latency_encode(constant_current_lif_encode(input_current, seq_length, p, dt))


def gaussian_rbf(tensor: Tensor, sigma: float = 1) -> Tensor:
    """A Gaussian of *squared* distances: ``exp(-tensor / (2 sigma^2))``.

    Parameters:
        tensor: squared distances, as :func:`euclidean_distance` gives them.
        sigma: width of the Gaussian, in the unit of the distance.
    """
    return torch.exp(-tensor / (2 * sigma**2))


def euclidean_distance(x: Tensor, y: Tensor) -> Tensor:
    """The *squared* distance between numbers, ``(x - y)^2`` (Norse's name), for :func:`gaussian_rbf`."""
    return (x - y) ** 2


def population_encode(
    input_values: Tensor,
    out_features: int,
    scale: Scalar | None = None,
    kernel: Callable[[Tensor], Tensor] = gaussian_rbf,
    distance_function: Callable[[Tensor, Tensor], Tensor] = euclidean_distance,
) -> Tensor:
    """Each value as the activity of a population of neurons with evenly spaced receptive fields.

    ::

        centre[k]      = scale k / (out_features - 1)        k = 0 .. out_features-1
        output[..., k] = kernel(scale distance_function(input_values, centre[k]))

    A single neuron has its centre at 0. As in Norse, ``scale`` also multiplies the distance: with the
    defaults a receptive field is ``1 / sqrt(scale)`` wide. The result is analog; :func:`poisson_encode`
    makes spikes of it.

    Parameters:
        input_values: values to encode, any shape, floating point.
        out_features: neurons a value.
        scale: the last centre and the factor of the distances, not negative; the largest of
            ``input_values`` if None. A tensor that broadcasts over ``input_values`` gives each value its own.
        kernel: from distance to activity, elementwise.
        distance_function: from values and centres, both ``[*shape, out_features]``, to distances.

    Returns:
        Activities ``[*input_values.shape, out_features]``.

    Raises:
        ValueError: ``out_features`` is no positive integer; ``input_values`` are not floating point;
            ``input_values`` are not finite, or ``scale`` is not or is negative, as it is by default where all
            values are (looked at on the CPU, outside compilers), or does not broadcast over ``input_values``.

    Source:
        Dayan & Abbott 2001, Theoretical Neuroscience, section 3.3.
    """
    out_features = checked_length("out_features", out_features)
    _check_values("input_values", input_values)
    if scale is None and not input_values.numel():
        raise ValueError("scale must be given where input_values is empty: it is their largest value otherwise")
    scale = input_values.max() if scale is None else torch.as_tensor(scale).to(input_values)
    _check_values("scale", scale, 0.0)
    check_broadcasts("scale", scale, input_values.shape)
    scale = scale.unsqueeze(-1)
    unit = torch.linspace(0, 1, out_features, dtype=input_values.dtype, device=input_values.device)
    values = input_values.unsqueeze(-1).expand(*input_values.shape, out_features)
    return kernel(scale * distance_function(values, (scale * unit).expand_as(values)))


def _fired(
    values: Tensor, steps: tuple[int, ...], low: float, f_max: float, dt: float, generator: Generator | None
) -> Tensor:
    """Which neurons spike, ``[*steps, *values.shape]``, each with probability ``dt f_max |values|``."""
    check_parameters(None, dt)
    shape = list(getattr(f_max, "shape", ()))
    if math.prod(shape) != 1:
        raise ValueError(f"f_max must be one number, got shape {shape}; scale input_values instead")
    if shape:
        f_max = f_max.reshape(())  # type: ignore[attr-defined]  # or it would give its shape to a number's spikes
    if not 0 <= dt * f_max <= 1:
        raise ValueError(f"dt * f_max must be a probability in [0, 1], got dt={dt}, f_max={f_max}")
    _check_values("input_values", values, low, 1.0)
    probability = dt * f_max * values.detach().abs().to(integration_dtype(values.dtype))
    # always float32, so that a seed gives the same spikes in every dtype
    draw = torch.rand((*steps, *values.shape), dtype=torch.float32, device=values.device, generator=generator)
    return draw < probability


def _signed(fired: Tensor, values: Tensor) -> Tensor:
    return torch.where(fired, values.detach().sign(), 0.0)


def _check_values(name: str, values: Tensor, low: float = -math.inf, high: float = math.inf) -> None:
    """Refuse what is not floating point, not finite or outside of [low, high]."""
    check_floating(name, values)
    if not is_concrete(values):
        return
    wrong = ~(values.isfinite() & (values >= low) & (values <= high))
    if bool(wrong.any()):
        first = wrong.nonzero()[0].tolist()
        wanted = "finite" if math.isinf(low) else f"finite and in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be {wanted}, got {values[tuple(first)].item()} at index {first}")
