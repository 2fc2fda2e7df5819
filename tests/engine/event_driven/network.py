"""The continuous-time limit of spiking networks, event by event in float64.

Between events (a spike that arrives, a neuron's own spike, the end of a refractory period) a neuron follows,
with rates in 1/s and voltages in units of the threshold::

    di/dt = -tau_syn_inv i
    dv/dt = tau_mem_inv ((v_leak - v) + i)                                                  lif, lsnn
    dv/dt = 0 for rho_reset seconds after a spike, then as lif                              lif_refrac
    dv/dt = tau_mem_inv ((v_leak - v) + i + delta_T exp((v - v_th) / delta_T) - a)          lif_adex
    db/dt = -tau_adapt_inv b                                                                lsnn
    da/dt = tau_ada_inv (adaptation_current (v - v_leak) - a)                               lif_adex

from v = v_leak and all else 0. It spikes where h crosses 0 from below, h = v - v_th - beta b for lsnn and
h = v - v_th for the others, and then::

    v <- v_reset        b <- b + tau_adapt_inv        a <- a + adaptation_spike

A spike that arrives adds its weight to i: that bends v and never lifts it, so it makes no spike at once.

Arrays have a leading dimension P, variants of the problem that run side by side, each with its own clock: the
points of finite differences, and the candidates of a random problem.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .series import crossings, derivative, evaluate, series, threshold

__all__ = ["DEFAULTS", "Events", "Layer", "Record", "Spikes", "batched", "events_of", "run", "simulate"]

_LIF = {"tau_syn_inv": 200.0, "tau_mem_inv": 100.0, "v_leak": 0.0, "v_th": 1.0, "v_reset": 0.0}
DEFAULTS = {
    "lif": _LIF,
    "lif_refrac": _LIF | {"rho_reset": 0.005},
    "lsnn": _LIF | {"tau_adapt_inv": 1 / 0.7, "beta": 0.18},
    "lif_adex": _LIF
    | {"adaptation_current": 4.0, "adaptation_spike": 0.02, "delta_T": 0.5, "tau_ada_inv": 2.0},
}
"""The parameters of every kind, by the names and with the values that snnlib has."""

Events = tuple[np.ndarray, np.ndarray]  # times [P, K], sorted and padded with inf, and their channels [P, K]
Spikes = list[list[np.ndarray]]  # layers, neurons, times in s


@dataclass(frozen=True)
class Layer:
    """``N`` neurons of one kind behind ``C`` channels."""

    kind: str
    """One of :data:`DEFAULTS`."""
    weights: np.ndarray
    """``[N, C]``: what a spike of each channel adds to the current of each neuron."""
    recurrent: np.ndarray | None = None
    """``[N, N]``, to, from: what a spike of the layer adds at once to its own currents; the diagonal too."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """By name a number or ``[N]``; what is missing has its default."""

    def __post_init__(self) -> None:
        unknown = set(self.parameters) - set(DEFAULTS[self.kind])
        if unknown:
            raise ValueError(f"{self.kind} has no {sorted(unknown)}, it has {sorted(DEFAULTS[self.kind])}")
        object.__setattr__(self, "parameters", DEFAULTS[self.kind] | dict(self.parameters))


@dataclass(frozen=True)
class Record:
    """The spikes of a layer in order, at most ``S`` in a variant; the rest of a row is padding."""

    times: np.ndarray
    """``[P, S]``, s; inf where there is no spike."""
    neurons: np.ndarray
    """``[P, S]``, who fired."""
    slopes: np.ndarray
    """``[P, S]``, dh/dt just before the spike, 1/s."""
    seen: np.ndarray
    """``[P, S]``, how many of the layer's input spikes had arrived before."""
    counts: np.ndarray
    """``[P, N]``, spikes of each neuron."""
    peaks: np.ndarray
    """``[P, N]``, the highest maximum of h that was no spike; slightly over-estimated."""

    def of(self, variant: int) -> list[np.ndarray]:
        """The spike times of each neuron, s."""
        spikes = self.counts[variant].sum()
        times, neurons = self.times[variant, :spikes], self.neurons[variant, :spikes]
        return [times[neurons == n] for n in range(self.counts.shape[1])]


def simulate(inputs: Sequence[Any], layers: Sequence[Layer], duration: float) -> Spikes:
    """The spike times of every neuron of a network, to rounding.

    Parameters:
        inputs: for each channel its spike times, s, in any order.
        layers: each sees the spikes of the one before at once, the first sees the inputs.
        duration: length of the window, s.

    Returns:
        For each layer, for each neuron the sorted times in s.

    Raises:
        ValueError: a neuron is above its threshold right after its reset.
    """
    return [record.of(0) for record in run(events_of(inputs), [batched(layer) for layer in layers], duration)]


def events_of(inputs: Sequence[Any]) -> Events:
    """Spike times of each channel as one sorted sequence, ``P = 1``."""
    times = np.concatenate([np.asarray(t, float).ravel() for t in inputs])
    channels = np.repeat(np.arange(len(inputs)), [np.size(t) for t in inputs])
    order = np.argsort(times, kind="stable")
    return times[order][None], channels[order][None]


def batched(layer: Layer) -> Layer:
    """The layer as one variant: its arrays ``[1, ...]``, parameters at least ``[1, 1]``."""
    return replace(
        layer,
        weights=np.asarray(layer.weights, float)[None],
        recurrent=None if layer.recurrent is None else np.asarray(layer.recurrent, float)[None],
        parameters={k: np.atleast_1d(np.asarray(v, float))[None] for k, v in layer.parameters.items()},
    )


