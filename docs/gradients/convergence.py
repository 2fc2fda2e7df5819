"""Draw convergence.png of docs/gradients.md: how far the adjoint is from the event-driven solution, by dt.

    python -m docs.gradients.convergence

Random nets of tests/engine/event_driven, whose membranes cross their thresholds at 100 thresholds a second or
faster; a loss of the spike times of the last layer; the gradient with respect to all weights and parameters,
each in units of its own value. A grid on which a neuron has another number of spikes has no point; the script
says how many. It prints the table of the page.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from tests.engine.on_grid import STEPS, errors, posed

mpl.use("Agg")
import matplotlib.pyplot as plt

GRIDS = [1e-3, 2.5e-4, 1e-4, 2.5e-5, 1e-5, 2.5e-6, 1e-6]  # s; 1 ms is a multiple of each
NETS = {"one layer": (1, False), "recurrent": (1, True), "two recurrent layers": (2, True)}
SEEDS = range(8)


def main() -> None:
    figure, axes = plt.subplots(
        1, len(STEPS), figsize=(3.2 * len(STEPS), 3.2), sharey=True, layout="constrained"
    )
    print("| neuron | " + " | ".join(f"{1e6 * dt:g} µs" for dt in GRIDS) + " | other spikes |")
    print("|---|" + "---|" * (len(GRIDS) + 1))
    for axis, kind in zip(axes, STEPS, strict=True):
        every = []
        for (name, net), colour in zip(NETS.items(), ("C0", "C1", "C2"), strict=True):
            rows = np.array([errors(*posed(kind, *net, 5, seed), GRIDS) for seed in SEEDS])
            every.append(rows)
            axis.loglog(1e6 * np.array(GRIDS), rows.T, color=colour, alpha=0.25, linewidth=0.8)
            middle = np.nanmedian(rows, axis=0)
            axis.loglog(1e6 * np.array(GRIDS), middle, color=colour, marker=".", label=f"{name}, median")
        rows = np.concatenate(every)
        share = f"{np.isnan(rows).sum()} of {rows.size}"
        cells = [f"{np.nanmedian(r):.2%} ({np.nanmax(r):.1%})" for r in rows.T]
        print(f"| {kind} | " + " | ".join(cells) + f" | {share} |", flush=True)
        axis.loglog([1, 1e3], [3e-4, 3e-1], "k:", linewidth=0.8, label="in proportion to dt")
        axis.set(title=kind, xlabel="dt (µs)")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set(ylabel="relative error of the gradient")
    axes[-1].legend(frameon=False, fontsize=7)
    figure.savefig(Path(__file__).with_name("convergence.png"), dpi=110)


if __name__ == "__main__":
    main()
