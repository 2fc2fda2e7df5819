"""Plots of spikes and states over time; needs matplotlib.

Every function draws into ``ax``, or into the axes of a new figure, and returns the axes, whose
``ax.figure.savefig(path)`` writes them. New figures are none of pyplot's: nothing stays open, and no screen is
needed. ``ax=plt.gca()`` takes pyplot's, in a notebook for instance. A step that begins at t is drawn at t + dt,
when its spikes are there.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnlib.engine.check import check_parameters, checked_length

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("plots need matplotlib: pip install 'snnlib[plot]'") from error

__all__ = ["potential_histogram", "raster", "rate_histogram", "rate_over_time", "traces"]


def raster(
    spikes: Tensor, dt: float = 0.001, ax: Axes | None = None, *, sample: int = 0, rows: int = 150
) -> Axes:
    """A mark for each spike, over time and neurons.

    Parameters:
        spikes: ``[T, N]``, or ``[T, B, *features]``, whose features are laid in a row.
        dt: time step in s.
        ax: where to draw.
        sample: which of B.
        rows: of more neurons only every second, third, ... is drawn, which the label says; never one in a
            divisor of their number, so that of maps all rows and columns are seen.

    Raises:
        ValueError: a shape, ``sample``, ``dt`` or ``rows`` does not fit.
    """
    grid = _sequence("spikes", spikes, sample, dt)
    rows = checked_length("rows", rows)
    steps, neurons = grid.shape
    every = math.ceil(neurons / rows)
    while math.gcd(every, neurons) > 1:
        every += 1
    time, row = grid[:, ::every].nonzero()
    ax = _axes(ax)
    points = 72 * ax.bbox.width / ax.figure.dpi  # marks about as wide as a step
    width = min(max(0.7 * points / steps, 0.8), 5.0)
    low, high = (row - 0.4) * every, (row + 0.4) * every
    ax.vlines((time + 1) * dt, low, high, color="black", linewidth=width)
    ax.set(xlabel="time (s)", ylabel="neuron" if every == 1 else f"neuron (1 of {every} drawn)")
    ax.set(xlim=(0.5 * dt, (steps + 0.5) * dt), ylim=(-0.5 * every, neurons - 0.5))
    ax.locator_params(axis="y", integer=True)
    return ax


def traces(
    values: Tensor,
    dt: float = 0.001,
    ax: Axes | None = None,
    *,
    sample: int = 0,
    neurons: Sequence[int] | None = None,
    threshold: float | Tensor | None = None,
    ylabel: str = "membrane potential",
) -> Axes:
    """Membrane potentials, or whatever else neurons keep, over time.

    Parameters:
        values: ``[T, N]`` or ``[T, B, *features]``, such as :func:`snnlib.state_over_time` gives.
        dt: time step in s.
        ax: where to draw.
        sample: which of B.
        neurons: which to draw; the first five if None.
        threshold: a dashed line at this height; a tensor that broadcasts to ``values`` has a line a neuron.
        ylabel: what the values are.

    Raises:
        ValueError: a shape, ``sample``, a neuron or ``dt`` does not fit, or ``values`` are no tensor.
    """
    grid = _sequence("values", values, sample, dt)
    count = grid.shape[1]
    chosen = list(range(min(5, count)) if neurons is None else neurons)
    if not all(0 <= neuron < count for neuron in chosen):
        raise ValueError(f"neurons must be from 0 to {count - 1}, got {chosen}")
    levels = None
    if threshold is not None:
        levels = _sequence("threshold", _broadcast(threshold, values), sample, dt)[:, chosen]
    ax = _axes(ax)
    times = [(step + 1) * dt for step in range(len(grid))]
    lines = ax.plot(times, grid[:, chosen], linewidth=1, label=[f"neuron {neuron}" for neuron in chosen])
    if levels is not None and chosen and (levels == levels[0, 0]).all():
        ax.axhline(float(levels[0, 0]), color="gray", linestyle="--", label="threshold")
    elif levels is not None:
        for line, level in zip(lines, levels.T, strict=True):
            ax.plot(times, level, linewidth=1, linestyle="--", color=line.get_color())
    ax.set(xlabel="time (s)", ylabel=ylabel, xlim=(0.5 * dt, times[-1] + 0.5 * dt))
    ax.legend(frameon=False, ncols=3, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return _open(ax)


def potential_histogram(
    values: Tensor, ax: Axes | None = None, *, threshold: float | None = None, bins: int = 50
) -> Axes:
    """How membrane potentials are distributed over neurons, samples and time, as many as there are.

    Parameters:
        values: of any shape.
        ax: where to draw.
        threshold: a dashed line at this height.
        bins: number of bars.

    Raises:
        ValueError: there are no values, or one of them is not finite.
    """
    _check_tensor("values", values)
    flat = values.detach().flatten().cpu().double()
    if not len(flat) or not bool(flat.isfinite().all()):
        wrong = flat[~flat.isfinite()].tolist()[:1]
        raise ValueError(f"values must be finite numbers, got {wrong[0] if wrong else 'none'}")
    ax = _axes(ax)
    span = _span(float(flat.min()), float(flat.max()), bins)
    ax.hist(flat.numpy(), bins=bins, range=span, weights=np.full(len(flat), 1 / len(flat)))
    if threshold is not None:
        ax.axvline(threshold, color="gray", linestyle="--", label="threshold")
        ax.legend(frameon=False)
    ax.set(xlabel="membrane potential", ylabel="share of values")
    return _open(ax)


def rate_histogram(spikes: Tensor, dt: float = 0.001, ax: Axes | None = None, *, bins: int = 50) -> Axes:
    """How many neurons spike at which rate, the mean over time and samples. The silent ones stand at zero.

    Parameters:
        spikes: ``[T, N]`` or ``[T, B, *features]``.
        dt: time step in s.
        ax: where to draw.
        bins: number of bars.

    Raises:
        ValueError: a shape or ``dt`` does not fit, or a spike is not finite.
    """
    _check("spikes", spikes, dt)
    over = 0 if spikes.dim() == 2 else (0, 1)
    rates = spikes.detach().float().mean(over).flatten().cpu() / dt
    if not bool(rates.isfinite().all()):
        raise ValueError(f"spikes must be finite numbers, a mean of them is {rates[~rates.isfinite()][0]:g}")
    ax = _axes(ax)
    ax.hist(rates.numpy(), bins=bins, range=(min(float(rates.min()), 0.0), max(float(rates.max()), 1.0)))
    ax.set(xlabel="rate (Hz)", ylabel="neurons")
    ax.locator_params(axis="y", integer=True)
    return _open(ax)


def rate_over_time(spikes: Tensor, dt: float = 0.001, ax: Axes | None = None, *, window: float = 0.01) -> Axes:
    """The mean rate of all neurons and samples, in windows of time.

    Parameters:
        spikes: ``[T, N]`` or ``[T, B, *features]``.
        dt: time step in s.
        ax: where to draw.
        window: in s, rounded to whole steps; the last one may be shorter.

    Raises:
        ValueError: a shape, ``dt`` or ``window`` does not fit.
    """
    _check("spikes", spikes, dt)
    if not (math.isfinite(window) and window > 0):
        raise ValueError(f"window must be a positive number of seconds, got {window}")
    parts = (spikes.detach().float().flatten(1).mean(1).cpu() / dt).split(max(1, round(window / dt)))
    edges = [0.0]
    for part in parts:
        edges.append(edges[-1] + len(part) * dt)
    ax = _axes(ax)
    ax.stairs([float(part.mean()) for part in parts], edges, baseline=None)
    ax.set(xlabel="time (s)", ylabel="rate (Hz)", xlim=(0.0, edges[-1]), ylim=(0.0, None))
    return _open(ax)


def _check_tensor(name: str, x: Any) -> None:
    if not isinstance(x, Tensor):
        hint = f"; pass a field of it, states.{x._fields[0]} say" if getattr(x, "_fields", ()) else ""
        raise ValueError(f"{name} must be a tensor, got a {type(x).__name__}{hint}")


def _check(name: str, x: Tensor, dt: float) -> None:
    _check_tensor(name, x)
    if x.dim() < 2 or 0 in x.shape:
        raise ValueError(
            f"{name} must be [T, N] or [T, B, *features], none of them 0, got shape {list(x.shape)}"
        )
    check_parameters(None, dt)


def _sequence(name: str, x: Tensor, sample: int, dt: float) -> np.ndarray[Any, Any]:
    """One sample as ``[T, N]``, ready to be drawn."""
    _check(name, x, dt)
    samples = x.shape[1] if x.dim() > 2 else 1
    if not 0 <= sample < samples:
        raise ValueError(f"sample must be from 0 to {samples - 1}, got {sample}: {name} is {list(x.shape)}")
    one = x if x.dim() == 2 else x[:, sample].flatten(1)
    return one.detach().float().cpu().numpy()


def _broadcast(threshold: float | Tensor, values: Tensor) -> Tensor:
    levels = torch.as_tensor(threshold)
    try:
        return levels.expand(values.shape)
    except RuntimeError as error:
        shapes = f"{list(values.shape)}, got shape {list(levels.shape)}"
        raise ValueError(f"threshold must broadcast to {shapes}") from error


def _span(low: float, high: float, bins: int) -> tuple[float, float]:
    """What bars reach over from the lowest value to the highest, each of them a few numbers wide."""
    least = max(4 * bins * math.ulp(max(abs(low), abs(high))), 1.0 if low == high else 0.0)
    wider = max(least - (high - low), 0.0) / 2
    return low - wider, high + wider


def _axes(ax: Axes | None) -> Any:
    return Figure(figsize=(6, 3.6), layout="constrained").add_subplot() if ax is None else ax


def _open(ax: Axes) -> Axes:
    """Without the lines above and on the right."""
    ax.spines[["top", "right"]].set_visible(False)
    return ax
