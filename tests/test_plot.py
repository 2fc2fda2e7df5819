"""What the plots draw, read back from the axes."""

import importlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snnlib import LSNN, LIState, state_over_time

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from matplotlib.figure import Figure

from snnlib import plot

DT = 0.002
STATES = LIState(v=torch.ones(5, 1, 3), i=torch.ones(5, 1, 3))


def spikes(*shape: int) -> Tensor:
    return torch.bernoulli(torch.full(shape, 0.3), generator=torch.Generator().manual_seed(0))


def marks(ax: Any) -> set[tuple[int, int]]:
    """Step and neuron of each mark of a raster."""
    (lines,) = ax.collections
    return {(round(x / DT) - 1, round((low + high) / 2)) for (x, low), (_, high) in lines.get_segments()}


@pytest.mark.parametrize("sample", [0, 2])
@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.float64])
def test_a_raster_has_a_mark_for_each_spike_at_the_end_of_its_step(sample: int, dtype: torch.dtype):
    z = spikes(20, 3, 2, 4).to(dtype)
    ax = plot.raster(z, DT, sample=sample)
    assert marks(ax) == {(t, n) for t, n in z[:, sample].flatten(1).nonzero().tolist()}
    assert marks(plot.raster(z[:, sample].flatten(1), DT)) == marks(ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (s)", "neuron")
    low, high = ax.get_xlim()
    assert low < DT < 20 * DT < high


def test_of_many_neurons_some_are_drawn_which_the_label_says():
    z = torch.ones(3, 70)
    ax = plot.raster(z, DT, rows=30)
    assert {n for _, n in marks(ax)} == set(range(0, 70, 3))
    assert ax.get_ylabel() == "neuron (1 of 3 drawn)"
    assert {n for _, n in marks(plot.raster(z[:, :10], DT, rows=5))} == {0, 3, 6, 9}  # 2 divides 10


def test_a_raster_of_maps_is_not_of_one_column():
    """32 maps of 14 x 14 in 150 rows: every 42nd neuron would be in the first column."""
    z = torch.zeros(1, 1, 32, 14, 14)
    z[..., 5] = 1
    drawn = marks(plot.raster(z, DT))
    assert len(drawn) == pytest.approx(6272 / 14 / 43, abs=2)


def test_it_draws_into_axes_that_are_given():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot.raster(spikes(5, 3), ax=left) is left
    assert plot.rate_over_time(spikes(5, 3), ax=right) is right
    assert plot.raster(spikes(5, 3)).figure is not figure


def test_traces_are_the_values_and_the_threshold_a_line():
    layer = LSNN()
    x = 0.8 * torch.rand(50, 2, 6, generator=torch.Generator().manual_seed(0))
    _, states = state_over_time(layer, x)
    ax = plot.traces(states.v, DT, sample=1, neurons=[0, 4], threshold=layer.p.v_th)
    first, second, level = ax.get_lines()
    for line, neuron in ((first, 0), (second, 4)):
        np.testing.assert_allclose(line.get_xdata(), DT * np.arange(1, 51))
        np.testing.assert_array_equal(line.get_ydata(), states.v[:, 1, neuron])
        assert line.get_label() == f"neuron {neuron}"
    assert set(level.get_ydata()) == {1.0}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (s)", "membrane potential")
    moving = layer.p.v_th + layer.p.beta * states.b
    lines = plot.traces(states.v, threshold=moving, neurons=[3]).get_lines()
    np.testing.assert_array_equal(lines[1].get_ydata(), moving[:, 0, 3])
    assert lines[0].get_color() == lines[1].get_color()
    lines = plot.traces(states.v, sample=1, threshold=moving, neurons=[3]).get_lines()
    np.testing.assert_array_equal(lines[1].get_ydata(), moving[:, 1, 3])
    assert len(plot.traces(states.v, threshold=torch.rand(6)).get_lines()) == 2 * 5
    assert not plot.traces(states.v, threshold=1.0, neurons=[]).get_lines()


def test_histograms_hold_every_value_once():
    v = torch.randn(7, 3, 5, requires_grad=True)
    ax = plot.potential_histogram(v, threshold=1.0, bins=9)
    heights = [bar.get_height() for bar in ax.patches]
    assert len(heights) == 9
    assert sum(heights) == pytest.approx(1.0)
    assert list(ax.get_lines()[0].get_xdata()) == [1.0, 1.0]
    z = torch.zeros(10, 2, 4)
    z[:, :, 1] = 1.0  # in every step
    z[0, 0, 2] = 1.0
    ax = plot.rate_histogram(z, DT, bins=10)
    assert [bar.get_height() for bar in ax.patches] == [3.0, *[0.0] * 8, 1.0]  # of 0, 25, 0 and 500 Hz
    assert ax.patches[-1].get_x() + ax.patches[-1].get_width() == pytest.approx(1 / DT)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("rate (Hz)", "neurons")
    assert [bar.get_height() for bar in plot.rate_histogram(torch.zeros(5, 3), bins=2).patches] == [3.0, 0.0]


@pytest.mark.parametrize(
    "v",
    [
        torch.full((5,), 1e30),
        torch.tensor([-65.00002, -65.0, -64.99998]),
        torch.tensor([-65.0 - 1e-14, -65.0], dtype=torch.float64),
        torch.tensor([0.0, 1e300], dtype=torch.float64),
        torch.tensor([0.0, 5e-324], dtype=torch.float64),
        torch.tensor([3, 3]),
    ],
)
def test_membranes_that_have_converged_and_large_ones_have_a_histogram(v: Tensor):
    bars = plot.potential_histogram(v).patches
    assert sum(bar.get_height() for bar in bars) == pytest.approx(1.0)


def test_negative_rates_of_signed_spikes_are_drawn():
    z = torch.tensor([[-1.0, 0.0, 1.0]]).expand(4, 3)
    bars = plot.rate_histogram(z, 0.01, bins=4).patches
    assert [bar.get_height() for bar in bars] == [1.0, 0.0, 1.0, 1.0]
    assert bars[0].get_x() == -100.0


def test_rates_over_time_are_means_of_windows():
    z = spikes(11, 3, 4)
    ax = plot.rate_over_time(z, DT, window=2 * DT)
    values, edges, _ = ax.patches[0].get_data()
    wanted = [float(part.mean()) / DT for part in z.split(2)]
    np.testing.assert_allclose(values, wanted, rtol=1e-6)
    np.testing.assert_allclose(edges, DT * np.array([0, 2, 4, 6, 8, 10, 11]))
    _, edges, _ = plot.rate_over_time(z, 0.1, window=0.3).patches[0].get_data()  # 0.3 / 0.1 < 3
    np.testing.assert_allclose(edges, [0, 0.3, 0.6, 0.9, 1.1])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (s)", "rate (Hz)")


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda: plot.raster(torch.ones(5)), r"spikes must be \[T, N\].*\[5\]"),
        (lambda: plot.raster(torch.ones(5, 0)), r"none of them 0, got shape \[5, 0\]"),
        (lambda: plot.raster(torch.ones(5, 3, 2), sample=3), r"sample must be from 0 to 2, got 3"),
        (lambda: plot.raster(torch.ones(5, 3), sample=1), r"sample must be from 0 to 0, got 1"),
        (lambda: plot.raster(torch.ones(5, 3), 0.0), r"dt .*dt=0.0"),
        (lambda: plot.raster(torch.ones(5, 3), rows=0), r"rows must be an integer of at least 1, got rows=0"),
        (lambda: plot.raster(torch.ones(5, 3), rows=2.5), r"rows must be .* got rows=2.5"),
        (lambda: plot.traces(torch.ones(5, 3), neurons=[1, 3]), r"neurons must be from 0 to 2, got \[1, 3\]"),
        (lambda: plot.traces(torch.ones(5, 3), threshold=torch.ones(2)), r"threshold .*\[5, 3\].*\[2\]"),
        (lambda: plot.traces(torch.ones(5)), r"values must be \[T, N\].*\[5\]"),
        (
            lambda: plot.traces(STATES),
            r"values must be a tensor, got a LIState; pass a field of it, states\.v say",
        ),
        (lambda: plot.potential_histogram(STATES), "values must be a tensor, got a LIState"),
        (lambda: plot.raster([[1.0]]), "spikes must be a tensor, got a list$"),
        (lambda: plot.potential_histogram(torch.tensor([0.0, torch.inf])), "finite numbers, got inf"),
        (lambda: plot.potential_histogram(torch.ones(0)), "finite numbers, got none"),
        (lambda: plot.rate_histogram(torch.ones(5)), r"spikes must be \[T, N\].*\[5\]"),
        (lambda: plot.rate_histogram(torch.tensor([[1.0, torch.nan]])), "finite numbers, a mean.* is nan"),
        (lambda: plot.rate_over_time(torch.ones(5, 3), window=-1.0), "window .*got -1.0"),
        (lambda: plot.rate_over_time(torch.ones(5, 3), torch.nan), "dt .*dt=nan"),
    ],
)
def test_what_does_not_fit_is_named(draw: Any, says: str):
    with pytest.raises(ValueError, match=says):
        draw()


def test_it_needs_no_screen_and_leaves_pyplot_alone():
    code = (
        "import sys, io, torch; from snnlib import plot; assert 'matplotlib.pyplot' not in sys.modules\n"
        "plot.raster(torch.ones(4, 3)).figure.savefig(io.BytesIO())\n"
        "from matplotlib import pyplot as plt; plot.traces(torch.ones(4, 3)); assert plt.get_fignums() == []"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": "", "PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize(
    ("missing", "module"), [("matplotlib.axes", "plot"), ("pytorch_lightning", "lightning")]
)
def test_without_its_package_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, missing: str, module: str
):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, f"snnlib.{module}", raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'snnlib\[{module}\]'"):
        importlib.import_module(f"snnlib.{module}")
