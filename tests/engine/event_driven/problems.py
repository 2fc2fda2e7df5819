"""Random small problems on which a time grid and the event-driven solution must agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .network import DEFAULTS, Layer, Record, batched, events_of, run

__all__ = ["PARAMETERS", "Problem", "problem"]

_LIF = {"tau_syn_inv": 180.0, "tau_mem_inv": 110.0, "v_leak": 0.05, "v_th": 1.0, "v_reset": -0.1}
PARAMETERS = {
    "lif": _LIF,
    "lif_refrac": _LIF | {"rho_reset": 0.003},
    "lsnn": _LIF | {"tau_adapt_inv": 20.0, "beta": 0.01},
    "lif_adex": _LIF
    | {"adaptation_current": 1.0, "adaptation_spike": 0.1, "delta_T": 0.3, "tau_ada_inv": 25.0},
}
"""What :func:`problem` takes unless told: no two rates alike, and every one felt within the window."""

_ROUNDS = 200
_TAIL = 1e-3  # s: no spike so close to the end of the window, before or after


@dataclass(frozen=True)
class Problem:
    """A network and what it sees."""

    inputs: list[np.ndarray]
    """For each channel its spike times, s, multiples of 1 ms."""
    layers: list[Layer]
    duration: float
    """s, a multiple of 1 ms."""


@dataclass(frozen=True)
class _Bounds:
    margin: float
    slope: float
    depth: float
    most: int


def problem(
    kind: str,
    seed: int,
    layers: int = 1,
    recurrent: bool = False,
    neurons: int | Sequence[int] = 5,
    channels: int = 4,
    duration: float = 0.04,
    parameters: Mapping[str, Any] | None = None,
    spread: float = 0.0,
    margin: float = 5e-5,
    slope: float = 20.0,
    depth: float = 0.02,
    most: int = 6,
) -> Problem:
    """A random problem, the same for the same arguments.

    A neuron's weights, ``weights[n]`` and ``recurrent[n]``, are drawn anew layer by layer until no neuron

    - spikes more than ``most`` times, or never; a quarter of a layer, rounded down, may be silent;
    - has h, which crosses 0 at a spike, cross with a slope under ``slope``;
    - has h turn back within ``depth`` below 0 without a spike, up to 1 ms past the end of the window;
    - spikes within 1 ms of the end of the window, on either side;
    - spikes, or is released from its refractory period, within ``margin`` of a spike that arrives at its layer
      or, with recurrent weights, of any other spike of its layer.

    So on a grid with steps well below ``margin`` the spikes have the same number, and each has the same spikes
    before it that reach it; neurons of a layer that are not connected may come in any order.

    Parameters:
        kind: one of :data:`DEFAULTS`, for all layers.
        seed: of the generator.
        layers: how many.
        recurrent: whether the layers have recurrent weights, the diagonal included.
        neurons: of each layer.
        channels: of the input, each with 2 to 5 spikes at multiples of 1 ms, the last 8 ms left out.
        duration: of the window, s, a multiple of 1 ms.
        parameters: instead of those of :data:`PARAMETERS`. For a grid ``rho_reset`` is a multiple of its step.
        spread: 0 for numbers; else all but ``rho_reset`` are ``[N]``, up to this share above and below.
        margin: s, see above. With more than 10 recurrent neurons it has to be smaller, 2e-5 for 20.
        slope: 1/s, see above.
        depth: in units of the threshold, see above.
        most: see above.

    Raises:
        ValueError: ``neurons`` does not fit ``layers``, or 200 rounds of drawing did not meet the bounds.
    """
    sizes = [neurons] * layers if isinstance(neurons, int) else list(neurons)
    if len(sizes) != layers:
        raise ValueError(f"neurons has {len(sizes)} sizes for {layers} layers")
    values = {**PARAMETERS[kind], **(parameters or {})}
    rng = np.random.default_rng([seed, list(DEFAULTS).index(kind), recurrent, *sizes])
    ticks = np.arange(1, round(duration / 1e-3) - 8)
    inputs = [np.sort(rng.choice(ticks, rng.integers(2, 6), replace=False)) * 1e-3 for _ in range(channels)]
    network: list[Layer] = []
    events = events_of(inputs)
    for n, c in zip(sizes, [channels, *sizes[:-1]], strict=True):
        p = {k: v if k == "rho_reset" or not spread else _spread(rng, v, spread, n) for k, v in values.items()}
        layer = Layer(kind, np.zeros((n, c)), np.zeros((n, n)) if recurrent else None, p)
        bounds = _Bounds(margin, slope, depth, most)
        network.append(_drawn(rng, layer, events, duration, bounds))
        record = run(events, [batched(network[-1])], duration)[0]
        events = record.times, record.neurons
    return Problem(inputs, network, duration)


def _spread(rng: np.random.Generator, value: float, spread: float, neurons: int) -> np.ndarray:
    return value * (1 + spread * rng.uniform(-1, 1, neurons))


def _drawn(rng: np.random.Generator, layer: Layer, events: Any, duration: float, bounds: _Bounds) -> Layer:
    """The layer with weights within the bounds; they are such that a neuron spikes some 3 times."""
    bad = np.ones(len(layer.weights), bool)
    for _ in range(_ROUNDS):
        N, C = layer.weights.shape
        weights = 3.0 / C * (1 + 0.8 * rng.standard_normal((N, C)))
        own = 0.8 / np.sqrt(N) * rng.standard_normal((N, N))
        recurrent = None if layer.recurrent is None else np.where(bad[:, None], own, layer.recurrent)
        layer = replace(layer, weights=np.where(bad[:, None], weights, layer.weights), recurrent=recurrent)
        record = run(events, [batched(layer)], duration + _TAIL)[0]
        bad = _bad(record, events[0][0], layer, duration, bounds)
        if not bad.any():
            return layer
    raise ValueError(f"no {layer.kind} layer of {N} neurons within {bounds}")


def _bad(record: Record, arrivals: np.ndarray, layer: Layer, duration: float, bounds: _Bounds) -> np.ndarray:
    """Which neurons break a rule of :func:`problem`, ``[N]``."""
    times, who, counts = record.times[0], record.neurons[0], record.counts[0]
    silent = counts == 0
    bad = (counts > bounds.most) | (silent & (silent.cumsum() > len(counts) // 4))
    bad |= record.peaks[0] > -bounds.depth
    wrong = (record.slopes[0] < bounds.slope) | (times > duration - _TAIL)
    moments = [times]
    if layer.kind == "lif_refrac":
        moments.append(times + np.broadcast_to(layer.parameters["rho_reset"], counts.shape)[who])
    for moment in moments:
        wrong |= (np.abs(moment[:, None] - arrivals) < bounds.margin).any(1)
        if layer.recurrent is not None:
            near = np.abs(moment[:, None] - times) < bounds.margin
            if moment is times:
                np.fill_diagonal(near, False)
            wrong |= near.any(1)
    bad[who[wrong]] = True
    return bad
