"""The problems of the event-driven oracle on a time grid, by snnlib."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import snnlib.functional as F
from snnlib.engine import scan
from tests.engine.event_driven import Problem, gradient, problem, simulate

__all__ = ["STEPS", "errors", "gradients", "loss_of", "posed"]

STEPS = {
    "lif": (F.lif_feed_forward_step, F.LIFParameters),
    "lif_refrac": (F.lif_refrac_feed_forward_step, F.LIFRefracParameters),
    "lsnn": (F.lsnn_feed_forward_step, F.LSNNParameters),
    "lif_adex": (F.lif_adex_feed_forward_step, F.LIFAdExParameters),
}


def smooth(t: Any) -> Any:
    """What a spike at time t adds to the loss, before the factor of its neuron."""
    return np.sin(120 * t) + np.cos(70 * t)


def loss_of(factors: np.ndarray) -> Any:
    """``spikes -> sum over the neurons n of the last layer and their spikes t of factors[n] smooth(t)``."""

    def loss(spikes: list[list[np.ndarray]]) -> float:
        return sum(float(c * smooth(t).sum()) for c, t in zip(factors, spikes[-1], strict=True))

    return loss


def posed(
    kind: str, layers: int, recurrent: bool, neurons: int | Sequence[int], seed: int
) -> tuple[Problem, np.ndarray]:
    """A net whose membranes cross at 100 thresholds a second or faster, and the factors of a loss.

    A seed for which there is none (see :func:`problem`) gives way to the next hundred.
    """
    while True:
        try:
            made = problem(kind, seed, layers, recurrent, neurons, spread=0.1, slope=100.0, depth=0.05)
        except ValueError:
            seed += 100
            continue
        return made, np.random.default_rng(seed).standard_normal(len(made.layers[-1].weights))


def gradients(
    problem: Problem, dt: float, names: list[str], factors: np.ndarray, backend: str = "cpu"
) -> tuple[list[dict[str, np.ndarray]], list[np.ndarray]]:
    """The gradient of the same loss by the adjoint on a grid; and how often each neuron of a layer spikes.

    Parameters:
        names: parameters to differentiate by, beside all weights.
        factors: of the neurons of the last layer.
    """
    steps = round(problem.duration / dt)
    x = torch.zeros(steps, 1, len(problem.inputs), dtype=torch.float64)
    for channel, times in enumerate(problem.inputs):
        for t in times:
            x[round(t / dt), 0, channel] += 1
    leaves: list[dict[str, Tensor]] = []
    counts = []
    for layer in problem.layers:
        step, kind = STEPS[layer.kind]
        given = {"weights": layer.weights, "recurrent": layer.recurrent, **layer.parameters}
        own = {k: torch.tensor(v, dtype=torch.float64) for k, v in given.items() if v is not None}
        leaves.append({k: v.requires_grad_() for k, v in own.items() if k in ("weights", "recurrent", *names)})
        current, recurrent = x @ own.pop("weights").T, own.pop("recurrent", None)
        p = kind(**own, method="adjoint", alpha=1e-9)
        x, _ = scan(step, current, None, p, dt=dt, recurrent_weights=recurrent, backend=backend)
        counts.append(x.detach().sum(0)[0].numpy())
    times = (torch.arange(steps, dtype=torch.float64) + 0.5) * dt  # a spike of step k is somewhere within it
    loss = (x[:, 0] * torch.from_numpy(factors * smooth(times.numpy())[:, None])).sum()
    flat = [value for own in leaves for value in own.values()]
    found = iter(torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True))
    return [{name: next(found).numpy() for name in own} for own in leaves], counts


def errors(made: Problem, factors: np.ndarray, grids: Sequence[float]) -> list[float]:
    """How far the adjoint is from the event-driven gradient on grids of these steps; NaN where spikes differ.

    Of all weights and parameters together: the length of the difference by that of the gradient, each
    parameter in units of its own value.
    """
    names = list(made.layers[0].parameters)
    wanted = gradient(loss_of(factors), made.inputs, made.layers, made.duration, names)
    spikes = [np.array([len(t) for t in layer]) for layer in simulate(made.inputs, made.layers, made.duration)]
    found = []
    for dt in grids:
        ours, counts = gradients(made, dt, names, factors)
        same = all((a == b).all() for a, b in zip(counts, spikes, strict=True))
        found.append(_error(ours, wanted, made) if same else np.nan)
    return found


def _error(found: list[dict[str, np.ndarray]], wanted: list[dict[str, np.ndarray]], problem: Problem) -> float:
    """The length of the difference by that of the gradient, each parameter in units of its own value."""
    off, size = 0.0, 0.0
    for ours, theirs, layer in zip(found, wanted, problem.layers, strict=True):
        for name, right in theirs.items():
            unit = np.asarray(layer.parameters.get(name, 1.0))
            off += float((((ours[name] - right) * unit) ** 2).sum())
            size += float(((right * unit) ** 2).sum())
    return (off / size) ** 0.5
