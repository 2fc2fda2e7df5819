"""Gradients of a loss of spike times by central finite differences of the event-driven simulation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .network import Events, Layer, Record, Spikes, batched, events_of, run

__all__ = ["gradient"]

_POINTS, _FACTORS = np.array([-2, -1, 1, 2]), np.array([1, -8, 8, -1]) / 12
_AT_ONCE = 128  # elements whose variants run side by side


def gradient(
    loss: Callable[[Spikes], float],
    inputs: Sequence[Any],
    layers: Sequence[Layer],
    duration: float,
    parameters: Sequence[str] = (),
    step: float = 1e-5,
) -> list[dict[str, np.ndarray]]:
    """Derivatives of a loss of the spike times, by central differences of fourth order.

    ::

        f' = (f(x - 2 d) - 8 f(x - d) + 8 f(x + d) - f(x + 2 d)) / (12 d)

    with d = step max(1, abs(x)), for ``rho_reset``, a time in s, d = step abs(x).

    Parameters:
        loss: maps what :func:`simulate` returns to a number, smooth in the times.
        inputs, layers, duration: see :func:`simulate`.
        parameters: what to differentiate by beside ``weights`` and ``recurrent``, in layers that have it.
        step: relative step of the differences.

    Returns:
        For each layer a dictionary from ``weights``, ``recurrent`` (if there is one) and the names to arrays
        of the same shape as the layer's: ``()`` for a parameter that is one number, which moves all neurons.

    Raises:
        ValueError: within a difference a spike appears, vanishes or passes one that reaches its neuron, so that
            the loss has no derivative (or the step is too wide); no layer has the parameter.
    """
    missing = [name for name in parameters if not any(name in layer.parameters for layer in layers)]
    if missing:
        raise ValueError(f"no layer has {missing}")
    whole, events, result = [batched(layer) for layer in layers], events_of(inputs), []
    base = run(events, whole, duration)
    below: Spikes = []
    for k, layer in enumerate(layers):
        named = {"weights": layer.weights, "recurrent": layer.recurrent}
        named |= {name: layer.parameters[name] for name in parameters if name in layer.parameters}
        result.append({})
        for name, value in named.items():
            if value is None:
                continue
            width, chunks = _variants(name, np.asarray(value, float), step)
            losses = []
            for variants in chunks:
                moved = [_replaced(whole[k], name, variants), *whole[k + 1 :]]
                spikes = _spikes(events, moved, duration, base[k:], name)
                losses += [loss(below + above) for above in spikes]
            result[-1][name] = np.reshape(losses, (*np.shape(value), len(_POINTS))) @ _FACTORS / width
        below.append(base[k].of(0))
        events = base[k].times, base[k].neurons
    return result


def _variants(name: str, x: np.ndarray, step: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """The width of the difference in each element, and x with one element moved, chunks of ``[P, *shape]``."""
    width = step * (np.abs(x) if name == "rho_reset" else np.maximum(np.abs(x), 1))
    moved = x.ravel() + _POINTS[:, None] * np.diag(width.ravel())[:, None, :]  # [element, point, size]
    return width, [moved[k : k + _AT_ONCE].reshape(-1, *x.shape) for k in range(0, x.size, _AT_ONCE)]


def _replaced(layer: Layer, name: str, variants: np.ndarray) -> Layer:
    """A batched layer with variants, ``[P, ...]``, in the place of ``name``."""
    if name in ("weights", "recurrent"):
        return replace(layer, **{name: variants})
    return replace(layer, parameters={**layer.parameters, name: variants.reshape(len(variants), -1)})


def _spikes(
    events: Events, layers: Sequence[Layer], duration: float, base: Sequence[Record], name: str
) -> Iterator[Spikes]:
    """The spikes of each variant, which must be those of ``base``, moved."""
    records = run(events, layers, duration)
    for record, other, layer in zip(records, base, layers, strict=True):
        for p, n in np.argwhere(record.counts != other.counts)[:1]:
            raise ValueError(
                f"moving {name}: neuron {n} of a {layer.kind} layer spikes {record.counts[p, n]} times, not"
                f" {other.counts[0, n]}: the loss has no derivative there"
            )
        order = layer.recurrent is not None and (record.neurons != other.neurons).any()
        if order or (_seen(record) != _seen(other)).any():
            raise ValueError(f"moving {name}: a spike passes one that reaches its neuron: no derivative there")
    for variant in range(len(records[0].times)):
        yield [record.of(variant) for record in records]


def _seen(record: Record) -> np.ndarray:
    """How many input spikes each spike had seen, neuron by neuron, ``[P, S]``."""
    return np.take_along_axis(record.seen, np.argsort(record.neurons, axis=1, kind="stable"), 1)
