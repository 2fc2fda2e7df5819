"""One step of the differential equations by their Taylor series, and where it crosses the threshold.

The degree is 12, and a step is as long as keeps the last terms below 1e-16: exact to rounding, for every kind,
and equal time constants are no case apart. The threshold function h is then a polynomial, whose coefficients
in Bernstein's basis bound it, and bound how often it crosses 0 (Descartes' rule of signs). None and one are
certain, and a step with possibly more is halved, so no crossing is missed, however briefly h exceeds 0.

A series is an array whose first axis is the degree, in theta = time / length of the step, from 0 to 1.
"""

from collections.abc import Mapping
from math import comb, factorial

import numpy as np

__all__ = ["crossings", "derivative", "evaluate", "series", "threshold"]

_DEGREE = 12
_POWERS = np.arange(_DEGREE + 1)
_FACTORIALS = np.array([float(factorial(k)) for k in _POWERS])
_BERNSTEIN = np.array([[comb(j, k) / comb(_DEGREE, k) for k in _POWERS] for j in _POWERS])
_LAST_TERM = 1e-16
_SHORTEST = 1e-12  # s: below it an h that touches 0 is not told from one that crosses


def series(
    kind: str, y: np.ndarray, p: Mapping[str, np.ndarray], length: np.ndarray, free: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The state over a step, ``[degree, state, P, N]``, from y, its value at the start, ``[state, P, N]``.

    The equations are those of :mod:`~tests.engine.event_driven.network`; v rests where ``free`` is 0.

    Returns:
        The series; the length of the step in s, ``[P]``, which is cut where the last two terms would not be
        negligible; and whether it was not cut, ``[P]``.
    """
    T = length[:, None]
    c = np.zeros((_DEGREE + 1, *y.shape))
    c[0, 0] = y[0]
    c[:, 1] = _decay(y[1], T * p["tau_syn_inv"])
    if kind == "lsnn":
        c[:, 2] = _decay(y[2], T * p["tau_adapt_inv"])
    if kind == "lif_adex":
        _adex(c, y, p, T)
        return _cut(c, length)
    membrane = T * p["tau_mem_inv"] * free
    c[1, 0] = membrane * (c[0, 1] - y[0] + p["v_leak"])
    for k in range(1, _DEGREE):
        c[k + 1, 0] = membrane / (k + 1) * (c[k, 1] - c[k, 0])
    return _cut(c, length)


def _decay(start: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """start exp(-rate theta), ``[degree, P, N]``."""
    return start * (-rate) ** _POWERS[:, None, None] / _FACTORIALS[:, None, None]


def _adex(c: np.ndarray, y: np.ndarray, p: Mapping[str, np.ndarray], length: np.ndarray) -> None:
    """Fill in v and a. The exponential, w = exp((v - v_th) / delta_T), is a series by w' = w v' / delta_T."""
    membrane, adapt, sharp = length * p["tau_mem_inv"], length * p["tau_ada_inv"], 1 / p["delta_T"]
    slope, w = np.zeros_like(c[1:, 0]), np.zeros_like(c[1:, 0])  # slope is of v / delta_T
    w[0] = np.exp((y[0] - p["v_th"]) * sharp)
    c[0, 2] = y[2]
    u = y[0] - p["v_leak"]
    for k in range(_DEGREE):
        if k > 0:
            u = c[k, 0]
            w[k] = np.einsum("kpn,kpn->pn", slope[:k], w[k - 1 :: -1]) / k
        rise = membrane * (c[k, 1] - u + p["delta_T"] * w[k] - c[k, 2])
        slope[k] = rise * sharp
        c[k + 1, 0] = rise / (k + 1)
        c[k + 1, 2] = adapt / (k + 1) * (p["adaptation_current"] * u - c[k, 2])


def _cut(c: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What :func:`series` returns, of a series that may be too long."""
    last = np.abs(c[-2:]).max((1, 3))
    with np.errstate(divide="ignore"):
        cut = np.minimum((_LAST_TERM / last[0]) ** (1 / (_DEGREE - 1)), (_LAST_TERM / last[1]) ** (1 / _DEGREE))
    rows = np.flatnonzero(cut < 1)
    if len(rows):
        c[:, :, rows] = _shortened(c[:, :, rows], cut[rows])
    return c, length * np.minimum(cut, 1), cut >= 1


def threshold(kind: str, c: np.ndarray, p: Mapping[str, np.ndarray]) -> np.ndarray:
    """h, which crosses 0 at a spike, ``[degree, P, N]``, of states ``[degree, state, P, N]``."""
    h = c[:, 0] - p["beta"] * c[:, 2] if kind == "lsnn" else c[:, 0].copy()
    h[0] -= p["v_th"]
    return h


def crossings(h: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where h first reaches 0 in a step of ``length`` s, ``[P]``.

    Returns:
        Where, in theta, inf where it does not, ``[P, N]``; an upper bound of h, ``[P, N]``; and for how much of
        the step these hold, ``[P]``: all of it, 1, unless some neuron of the variant may cross more than once.
    """
    h, share = h.copy(), np.ones(len(length))
    bounds = np.tensordot(_BERNSTEIN, h, 1)
    while True:
        above = bounds >= 0
        flips = (above[1:] != above[:-1]).sum(0)
        rows = np.flatnonzero(((flips > 1) & ~above[0]).any(1) & (share * length > _SHORTEST))
        if not len(rows):
            break
        share[rows] /= 2
        h[:, rows] = _shortened(h[:, rows], np.full(len(rows), 0.5))
        bounds[:, rows] = np.tensordot(_BERNSTEIN, h[:, rows], 1)
    cross = np.where(above[0], 0.0, np.inf)  # rounding may carry h over 0 at the end of the step before
    once = ~above[0] & above[-1]
    if once.any():
        cross[once] = _root(h[:, once]) * share[once.nonzero()[0]]
    return cross, bounds.max(0), share


def _root(h: np.ndarray) -> np.ndarray:
    """The only root in (0, 1] of each of M polynomials ``[degree, M]``: Newton's steps inside of a bracket."""
    low, high, slopes = np.zeros(h.shape[1]), np.ones(h.shape[1]), derivative(h)
    x = h[0] / (h[0] - h.sum(0))
    for _ in range(80):
        f, slope = evaluate(h, x), evaluate(slopes, x)
        low, high = np.where(f < 0, x, low), np.where(f < 0, high, x)
        newton = x - f / np.where(slope > 0, slope, np.inf)
        inside = (newton >= low) & (newton <= high) & (slope > 0)
        settled = (np.abs(f) <= 1e-16) | (inside & (np.abs(newton - x) <= 1e-15)) | (high - low <= 1e-16)
        x = np.where(settled, x, np.where(inside, newton, (low + high) / 2))
        if settled.all():
            break
    return x


def evaluate(c: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """A series at theta, ``[P]`` or, for polynomials ``[degree, M]``, ``[M]``."""
    powers = theta ** _POWERS[: len(c), None]
    return np.einsum("kspn,kp->spn" if c.ndim == 4 else "kpn,kp->pn" if c.ndim == 3 else "kp,kp->p", c, powers)


def derivative(c: np.ndarray) -> np.ndarray:
    """The series of the derivative with respect to theta."""
    return c[1:] * _POWERS[1:].reshape(-1, *[1] * (c.ndim - 1))


def _shortened(c: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The series ``[degree, ..., P, N]`` over the first ``share``, ``[P]``, of a step."""
    powers = share ** _POWERS[:, None]
    return c * (powers[:, None, :, None] if c.ndim == 4 else powers[:, :, None])
