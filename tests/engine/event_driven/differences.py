"""Gradients of a loss of spike times by central finite differences of the event-driven simulation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .network import Layer, Record, Spikes, batched, events_of, run

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
            the loss has no derivative (or the step is too wide); no layer has the parameter. Not noticed is an
            arrival that passes the end of a refractory period, which is a kink as well.
    """
    missing = [name for name in parameters if not any(name in layer.parameters for layer in layers)]
    if missing:
        raise ValueError(f"no layer has {missing}")
    whole, events, below, result = [batched(layer) for layer in layers], events_of(inputs), [], []
    base = run(events, whole, duration)
    for k, layer in enumerate(layers):
        arrays = {"weights": layer.weights, "recurrent": layer.recurrent}
        arrays |= {name: layer.parameters[name] for name in parameters if name in layer.parameters}
        variation = _Variation(
            {name: np.asarray(x, float) for name, x in arrays.items() if x is not None}, step
        )
        losses: list[float] = []
        for moved, names in variation.chunks(whole[k]):
            records = run(events, [moved, *whole[k + 1 :]], duration)
            for record, other, of in zip(records, base[k:], layers[k:], strict=True):
                _check(record, other, of, names)
            losses += [loss(below + [record.of(p) for record in records]) for p in range(len(names))]
        result.append(variation.derivatives(np.array(losses)))
        events = base[k].times, base[k].neurons
        below.append(base[k].of(0))
    return result


class _Variation:
    """The elements of some arrays of a layer, end to end, each moved in turn to the points of a difference."""

    def __init__(self, arrays: dict[str, np.ndarray], step: float) -> None:
        self.arrays = arrays
        self.names = np.repeat(list(arrays), [x.size for x in arrays.values()])
        self.x = np.concatenate([x.ravel() for x in arrays.values()])
        self.width = step * np.where(self.names == "rho_reset", np.abs(self.x), np.maximum(np.abs(self.x), 1))

    def split(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """``[..., elements]`` back into the arrays, ``[..., *shape]``."""
        ends = np.cumsum([a.size for a in self.arrays.values()])[:-1]
        pieces = zip(self.arrays.items(), np.split(x, ends, -1), strict=True)
        return {name: piece.reshape((*x.shape[:-1], *a.shape)) for (name, a), piece in pieces}

    def chunks(self, layer: Layer) -> Iterator[tuple[Layer, np.ndarray]]:
        """The batched layer with P variants of the arrays, and by name what each variant moves, ``[P]``."""
        for first in range(0, len(self.x), _AT_ONCE):
            elements = np.arange(first, min(first + _AT_ONCE, len(self.x)))
            moved = np.tile(self.x, (len(elements), len(_POINTS), 1))
            moved[np.arange(len(elements)), :, elements] += _POINTS * self.width[elements, None]
            new = self.split(moved.reshape(-1, len(self.x)))
            weights = {name: new.pop(name) for name in ("weights", "recurrent") if name in new}
            p = {**layer.parameters, **{name: x.reshape(len(x), -1) for name, x in new.items()}}
            yield replace(layer, **weights, parameters=p), np.repeat(self.names[elements], len(_POINTS))

    def derivatives(self, losses: np.ndarray) -> dict[str, np.ndarray]:
        """From the losses of all variants in order."""
        return self.split(losses.reshape(-1, len(_POINTS)) @ _FACTORS / self.width)


def _check(record: Record, base: Record, layer: Layer, names: np.ndarray) -> None:
    """Raise unless every variant, which moves ``names``, has the spikes of ``base`` in the same order."""
    for p, n in np.argwhere(record.counts != base.counts)[:1]:
        raise ValueError(
            f"moving {names[p]}: neuron {n} of a {layer.kind} layer spikes {record.counts[p, n]} times, not"
            f" {base.counts[0, n]}: the loss has no derivative there"
        )
    passes = (_seen(record) != _seen(base)).any(1)
    if layer.recurrent is not None:
        passes |= (record.neurons != base.neurons).any(1)
    for p in np.flatnonzero(passes)[:1]:
        raise ValueError(f"moving {names[p]}: a spike passes one that reaches its neuron: no derivative there")


def _seen(record: Record) -> np.ndarray:
    """How many input spikes each spike had seen, neuron by neuron, ``[P, S]``."""
    return np.take_along_axis(record.seen, np.argsort(record.neurons, axis=1, kind="stable"), 1)
