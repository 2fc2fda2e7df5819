"""The callback that watches spikes, beside what the net's own outputs say."""

import copy
import importlib
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnlib import LI, LIF, LIFCell, LIFRecurrent, Lift, Neuron, SequentialState

pl = pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed")

from snnlib.lightning import SpikeMonitor  # noqa: E402

T, BATCH, SAMPLES, DT = 30, 3, 8, 0.002
LAYERS = {"net.1": 6, "net.3": 5, "net.5.lifted": 4}
OPTIONS: dict[str, Any] = {
    **{"accelerator": "cpu", "devices": 1, "max_epochs": 3, "enable_progress_bar": False},
    **{"enable_checkpointing": False, "enable_model_summary": False, "barebones": False},
}
pytestmark = pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")


class Net(pl.LightningModule):
    """Three layers that spike and a readout; with a rate of 0 its weights stay."""

    def __init__(self, rate: float = 0.0, every: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = SequentialState(
            nn.Linear(4, 6),
            LIF(dt=DT, backend="reference"),
            nn.Linear(6, 5),
            LIFRecurrent(None, 5, dt=DT, backend="reference"),
            nn.Linear(5, 4),
            Lift(LIFCell(dt=DT)),
            nn.Linear(4, 2),
            LI(dt=DT, backend="reference"),
            return_hidden=True,
            checkpoint_every=every,
        )
        with torch.no_grad():
            for index in (0, 2, 4):
                self.net[index].weight.abs_().mul_(4.0)
            self.net[0].weight[0], self.net[0].bias[0] = 0.0, 0.0  # this neuron is dead
            self.net[0].weight[1], self.net[0].bias[1] = torch.tensor([9.0, 0.0, 0.0, 0.0]), 0.0
        self.rate, self.x = rate, torch.rand(SAMPLES, T, 4)
        self.x[1:, :, 0] = 0.0  # and this one hears of the first sample alone

    def forward(self, x: Tensor) -> list[Tensor]:
        hidden: list[Tensor] = self.net(x.transpose(0, 1))[0]
        return hidden

    def training_step(self, batch: Tensor) -> Tensor:
        return self(batch)[-1].square().mean()

    def validation_step(self, batch: Tensor) -> None:
        self(batch[:, : T // 2])

    def test_step(self, batch: Tensor) -> None:
        self(batch)

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(self.x, BATCH)

    def val_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(self.x, BATCH)

    def test_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(self.x, BATCH)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.rate)


def expected(net: Net, stage: str, steps: int = T) -> dict[str, float]:
    """Rates and shares from what the layers put out for all samples."""
    with torch.no_grad():
        hidden = net(net.x[:, :steps])
    figures = {}
    for name, size in LAYERS.items():
        z = hidden[int(name.split(".")[1])]
        assert z.shape == (steps, SAMPLES, size)
        figures[f"{stage}_spike_rate_hz/{name}"] = float(z.mean()) / DT
        figures[f"{stage}_silent_share/{name}"] = float((z.sum((0, 1)) == 0).float().mean())
    return figures


def watched(trainer: Any) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def hooks(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in net.modules() if isinstance(module, Neuron))


def test_rates_and_silent_neurons_are_those_of_the_outputs():
    net = Net()
    trainer = pl.Trainer(**OPTIONS, logger=False, callbacks=[SpikeMonitor()])
    trainer.fit(net)
    wanted = {**expected(net, "train"), **expected(net, "valid", T // 2)}
    assert watched(trainer) == pytest.approx(wanted, rel=1e-5)
    assert wanted["train_silent_share/net.1"] == pytest.approx(1 / 6)
    assert all(wanted[f"train_spike_rate_hz/{name}"] > 1 for name in LAYERS)
    trainer.test(net, verbose=False)
    assert watched(trainer) == pytest.approx(expected(net, "test"), rel=1e-5)
    assert hooks(net) == 0


def test_under_mixed_precision_spikes_are_counted_in_full():
    net = Net()
    trainer = pl.Trainer(**OPTIONS, logger=False, precision="bf16-mixed", callbacks=[SpikeMonitor()])
    trainer.validate(net, verbose=False)
    found = watched(trainer)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        z = net(net.x[:, : T // 2])[1]
    assert z.dtype == torch.bfloat16  # which cannot count beyond 256
    assert found["valid_spike_rate_hz/net.1"] == pytest.approx(float(z.double().mean()) / DT, rel=1e-5)


class Look(pl.Callback):
    """What the monitor knows after each batch of training, while copies of the net run beside it."""

    def __init__(self, monitor: SpikeMonitor) -> None:
        self.monitor = monitor
        self.shown: list[int] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        for made in (copy.deepcopy(pl_module.net), pickle.loads(pickle.dumps(pl_module.net))):
            assert [hook.see for hook in made[1]._forward_hooks.values()] == [None]
            made(torch.rand(T, 1, 4))
        _, shown = self.monitor._seen["train"].counts["net.1", (6,)]
        self.shown.append(shown)


@pytest.mark.parametrize("every", [None, 7])
def test_neither_copies_nor_what_backward_computes_again_are_counted(every: int | None):
    monitor = SpikeMonitor()
    look = Look(monitor)
    net = Net(every=every)
    pl.Trainer(**{**OPTIONS, "max_epochs": 1}, logger=False, callbacks=[monitor, look]).fit(net)
    assert look.shown == [3 * T, 6 * T, 8 * T]


def test_hooks_are_removed_after_an_exception():
    net = Net()
    seen = []

    def broken(batch: Tensor) -> Tensor:
        seen.append(hooks(net))
        raise RuntimeError("broken")

    net.training_step = broken
    with pytest.raises(RuntimeError, match="broken"):
        pl.Trainer(**OPTIONS, logger=False, callbacks=[SpikeMonitor()]).fit(net)
    assert seen == [len(LAYERS)]
    assert hooks(net) == 0


def test_tensorboard_gets_rasters_and_histograms_every_so_many_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = pl.loggers.TensorBoardLogger(tmp_path)
    drawn, time_steps = importlib.import_module("snnlib.plot").raster, set()
    monkeypatch.setattr("snnlib.plot.raster", lambda z, dt: time_steps.add(dt) or drawn(z, dt))
    net = Net(rate=0.1)
    pl.Trainer(**OPTIONS, logger=logger, log_every_n_steps=3, callbacks=[SpikeMonitor(2)]).fit(net)
    found = accumulator.EventAccumulator(logger.log_dir, {"histograms": 0, "images": 0})
    found.Reload()
    stages = ("train", "valid")
    tags = {kind: set(found.Tags()[kind]) for kind in ("images", "histograms", "scalars")}
    assert tags["images"] == {f"{stage}_raster/{name}" for stage in stages for name in LAYERS}
    assert tags["histograms"] == {f"{stage}_potential/{name}" for stage in stages for name in LAYERS}
    assert {"valid_silent_share/net.1", "train_spike_rate_hz/net.5.lifted"} <= tags["scalars"]
    for stage in stages:  # 3 batches an epoch, and of epochs 1 to 3 the first and the last
        assert [image.step for image in found.Images(f"{stage}_raster/net.3")] == [3, 9]
        (first, _) = found.Histograms(f"{stage}_potential/net.5.lifted")
        assert first.histogram_value.num == BATCH * LAYERS["net.5.lifted"]
    assert len(found.Scalars("train_spike_rate_hz/net.1")) == 3
    assert time_steps == {DT}


def test_of_a_layer_that_records_its_states_the_last_potential_is_shown(tmp_path: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    net, logger = Net(), pl.loggers.TensorBoardLogger(tmp_path)
    for name in ("net.1", "net.3"):
        net.get_submodule(name).record_states = True
    pl.Trainer(**OPTIONS, logger=logger, callbacks=[SpikeMonitor()]).test(net, verbose=False)
    found = accumulator.EventAccumulator(logger.log_dir, {"histograms": 0})
    found.Reload()
    _, last = LIF(dt=DT, backend="reference")(net.net[0](net.x[:BATCH].transpose(0, 1)))
    shown = found.Histograms("test_potential/net.1")[0].histogram_value
    assert shown.num == BATCH * LAYERS["net.1"]
    assert shown.sum == pytest.approx(last.v.sum().item(), rel=1e-4)
    assert found.Histograms("test_potential/net.3")[0].histogram_value.num == BATCH * LAYERS["net.3"]


def test_potentials_that_are_not_finite_end_nothing(tmp_path: Path):
    net = Net()
    nn.init.constant_(net.net[4].bias, torch.inf)
    logger = pl.loggers.TensorBoardLogger(tmp_path)
    trainer = pl.Trainer(**OPTIONS, logger=logger, callbacks=[SpikeMonitor()])
    trainer.test(net, verbose=False)
    assert watched(trainer)["test_silent_share/net.5.lifted"] == 0.0


def test_without_matplotlib_it_says_so_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    monkeypatch.delitem(sys.modules, "snnlib.plot", raising=False)
    logger = pl.loggers.TensorBoardLogger(tmp_path)
    trainer = pl.Trainer(**OPTIONS, logger=logger, callbacks=[SpikeMonitor()])
    with pytest.raises(ImportError, match="pip install"):
        trainer.fit(Net())
    assert trainer.global_step == 0


@pytest.mark.parametrize("epochs", [-1, 2.5, True])
def test_a_wrong_number_of_epochs_is_named(epochs: Any):
    with pytest.raises(ValueError, match=f"figures_every must be an integer of at least 0, got .*{epochs}"):
        SpikeMonitor(epochs)


def test_two_processes_are_counted_as_one():
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    net = Net()
    strategy = "ddp_spawn" if torch.cuda.is_initialized() else "ddp_fork"  # a fork takes a tenth of the time
    options = {**OPTIONS, "devices": 2, "max_epochs": 1, "strategy": strategy}
    trainer = pl.Trainer(**options, logger=False, callbacks=[SpikeMonitor()])
    trainer.fit(net)  # 4 samples each
    assert watched(trainer) == pytest.approx(
        {**expected(net, "train"), **expected(net, "valid", T // 2)}, rel=1e-5
    )
