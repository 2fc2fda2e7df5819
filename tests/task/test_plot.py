"""Learning curves and the answer to an image: their labels, and what of the data is drawn."""

import warnings
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib", reason="figures need matplotlib, which the extra tasks brings")

from snnlib import LIF, SequentialState
from snnlib.task import _plot
from snnlib.task._plot import curves, image_response
from tests.task.test_flags import here


@pytest.mark.parametrize(("last", "first"), [(0.082, 0.12), (1.9, 2.3), (0.02, 1.5), (0.0031, 0.0052)])
def test_losses_are_plain_numbers(last: float, first: float):
    losses = [first * (last / first) ** (k / 9) for k in range(10)]
    metrics = [
        {"epoch": k + 1.0, "train_loss": loss, "valid_accuracy": 0.1 * k} for k, loss in enumerate(losses)
    ]
    figure = curves(SimpleNamespace(metrics=lambda *names: metrics), "valid_accuracy")
    figure.canvas.draw()
    axis = figure.axes[0]
    low, high = axis.get_ylim()
    places = [*axis.yaxis.get_majorticklocs(), *axis.yaxis.get_minorticklocs()]
    texts = [t.get_text() for minor in (False, True) for t in axis.get_yticklabels(minor=minor)]
    shown = [(at, text) for at, text in zip(places, texts, strict=True) if text and low <= at <= high]
    assert len(shown) >= 2
    for at, text in shown:
        assert "e" not in text
        assert float(text) == pytest.approx(at)


def test_losses_of_zero_are_drawn():
    lines = [{"epoch": k + 1.0, "train_loss": 0.0, "valid_accuracy": 1.0} for k in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = curves(SimpleNamespace(metrics=lambda *names: lines), "valid_accuracy")
        figure.canvas.draw()
    low, high = figure.axes[0].get_ylim()
    assert low < 0.0 < high


@pytest.mark.parametrize(("steps", "dt"), [(2, 0.001), (7, 1e-5), (50, 0.02)])
def test_labels_of_time_are_few_and_apart(steps: int, dt: float):
    net = SimpleNamespace(layers=SequentialState(*(LIF() for _ in range(2))))
    figure = image_response(net, torch.rand(steps, 1, 3), torch.rand(3, 8, 8), dt)
    figure.canvas.draw()
    for axis in figure.axes[1:]:
        assert axis.get_xlabel() == "time (ms)"
        low, high = axis.get_xlim()
        shown = [
            (at, label)
            for at, label in zip(axis.get_xticks(), axis.get_xticklabels(), strict=True)
            if low <= at <= high
        ]
        assert 1 <= len(shown) <= 3
        assert [float(label.get_text()) for _, label in shown] == pytest.approx([1000 * at for at, _ in shown])
        places = [label.get_window_extent() for _, label in shown]
        assert all(left.x1 < right.x0 for left, right in pairwise(places))


@pytest.mark.parametrize("task", ["cifar10", "mnist", "mnist_pl"])
def test_own_images_are_drawn_as_the_net_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str):
    rng, drawn = np.random.default_rng(0), list[torch.Tensor]()
    x, y = rng.normal(0.0, 3.0, (48, 6, 6, 3)), np.arange(48) % 2
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)

    def noted(net: Any, sequence: torch.Tensor, image: torch.Tensor, dt: float) -> Any:
        drawn.extend((image, sequence[0, 0]))
        return image_response(net, sequence, image, dt)

    monkeypatch.setattr(_plot, "image_response", noted)
    here(task, tmp_path, "--nofast", "--dataset=own.npz", "--epochs=1", "--plot")
    assert torch.equal(*drawn)
    assert 0.0 <= float(drawn[0].min()) < float(drawn[0].max()) <= 1.0
