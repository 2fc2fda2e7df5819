"""Figures of a run; matplotlib is imported by whoever imports this."""

import math
from typing import Any

from torch import Tensor

from snnlib.task._run import Run
from snnlib.task._spikes import with_spikes

try:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, MaxNLocator

    from snnlib.plot import raster
except ImportError as error:
    raise ImportError("figures need matplotlib: pip install 'snnlib[tasks]' (or --noplot)") from error

__all__ = ["curves", "image_response", "learned_weights", "memory_trial", "rewards"]


def curves(run: Run, name: str) -> Figure:
    """Draw the training loss over the epochs in one panel, and a figure of validation in a second."""
    metrics = run.metrics("epoch", "train_loss", name)
    figure = _figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    x, y = [line["epoch"] for line in metrics], [line[name] for line in metrics]
    losses = [line["train_loss"] for line in metrics]
    left.plot(x, losses, marker=".")
    # of one class nothing is to be learned, and there is no logarithm of zero
    left.set(xlabel="epoch", ylabel="training loss", yscale="log" if min(losses) > 0 else "linear")
    left.yaxis.set_major_formatter("{x:g}")  # plain numbers
    left.yaxis.set_minor_formatter(_Plain())
    right.plot(x, y, marker=".", label=name.replace("_", " "))
    right.set(xlabel="epoch", ylabel=name.rpartition("_")[2])
    if name.endswith("_error"):
        right.set(ylim=(-0.01, None))
    else:  # the first epochs would flatten all that follows
        right.set(ylim=(min(y[len(y) // 4 :]) - 0.01, 1.001))
    right.legend(frameon=False)
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


class _Plain(LogFormatter):
    """Labels where there is room for them, 0.09 in the place of 9e-02."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def rewards(metrics: list[dict[str, float]], threshold: float | None, random: float) -> Figure:
    """Draw the reward of training and validation episodes over the steps in the environment."""
    figure = _figure(6, 3.6)
    axis = figure.subplots()
    for name, style in (("train_reward", {"alpha": 0.6}), ("valid_reward", {"marker": "."})):
        known = [line for line in metrics if name in line]
        axis.plot(
            [line["step"] for line in known],
            [line[name] for line in known],
            label=name.replace("_", " "),
            **style,
        )
    for level, text in ((threshold, "solved"), (random, "random actions")):
        if level is not None:
            axis.axhline(level, color="gray", linestyle="--" if text == "solved" else ":", label=text)
    axis.set(xlabel="steps in the environment", ylabel="mean reward of an episode")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure


def image_response(
    net: Any,
    sequence: Tensor,
    image: Tensor,
    dt: float,
    answer: int | None = None,
    heard: bool = False,
) -> Figure:
    """Draw one image, the spikes of the hidden layers that it causes, and the voltages of the readout.

    Parameters:
        net: its ``layers`` end in the readout; of many layers of neurons five are drawn.
        sequence: the encoded image, ``[T, 1, C, H, W]``.
        image: ``[C, H, W]``, between 0 and 1 where it is in colour.
        dt: time step in s.
        answer: the class that the net names; the one with the highest voltage of all if None.
        heard: whether the image is a spectrogram, the lowest band below, a column for each step.
    """
    (output, _), traces = with_spikes(net.layers, sequence)
    readout = output[-1] if isinstance(output, list) else output
    depths = sorted({round(k * (len(traces) - 1) / 4) for k in range(5)}) if traces else []
    hidden, voltage = [traces[depth][:, 0].flatten(1).cpu() for depth in depths], readout[:, 0].float().cpu()
    panels = len(hidden) + 2
    rows = math.ceil(panels / 4)
    columns = math.ceil(panels / rows)
    figure = _figure(3 * columns, 3 * rows)
    axes = [figure.add_subplot(rows, columns, 1 + panel) for panel in range(panels)]
    _input(axes[0], image, dt, heard)
    for depth, axis, spikes in zip(depths, axes[1:-1], hidden, strict=True):
        raster(spikes, dt, axis)
        _milliseconds(axis)
        axis.set(title=f"layer {depth + 1}: {float(spikes.mean()):.1%} spike a step")
    winner = int(voltage.amax(0).argmax()) if answer is None else answer
    times = [(step + 1) * dt for step in range(len(voltage))]
    for label, line in enumerate(voltage.T):
        style: dict[str, Any] = (
            {"linewidth": 2, "label": f"class {label}"} if label == winner else {"alpha": 0.5}
        )
        axes[-1].plot(times, line, marker=".", **style)
    axes[-1].legend(frameon=False)
    axes[-1].set(title="readout", ylabel="voltage (thresholds)", xlim=(0.5 * dt, times[-1] + 0.5 * dt))
    _milliseconds(axes[-1])
    return figure


def _milliseconds(axis: Any) -> None:
    """Label the time of a small panel, of which there may be two steps or a second."""
    axis.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    axis.xaxis.set_major_formatter(lambda seconds, place: f"{1000 * seconds:g}")
    axis.set(xlabel="time (ms)")


def _input(axis: Any, image: Tensor, dt: float, heard: bool) -> None:
    picture = image.cpu().permute(1, 2, 0)
    whole: dict[str, Any] = {"cmap": "gray_r", "interpolation": "nearest"}
    axis.set(title="input")
    if heard:
        height, width = picture.shape[:2]
        whole |= {"extent": (0.5 * dt, (width + 0.5) * dt, -0.5, height - 0.5), "aspect": "auto"}
        _milliseconds(axis)
        axis.set(ylabel="mel band")
    else:
        axis.set(xticks=[], yticks=[])
    axis.imshow(picture if picture.shape[2] == 3 else picture[..., 0], **whole)


def memory_trial(
    inputs: Tensor, spikes: Tensor, thresholds: Tensor, readout: Tensor, target: Tensor, dt: float
) -> Figure:
    """Draw one trial of store and recall: inputs, spikes, thresholds, and the answer.

    Parameters:
        inputs: ``[T, 4 N]``: N neurons each for symbol 0, symbol 1, STORE and RECALL.
        spikes: of the net's neurons, ``[T, H]``.
        thresholds: the same neurons', ``[S, H]`` at S evenly spaced times.
        readout: probability that the net gives to symbol 1, ``[T]``.
        target: ``[P]``, the symbol to recall in each period, negative where none is.
        dt: time step in s.
    """
    figure = _figure(9, 8)
    axes = figure.subplots(4, 1, sharex=True, height_ratios=[1.2, 1.5, 1.5, 1])
    end, hidden = len(inputs) * dt, spikes.shape[1]
    population, period = inputs.shape[1] // 4, end / len(target)
    for axis, drawn in zip(axes, (inputs, spikes), strict=False):
        raster(drawn, dt, axis)
        axis.set(xlabel="", ylabel="", ylim=(drawn.shape[1] - 0.5, -0.5))
    names = ["symbol 0", "symbol 1", "STORE", "RECALL"]
    axes[0].set(yticks=[(k + 0.5) * population for k in range(4)], yticklabels=names, title="input")
    rate = float(spikes.mean()) / dt
    axes[1].set(title=f"spikes, {rate:.1f} Hz", ylabel="neuron, by its readout")
    image = axes[2].imshow(thresholds.T, aspect="auto", extent=(0, end, hidden - 0.5, -0.5), cmap="viridis")
    axes[2].set(title="threshold (1 at rest)", ylabel="neuron, by its readout")
    figure.colorbar(image, ax=axes[2], pad=0.01)
    axes[3].plot([(step + 1) * dt for step in range(len(readout))], readout, color="tab:blue", linewidth=0.8)
    for now, symbol in enumerate(target.tolist()):
        if symbol >= 0:
            begin = now * period
            axes[3].hlines(symbol, begin, begin + period, color="tab:red", linewidth=4)
            for axis in axes:
                axis.axvspan(begin, begin + period, color="tab:orange", alpha=0.2, linewidth=0)
    axes[3].set(title="readout (blue) and what is asked for (red)", ylabel="P(symbol 1)", xlabel="time (s)")
    axes[3].set(xlim=(0, end), ylim=(-0.05, 1.05))
    return figure


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def learned_weights(
    weights: tuple[Tensor, Tensor],
    subsets: Tensor,
    probability: list[float],
    metrics: list[dict[str, float]],
) -> Figure:
    """Draw the weights of one episode before and after it, and the probability of the right answer in training.

    Parameters:
        weights: before and after, ``[N, M]``; the neurons of a class lie side by side.
        subsets: which channels are correlated in either class, bool ``[2, M]``.
        probability: of the right answer, after every optimisation step.
        metrics: lines with ``step`` and ``valid_probability``.
    """
    figure = _figure(12, 3.2)
    axes = figure.subplots(1, 3)
    order = (subsets[0].int() * 2 + subsets[1].int()).argsort(descending=True, stable=True).cpu()
    size, largest = int(subsets[0].sum()), float(weights[1].max())
    for axis, values, title in zip(axes, weights, ("before", "after"), strict=False):
        picture = values.cpu()[:, order]
        shown = axis.imshow(picture, aspect="auto", vmin=0, vmax=largest, interpolation="nearest")
        axis.axhline((len(values) + 1) // 2 - 0.5, color="white", linewidth=1)
        for edge in (size, 2 * size):
            axis.axvline(edge - 0.5, color="white", linewidth=1)
        axis.set(title=f"weights {title} the lessons", xlabel="channel: of class 0, of class 1, others")
    axes[0].set(ylabel="neuron")
    figure.colorbar(shown, ax=axes[1], label="weight")
    axes[2].plot(range(1, len(probability) + 1), probability, linewidth=1, label="training episodes")
    x, y = [line["step"] for line in metrics], [line["valid_probability"] for line in metrics]
    axes[2].plot(x, y, "o", label="validation episodes")
    axes[2].axhline(0.5, color="gray", linestyle=":", label="chance")
    axes[2].set(xlabel="step of training", ylabel="probability of the right answer", ylim=(0.2, 1.01))
    axes[2].xaxis.get_major_locator().set_params(integer=True)
    axes[2].spines[["top", "right"]].set_visible(False)
    axes[2].legend(frameon=False, loc="lower right")
    return figure
