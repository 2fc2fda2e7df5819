"""What Lightning's trainer writes to a run, and how it goes on from it."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from snnlib.task import _run, _train
from snnlib.task._batches import Batches
from snnlib.task._error import RunError
from snnlib.task._form import check_form
from snnlib.task._lightning import Checkpoint, TorchCheckpointIO, pl
from snnlib.task._processes import summed
from snnlib.task._random import own_seed, random_state

__all__ = ["CheckpointFiles", "Keeper", "numbers"]


class Keeper(Checkpoint):
    """Writes the run: figures, ``best.pt`` and ``last.pt`` after every epoch, ``last.pt`` between if asked.

    Lightning's ``ModelCheckpoint`` is not used: it remembers absolute paths, so that a run that was moved
    forgets its best epoch, and of equal epochs it keeps the first, which has learned least.

    Parameters:
        run: what is written to.
        monitor: the figure that chooses the best epoch.
        sign: 1 where the larger is the better, -1 where the smaller is.
    """

    def __init__(self, run: _run.Run, monitor: str, sign: float) -> None:
        self.run, self.monitor, self.sign = run, monitor, sign
        self.best: float | None = None
        self.figures: dict[str, float] = {}
        self.stopped = False  # before the last epoch, for want of progress
        self.loss, self.count = 0.0, 0
        self.started = time.perf_counter()
        self.batches: Batches | None = None
        self.batch, self.gradients = 0, dict[str, Tensor]()
        self.began = False
        self._random: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = True
        self.run.listen()  # Lightning has put its own in their place
        if self._random is not None:
            self.restore()
        elif trainer.global_rank:  # the processes draw different augmentations
            torch.manual_seed(own_seed(self.run.flags.seed, "process", trainer.global_rank))
        self.run.watch(
            pl_module,
            trainer.optimizers[0],
            lambda: f"epoch {trainer.current_epoch + 1}, batch {self.batch + 1}",
            lambda: self.gradients,  # Lightning takes them from the parameters before the next forward pass
        )

    def restore(self) -> None:
        assert self._random is not None
        self.run.load_random_state({"random": self._random})

    def finished(self, trainer: pl.Trainer) -> bool:
        """Whether there is nothing left to train, which is so after a resume of a whole run."""
        if self.run.resumed is None:
            return self.stopped
        whole: int = self.run.part_of(self.run.resumed, "whole_epochs", 0)
        return whole >= (trainer.max_epochs or 0) or self.stopped

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch = batch_idx

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.gradients = _train.gradients(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        examples = outputs.get("examples", 1)
        # Lightning has divided the loss by the batches of one step
        self.loss += _train.finite(outputs["loss"]) * trainer.accumulate_grad_batches * examples
        self.count += examples
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # the end of the epoch saves; a gradient that is half collected cannot be saved
        stop = self.stopping(trainer)
        if stop or self.run.due((batch_idx + 1) // trainer.accumulate_grad_batches):
            self._save(trainer, "last.pt")
        if stop:
            self.run.stop()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        sums = torch.tensor([self.loss, float(self.count)], dtype=torch.float64)
        loss, count = summed(sums.to(pl_module.device)).tolist()
        self.figures = {"train_loss": loss / max(1.0, count), **numbers(trainer.callback_metrics)}
        self.loss, self.count = 0.0, 0
        self.stopped = trainer.should_stop
        if self.run.chief:
            seconds = time.perf_counter() - self.started
            epoch = trainer.current_epoch + 1
            self.run.log(trainer.global_step, epoch=epoch, **self.figures, epoch_seconds=seconds)
        value = self.sign * self.figures[self.monitor]
        if self.best is None or value >= self.best:  # of equals the later, which has learned longer
            self.best = value
            self._save(trainer, "best.pt")
        self._save(trainer, "last.pt")
        if self.stopping(trainer):
            self.run.stop()

    def _save(self, trainer: pl.Trainer, name: str) -> None:
        trainer.save_checkpoint(self.run.folder / name)

    def stopping(self, trainer: pl.Trainer) -> bool:
        """Whether any of the processes was told to stop."""
        return bool(trainer.strategy.reduce_boolean_decision(self.run.stopping, all=False))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        own = {"random": random_state(), "loss": self.loss, "count": self.count}
        ranks: list[Any] = [own]
        if trainer.world_size > 1:
            ranks = [None] * trainer.world_size
            dist.all_gather_object(ranks, own)
        whole = trainer.fit_loop.epoch_progress.total.processed  # type: ignore[attr-defined]
        checkpoint |= {"ranks": ranks, "best": self.best, "figures": self.figures}
        place, examples = (self.batches.place, self.batches.count) if self.batches else ([0, 0], 0)
        checkpoint |= {"stopped": self.stopped, "whole_epochs": whole, "place": place, "examples": examples}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        with self.run.fitting("checkpoint"):
            ranks = list(checkpoint["ranks"])
            for rank in ranks:
                check_form(
                    {"random": 0, "loss": 0.0, "count": 0}, {**rank, "random": len(rank["random"])}, "ranks"
                )
            check_form(False, checkpoint["stopped"], "stopped")
            check_form(None, checkpoint["best"], "best")
            check_form(dict.fromkeys(checkpoint["figures"], math.nan), checkpoint["figures"], "figures")
        if len(ranks) != trainer.world_size:
            raise RunError(f"the run was trained by {len(ranks)} processes, these are {trainer.world_size}")
        own = ranks[trainer.global_rank]
        self._random, self.loss, self.count = own["random"], own["loss"], own["count"]
        self.best, self.figures, self.stopped = checkpoint["best"], checkpoint["figures"], checkpoint["stopped"]
        if self.batches is not None:
            self.batches.place = checkpoint["place"]


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's checkpoints, written whole and read without running what is in them."""

    def __init__(self, run: _run.Run) -> None:
        self.run = run

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.run.write_checkpoint(Path(path).name, {**checkpoint, "step": checkpoint["global_step"]})

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        name = Path(path).name
        if self.run.resumed and name == "last.pt":
            return self.run.resumed  # what was checked, not what the file holds by now
        return self.run.read_checkpoint(name)


def numbers(metrics: Any) -> dict[str, float]:
    """Figures as numbers, in the digits that float32 has."""
    return {name: float(f"{float(value):.7g}") for name, value in metrics.items()}
