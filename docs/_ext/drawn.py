"""Figures that are computed from snnlib when the pages are built."""

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from docs._ext.declared import Declared
from snnlib import SURROGATES
from snnlib.engine import initial_state
from snnlib.engine.step import default_parameters, state_type

__all__ = ["draw_response", "draw_surrogates", "response"]

DT = 0.001
STEPS, ON = 200, slice(20, 120)
DRIVES = torch.tensor([digit * 10.0**power for power in range(-2, 3) for digit in (1, 2, 5)])
"""Currents that are tried: neurons count theirs in different units."""
SPIKES = 5
"""How many are wanted of a neuron while its current is on."""


def response(neuron: Declared) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Input, output and states of a neuron with its defaults, each ``[T]``, for a current that goes on and off.

    The current is the weakest of :data:`DRIVES` that causes :data:`SPIKES` spikes; for a neuron that does not
    spike, the weakest that lifts its output to 1.
    """
    p = default_parameters(neuron.step)
    current = torch.zeros(STEPS, len(DRIVES))
    current[ON] = DRIVES
    state = initial_state(state_type(neuron.step), p, current[0])
    outputs, states = [], []
    for x in current:
        output, state = neuron.step(x, state, p, DT)
        outputs.append(output)
        states.append(state)
    z = torch.stack(outputs)
    enough = z.sum(0) >= SPIKES if neuron.spikes else z.amax(0) >= 1.0
    chosen = int(enough.nonzero()[0])
    traces = {
        field.name: torch.stack([getattr(s, field.name)[chosen] for s in states]) for field in neuron.state
    }
    return current[:, chosen], z[:, chosen], traces


def draw_response(neuron: Declared, path: Path) -> None:
    """The neuron's input, its spikes, and each of its states below one another."""
    current, z, traces = response(neuron)
    ms = 1000 * DT * (torch.arange(STEPS) + 1)
    spikes = ms[z == 1.0] if neuron.spikes else ms[:0]
    figure = Figure(figsize=(7.0, 0.9 + 0.95 * (1 + len(traces))), layout="constrained")
    axes = figure.subplots(1 + len(traces), 1, sharex=True)
    axes[0].step(ms, current, where="pre", color="tab:gray")
    axes[0].set(ylabel="input")
    for axis, (name, trace), colour in zip(axes[1:], traces.items(), ("C0", "C1", "C2"), strict=False):
        axis.plot(ms, trace, color=colour, linewidth=1.2)
        axis.set_ylabel(name, rotation=0, labelpad=12)
    for time in spikes.tolist():
        axes[1].axvline(time, color="black", linewidth=0.8, alpha=0.5)
    counted = f", {len(spikes)} spikes (grey lines)" if len(spikes) else ""
    axes[0].set_title(f"input of {float(current.max()):g} a step for 100 ms{counted}", fontsize=10)
    axes[-1].set(xlabel="time (ms)", xlim=(0, 1000 * DT * STEPS))
    _save(figure, axes, path)


def draw_surrogates(path: Path) -> None:
    """Every surrogate with its own ``alpha``, over the distance to the threshold."""
    x = torch.linspace(-1.5, 1.5, 1201)
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    axes = figure.subplots(2, (len(SURROGATES) + 1) // 2, sharex=True)
    for axis, (name, surrogate) in zip(axes.flat, SURROGATES.items(), strict=False):
        axis.plot(x, surrogate.derivative(x, surrogate.alpha))
        axis.set_title(f"{name} ({surrogate.alpha:g})", fontsize=10)
        axis.set_ylim(bottom=0.0)
    for axis in axes.flat[len(SURROGATES) :]:
        axis.set_axis_off()
    figure.supxlabel("distance to the threshold", fontsize=10)
    figure.supylabel("dz/dx", fontsize=10)
    _save(figure, axes.flat, path)


def _save(figure: Figure, axes: Any, path: Path) -> None:
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
