"""Learning curves: their labels."""

from types import SimpleNamespace

import pytest

pytest.importorskip("matplotlib", reason="figures need matplotlib, which the extra tasks brings")

from snnlib.task._plot import curves


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