def run(events: Events, layers: Sequence[Layer], duration: float) -> list[Record]:
    """As :func:`simulate`, for batched layers: each of their arrays, and the events, has P variants or one."""
    records = []
    for layer in layers:
        one = _Run(events, layer, duration)
        while (one.t < duration).any():
            one.advance()
        records.append(one.record())
        events = records[-1].times, records[-1].neurons
    return records


class _Run:
    """A layer on its way through the window."""

    def __init__(self, events: Events, layer: Layer, duration: float) -> None:
        arrays = [*events, layer.weights, layer.recurrent, *layer.parameters.values()]
        P, N = max(len(a) for a in arrays if a is not None), layer.weights.shape[1]
        self.kind, self.duration, self.every = layer.kind, duration, np.arange(P)
        self.p = {k: np.broadcast_to(v, (P, N)) for k, v in layer.parameters.items()}
        self.weights = np.broadcast_to(layer.weights, (P, *layer.weights.shape[1:]))
        self.recurrent = None if layer.recurrent is None else np.broadcast_to(layer.recurrent, (P, N, N))
        # a last column of inf, so that there is always a next event; none after the window counts
        times, self.channels = (np.pad(np.broadcast_to(a, (P, a.shape[1])), [(0, 0), (0, 1)]) for a in events)
        times[:, -1] = np.inf
        self.times = np.where(times < duration, times, np.inf)
        self.seen = np.zeros(P, int)

        self.t = np.zeros(P)
        self.y = np.zeros((3 if layer.kind in ("lsnn", "lif_adex") else 2, P, N))
        self.y[0] = self.p["v_leak"]
        self.release = np.full((P, N), np.inf)  # when a neuron that is held may move again
        self.rising = np.zeros((P, N), bool)  # whether h rose at the end of the last step
        self.peaks = np.full((P, N), -np.inf)
        self.log: list[tuple[np.ndarray, ...]] = []

    def advance(self) -> None:
        """Every variant goes on to its next spike, event or end of a step, whichever is first."""
        event = self.times[self.every, self.seen]
        target = np.minimum(np.minimum(event, self.release.min(1)), self.duration)
        c, length, whole = series(self.kind, self.y, self.p, target - self.t, self.release == np.inf)
        h = threshold(self.kind, c, self.p)
        cross, bound, share = crossings(h, length)
        who = cross.argmin(1)
        fired = cross[self.every, who] <= share
        theta = np.where(fired, cross[self.every, who], share)
        self.y, slope = evaluate(c, theta), evaluate(derivative(h), theta)
        self._watch(h, slope, np.where(cross == np.inf, bound, -np.inf), length)

        arrived = whole & ~fired & (share == 1)
        self.t = np.where(arrived, target, self.t + theta * length)  # the very time, not one rounded
        steepness = slope[self.every, who] / np.where(length > 0, length, np.inf)
        self.log.append((fired, self.t, who, steepness, self.seen.copy()))
        if fired.any():
            self._fire(np.flatnonzero(fired), who[fired])
        rows = np.flatnonzero(arrived & (event == self.t))
        self.y[1, rows] += self.weights[rows, :, self.channels[rows, self.seen[rows]]]
        self.seen[rows] += 1
        self.release[self.release <= self.t[:, None]] = np.inf

    def _watch(self, h: np.ndarray, slope: np.ndarray, bound: np.ndarray, length: np.ndarray) -> None:
        """Note maxima of h without a spike: inside of the step, or at its start where an event ended a rise."""
        moves, starts = (length > 0)[:, None], h[1] > 0
        kink = np.where(moves & self.rising & ~starts, h[0], -np.inf)
        inside = np.where(starts & (slope <= 0), bound, -np.inf)
        self.peaks = np.maximum(self.peaks, np.maximum(kink, inside))
        self.rising = np.where(moves, slope > 0, self.rising)

    def _fire(self, rows: np.ndarray, who: np.ndarray) -> None:
        """Reset the neuron ``who`` of each variant of ``rows``, and pass its spike on within the layer."""
        p = {k: v[rows, who] for k, v in self.p.items()}
        self.y[0, rows, who] = p["v_reset"]
        if self.kind == "lif_refrac":
            self.release[rows, who] = self.t[rows] + p["rho_reset"]
        elif self.kind == "lsnn":
            self.y[2, rows, who] += p["tau_adapt_inv"]
        elif self.kind == "lif_adex":
            self.y[2, rows, who] += p["adaptation_spike"]
        if (threshold(self.kind, self.y[None, :, rows, who], p) >= 0).any():
            raise ValueError(f"a neuron of kind {self.kind} is above its threshold after its reset")
        self.rising[rows, who] = False
        if self.recurrent is not None:
            self.y[1, rows] += self.recurrent[rows, :, who]

    def record(self) -> Record:
        """The spikes of all rounds, each variant's moved together."""
        fired, *columns = (np.stack(column, 1) for column in zip(*self.log, strict=True))
        order = np.argsort(~fired, axis=1, kind="stable")[:, : fired.sum(1).max()]
        fired, t, who, slopes, seen = (np.take_along_axis(a, order, 1) for a in (fired, *columns))
        counts = ((who[:, :, None] == np.arange(self.y.shape[2])) & fired[:, :, None]).sum(1)
        return Record(np.where(fired, t, np.inf), np.where(fired, who, 0), slopes, seen, counts, self.peaks)
