"""Figures of a run; matplotlib is imported by whoever imports this."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnlib.module.neuron import Neuron

try:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
except ImportError as error:
    raise ImportError("figures need matplotlib: pip install 'snnlib[tasks]' (or --noplot)") from error

__all__ = ["curves", "image_response", "learned_weights"]


def curves(path: Path, metrics: list[dict[str, float]], over: str, names: Sequence[str]) -> None:
    """Draw the named figures of ``metrics.jsonl`` in one panel, and the training loss in a second."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    x = [line[over] for line in metrics]
    left.plot(x, [line["train_loss"] for line in metrics], marker=".")
    left.set(xlabel=over, ylabel="training loss", yscale="log")
    for name in names:
        right.plot(x, [line[name] for line in metrics], marker=".", label=name.replace("_", " "))
    # the first epochs would flatten all that follows
    settled = [line[name] for name in names for line in metrics[len(metrics) // 4 :]]
    right.set(xlabel=over, ylim=(min(settled) - 0.01, 1.001))
    right.legend(frameon=False, loc="lower right")
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


@torch.no_grad()
def image_response(path: Path, net: nn.Module, sequence: Tensor, image: Tensor, dt: float) -> None:
    """Draw one image, the spikes of the hidden layers that it causes, and the voltages of the readout.

    Parameters:
        path: the PNG to write.
        net: a network of snnlib's neurons; the last one is the readout.
        sequence: the encoded image, ``[T, 1, C, H, W]``.
        image: ``[C, H, W]``.
        dt: time step in s.
    """
    traces = _outputs(net, sequence)
    *hidden, voltage = [trace[:, 0].flatten(1).cpu() for trace in traces]
    figure, axes = plt.subplots(1, len(hidden) + 2, figsize=(3 * (len(hidden) + 2), 3), layout="constrained")
    picture = image.cpu().permute(1, 2, 0)
    axes[0].imshow(
        picture if picture.shape[2] == 3 else picture[..., 0], cmap="gray_r", interpolation="nearest"
    )
    axes[0].set(title="input", xticks=[], yticks=[])
    ms = 1000 * dt
    for index, (axis, spikes) in enumerate(zip(axes[1:-1], hidden, strict=True)):
        steps, neurons = spikes.shape
        every = max(1, neurons // 150)  # more rows than that run into one another
        time, row = spikes[:, ::every].nonzero(as_tuple=True)
        axis.hlines(row * every, (time + 0.6) * ms, (time + 1.4) * ms, color="black", linewidth=1.0)
        share = float(spikes.mean())
        axis.set(title=f"layer {index + 1}: {share:.1%} spike a step", xlabel="time (ms)", ylabel="neuron")
        axis.set(xlim=(0.5 * ms, (steps + 0.5) * ms), ylim=(-1, neurons))
    winner = int(voltage.amax(0).argmax())
    times = [(step + 1) * ms for step in range(len(voltage))]
    for label, line in enumerate(voltage.T):
        style: dict[str, Any] = (
            {"linewidth": 2, "label": f"class {label}"} if label == winner else {"alpha": 0.5}
        )
        axes[-1].plot(times, line, **style)
    axes[-1].legend(frameon=False)
    axes[-1].set(title="readout", xlabel="time (ms)", ylabel="voltage")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _outputs(net: nn.Module, sequence: Tensor) -> list[Tensor]:
    """What each neuron layer put out while the net ran once, in order."""
    traces: list[Tensor] = []
    neurons = [module for module in net.modules() if isinstance(module, Neuron)]
    hooks = [n.register_forward_hook(lambda _m, _i, output: traces.append(output[0])) for n in neurons]
    was_training = net.training
    net.eval()
    net(sequence)
    net.train(was_training)
    for hook in hooks:
        hook.remove()
    return traces


def learned_weights(
    path: Path,
    weights: tuple[Tensor, Tensor],
    subsets: Tensor,
    probability: list[float],
    metrics: list[dict[str, float]],
) -> None:
    """Draw the weights of one episode before and after it, and the probability of the right answer in training.

    Parameters:
        path: the PNG to write.
        weights: before and after, ``[N, M]``; the neurons of a class lie side by side.
        subsets: which channels are correlated in either class, bool ``[2, M]``.
        probability: of the right answer, after every optimisation step.
        metrics: lines with ``step`` and ``valid_probability``.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
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
    figure.colorbar(shown, ax=axes[1])
    axes[2].plot(range(1, len(probability) + 1), probability, linewidth=1, label="training episodes")
    x, y = [line["step"] for line in metrics], [line["valid_probability"] for line in metrics]
    axes[2].plot(x, y, "o", label="validation episodes")
    axes[2].axhline(0.5, color="gray", linestyle=":", label="chance")
    axes[2].set(xlabel="step of training", ylabel="probability of the right answer", ylim=(0.3, 1.01))
    axes[2].xaxis.get_major_locator().set_params(integer=True)
    axes[2].spines[["top", "right"]].set_visible(False)
    axes[2].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)
