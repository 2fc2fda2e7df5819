"""What PyTorch Lightning's trainer can be given: a callback that watches spikes."""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, distributed, nn

from snnlib.engine.check import checked_length
from snnlib.module.neuron import Neuron

try:
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import TensorBoardLogger
    from pytorch_lightning.trainer.states import RunningStage, TrainerFn
except ImportError as error:
    raise ImportError("callbacks need pytorch-lightning: pip install 'snnlib[lightning]'") from error

__all__ = ["SpikeMonitor"]

_STAGES = {RunningStage.TRAINING: "train", RunningStage.VALIDATING: "valid", RunningStage.TESTING: "test"}

_Key = tuple[str, tuple[int, ...]]
"""A layer and the shape ``[*features]`` of its neurons."""


@dataclass
class _Seen:
    """What the layers did in one stage."""

    counts: dict[_Key, tuple[Tensor, int]] = field(default_factory=dict)
    """Spikes of each neuron, and how often it could spike: steps times samples."""
    spikes: dict[str, list[Tensor]] = field(default_factory=dict)
    """Of the first sample of the batch that is drawn, in parts ``[T, 1, *features]``."""
    potentials: dict[str, Tensor] = field(default_factory=dict)
    """After the last step of that batch."""


class SpikeMonitor(pl.Callback):
    """Log how much every layer of spiking neurons spikes, and show what it does in TensorBoard.

    At the end of every epoch of training, validation and test, of each layer by its name in the module::

        {train,valid,test}_spike_rate_hz/<layer>     mean rate of its neurons, Hz
        {train,valid,test}_silent_share/<layer>      share of its neurons without a spike in the whole epoch

    and every ``figures_every`` epochs, where a logger is a ``TensorBoardLogger``, of the epoch's first batch::

        {train,valid,test}_raster/<layer>            spikes of the first sample, see :func:`snnlib.plot.raster`
        {train,valid,test}_potential/<layer>         histogram of ``v`` after the last step, of all samples

    Every :class:`.Neuron` that is ``spiking``, since its parameters have a ``method``, is watched by a forward
    hook, layer or cell, which sums up its spikes. The hooks are removed when the trainer is done, after an
    exception too. Counts are those of all processes; where a layer is given several shapes ``[*features]``, the
    neurons of each count.

    Parameters:
        figures_every: epochs between two figures, from the first epoch on; 0 draws none. After a test or a
            validation that is no part of a training they are drawn in any case.

    Raises:
        ValueError: ``figures_every`` is no number of epochs.
    """

    def __init__(self, figures_every: int = 10) -> None:
        self.figures_every = checked_length("figures_every", figures_every, least=0)
        self._hooks: list[Any] = []
        self._dt: dict[str, float] = {}
        self._trainer: pl.Trainer | None = None
        self._seen: defaultdict[str, _Seen] = defaultdict(_Seen)
        self._drawn = False  # whether the batch that runs is

    def _watch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._hooks:
            return
        self._trainer = trainer
        for name, module in pl_module.named_modules():
            if isinstance(module, Neuron) and module.spiking:
                self._dt[name] = module.dt
                self._hooks.append(module.register_forward_hook(_Hook(self._see, name)))

    def _leave(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._dt, self._trainer, self._drawn = [], {}, None, False
        self._seen.clear()

    def _stage(self) -> str | None:
        stage = self._trainer.state.stage if self._trainer else None
        return _STAGES.get(stage) if stage else None

    def _see(self, name: str, layer: Neuron, output: tuple[Tensor, Any]) -> None:
        stage = self._stage()
        if stage is None or torch._C._current_graph_task_id() != -1:
            return  # a sanity check, or a backward pass that computes again what was counted
        seen, spikes, state = self._seen[stage], output[0].detach(), output[1]
        lead = 2 if layer.over_time else 1
        key = (name, tuple(spikes.shape[lead:]))
        before, shown = seen.counts.get(key, (0.0, 0))
        total = before + spikes.sum(tuple(range(lead)), dtype=torch.float32)
        seen.counts[key] = total, shown + math.prod(spikes.shape[:lead])
        if self._drawn and spikes.numel():
            one = spikes[:, :1] if layer.over_time else spikes[None, :1]
            seen.spikes.setdefault(name, []).append(one.clone())
            if hasattr(state, "v"):
                v = state.v[-1] if layer.over_time and layer.record_states else state.v
                seen.potentials[name] = v.detach().clone()

    def _begin(self, trainer: pl.Trainer, batch: int) -> None:
        """Before a batch: whether it is drawn."""
        training = trainer.state.fn == TrainerFn.FITTING
        every = self.figures_every
        due = every > 0 and (not training or trainer.current_epoch % every == 0)
        self._drawn = due and batch == 0 and bool(_writers(trainer))

    def _end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After an epoch of a stage: log it, and draw what was kept of it."""
        stage = self._stage()
        if stage is None:
            return
        seen = self._seen.pop(stage, _Seen())
        for name, found in _together(trainer, pl_module, seen.counts).items():
            spikes, shown, silent, neurons = found.unbind()
            figures = {"spike_rate_hz": spikes / (shown * self._dt[name]), "silent_share": silent / neurons}
            for figure, value in figures.items():
                # all processes have the same value; Lightning asks for sync_dist in any case
                pl_module.log(f"{stage}_{figure}/{name}", value, on_step=False, on_epoch=True, sync_dist=True)
        for writer in _writers(trainer):
            _draw(writer, stage, seen, self._dt, trainer.global_step)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._leave()  # nothing is left of a run before
        if self.figures_every and _writers(trainer):
            import snnlib.plot  # noqa: F401  where matplotlib is missing, say so before the training

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch(trainer, pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._begin(trainer, batch_idx)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, loader: int = 0
    ) -> None:
        self._begin(trainer, batch_idx + loader)

    def on_test_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, loader: int = 0
    ) -> None:
        self._begin(trainer, batch_idx + loader)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end(trainer, pl_module)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end(trainer, pl_module)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._leave()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._leave()


class _Hook:
    """A forward hook that is copied and pickled without what it calls: a copy of a layer is not watched."""

    def __init__(self, see: Callable[..., None] | None = None, name: str = "") -> None:
        self.see, self.name = see, name

    def __call__(self, layer: nn.Module, input: Any, output: Any) -> None:
        if self.see is not None:
            self.see(self.name, layer, output)

    def __reduce__(self) -> Any:
        return _Hook, ()


def _together(
    trainer: pl.Trainer, pl_module: pl.LightningModule, counts: dict[_Key, tuple[Tensor, int]]
) -> dict[str, Tensor]:
    """Of each layer, over all processes: its spikes, how often they could spike, silent neurons, neurons."""
    keys = set(counts)
    if trainer.world_size > 1:  # one of them may have had no batch
        ranks: list[Any] = [None] * trainer.world_size
        distributed.all_gather_object(ranks, keys)
        keys = set().union(*ranks)
    found: dict[str, Tensor] = {}
    for name, features in sorted(keys):
        size = math.prod(features)
        spikes, shown = counts.get((name, features), (torch.zeros(size, device=pl_module.device), 0))
        local = torch.cat([spikes.flatten(), spikes.new_tensor([shown])])
        total: Any = trainer.strategy.reduce(local, reduce_op="sum")
        spikes, often = total[:-1], total[-1] * size
        figures = torch.stack([spikes.sum(), often, (spikes == 0).sum(), spikes.new_tensor(size)])
        found[name] = found.get(name, 0.0) + figures
    return found


def _writers(trainer: pl.Trainer) -> list[Any]:
    """TensorBoard's, in the process that writes."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def _draw(writer: Any, stage: str, seen: _Seen, dt: dict[str, float], step: int) -> None:
    from snnlib.plot import raster

    for name, parts in seen.spikes.items():
        shape = parts[0].shape[1:]  # where a layer was given others too, they are left out
        ax = raster(torch.cat([part for part in parts if part.shape[1:] == shape]), dt[name])
        writer.add_figure(f"{stage}_raster/{name}", ax.figure, step)
    for name, v in seen.potentials.items():
        known = v[v.isfinite()].float()
        if len(known):  # a histogram of nothing, or of NaN, would end the training
            writer.add_histogram(f"{stage}_potential/{name}", known, step)
