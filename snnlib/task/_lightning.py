"""Lightning as the trainer of a task; the run's folder, exact resume and ends are those of all tasks."""

import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from snnlib.task import _flags, _run, _train
from snnlib.task._form import check_form
from snnlib.task._processes import place, summed
from snnlib.task._progress import check_progress
from snnlib.task._random import random_state

try:
    import pytorch_lightning as pl
    from lightning_fabric.utilities.exceptions import MisconfigurationException
    from pytorch_lightning.callbacks import Checkpoint, EarlyStopping
    from pytorch_lightning.plugins.io import TorchCheckpointIO
    from torchmetrics import MeanMetric
except ImportError as error:
    _flags.needs(error)

__all__ = ["Batches", "MeanMetric", "fit", "pl", "scheduled", "trainer"]


class Batches:
    """Batches of examples that are fetched by their index, in a new order every epoch, or in their own.

    The order follows from the seed and the epoch alone, so that where a run stands is two numbers. Of several
    processes that train one net each takes its share of a batch, which is ``batch_size`` a process.

    Parameters:
        fetch: from indices ``[n]`` to the examples.
        count: number of examples in an epoch.
        batch_size: examples a process is given at once; the last batch of an epoch may have less.
        seed: of the order; None keeps the examples in their own.
        limit: part of the batches, up to 1, or how many, above 1.
        fresh: whether examples are never seen again: those of epoch e begin at ``e * count``.
    """

    def __init__(
        self,
        fetch: Callable[[Tensor], Any],
        count: int,
        batch_size: int,
        seed: int | None = None,
        limit: float = 1.0,
        fresh: bool = False,
    ) -> None:
        self.fetch, self.count, self.batch_size, self.seed, self.fresh = fetch, count, batch_size, seed, fresh
        self.limit = limit
        self.epoch, self.done, self._goes_on = -1, 0, False

    def __len__(self) -> int:
        _, processes = place()
        whole = -(-self.count // (self.batch_size * processes))
        return max(1, round(whole * self.limit)) if self.limit <= 1.0 else min(whole, int(self.limit))

    def __iter__(self) -> Iterator[Any]:
        if not self._goes_on:
            self.epoch, self.done = self.epoch + 1, 0
        self._goes_on = False
        rank, processes = place()
        size = self.batch_size * processes
        order = self._order()
        while self.done < len(self):
            chosen = order[self.done * size : (self.done + 1) * size]
            training = self.seed is not None or self.fresh
            if training and len(chosen) % processes:  # all must take equal steps
                chosen = torch.cat([chosen, order])[: -(-len(chosen) // processes) * processes]
            self.done += 1
            yield self.fetch(chosen[rank::processes])  # of none, it may be: all must take as many batches

    def _order(self) -> Tensor:
        if self.fresh:
            return torch.arange(self.count) + self.epoch * self.count
        if self.seed is None:
            return torch.arange(self.count)
        generator = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
        return torch.randperm(self.count, generator=generator)

    @property
    def place(self) -> list[int]:
        """Epoch and batches of it that were given: where a resumed run goes on.

        Not a ``state_dict``: what Lightning 2.6 finds under that name it restores only now and then.
        """
        return [self.epoch, self.done]

    @place.setter
    def place(self, value: list[int]) -> None:
        self.epoch, self.done = value
        self._goes_on = self.epoch >= 0 and self.done < len(self)


def trainer(run: _run.Run, monitor: str, **options: Any) -> pl.Trainer:
    """Lightning's trainer, set by the flags of :data:`snnlib.task._flags.LIGHTNING`, and tied to a run.

    Parameters:
        run: where everything is written.
        monitor: the figure that chooses the best epoch; the larger is the better, but for an error or a loss.
        options: more arguments of ``pytorch_lightning.Trainer``.
    """
    values = run.flags
    _quiet()
    small = monitor.endswith(("_error", "_loss"))
    callbacks: list[pl.Callback] = [_Keeper(run, monitor, -1.0 if small else 1.0)]
    if values.patience:
        mode = "min" if small else "max"
        callbacks.append(EarlyStopping(monitor, patience=values.patience, mode=mode))
    if values.accelerator == "cuda" and not torch.cuda.is_available():
        _train.device(values)
    try:
        made = pl.Trainer(
            accelerator=values.accelerator,
            devices=values.devices,
            num_nodes=values.num_nodes,
            strategy=values.strategy,
            precision=values.precision,
            accumulate_grad_batches=values.accumulate_grad_batches,
            fast_dev_run=values.fast_dev_run,
            gradient_clip_val=values.clip_grad or None,
            max_epochs=options.pop("max_epochs", values.epochs),
            callbacks=callbacks,
            plugins=[_Checkpoints(run)],
            default_root_dir=run.folder,
            logger=False,
            enable_checkpointing=True,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
            num_sanity_val_steps=0,
            **options,
        )
    except (MisconfigurationException, ValueError, RuntimeError, TypeError) as error:
        raise _run.RunError(" ".join(str(error).split())) from error
    return made


def scheduled(optim: torch.optim.Optimizer, trainer: pl.Trainer) -> Any:
    """What ``configure_optimizers`` returns: the optimiser, and the schedule that all tasks have."""
    rate = _train.schedule(optim, int(trainer.estimated_stepping_batches))
    resumed = _keeper(trainer).run.resumed
    if resumed:
        _check_states(_keeper(trainer).run, resumed, optim, rate)
    return {"optimizer": optim, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


def fit(
    trainer: pl.Trainer, module: pl.LightningModule, train: Batches, valid: Batches, test: Batches
) -> dict[str, Any]:
    """Train, or go on training, take the weights of the best epoch, and test them.

    Returns:
        What the module logged for the best epoch and for the test, and ``best_epoch``.
    """
    keeper = _keeper(trainer)
    run = keeper.run
    keeper.batches = train
    path = None
    if run.resumed:
        # Lightning would end with a traceback where it does not fit
        run.load_into(run.resumed, state_dict=module)
        path = run.folder / "last.pt"
        check_progress(trainer, run, run.resumed, len(train))
        keeper.on_load_checkpoint(trainer, module, run.resumed)
    if not keeper.finished(trainer):
        _fit(trainer, module, train, valid, path)
    else:
        keeper.restore()
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        tested = trainer.test(module, test, verbose=False)
        return {**_numbers(trainer.callback_metrics), **_numbers(tested[0]), "best_epoch": 0}
    best: Any = trainer.strategy.broadcast(run.read_checkpoint("best.pt") if run.chief else None)
    run.load_into(best, state_dict=module)
    tested = trainer.test(module, test, verbose=False)
    figures = run.part_of(best, "figures", dict.fromkeys(keeper.figures, math.nan))
    epoch = run.part_of(best, "epoch", 0)
    return {**figures, **_numbers(tested[0]), "best_epoch": epoch + 1}


def _fit(
    trainer: pl.Trainer, module: pl.LightningModule, train: Batches, valid: Batches, path: Path | None
) -> None:
    """Train; what fails before the first step of a resumed run fails for what is in its checkpoint."""
    keeper = _keeper(trainer)
    try:
        trainer.fit(module, train, valid, ckpt_path=path)
    except Exception as error:
        if keeper.began or path is None or isinstance(error, _run.RunError):
            raise
        with keeper.run.fitting("checkpoint"):
            raise


def _keeper(trainer: pl.Trainer) -> "_Keeper":
    return next(c for c in trainer.callbacks if isinstance(c, _Keeper))  # type: ignore[attr-defined]


def _check_states(run: _run.Run, checkpoint: dict[str, Any], optim: torch.optim.Optimizer, rate: Any) -> None:
    """Refuse states that do not fit, and leave of the others what is not in the flags: Lightning takes all."""
    with run.fitting("optimizer"):
        ((optimizer,), (schedule,)) = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
    run.load_into({"optimizer": optimizer, "schedule": schedule}, optimizer=optim, schedule=rate)
    checkpoint["optimizer_states"] = [optim.state_dict()]


class _Checkpoints(TorchCheckpointIO):
    """Lightning's checkpoints, written whole and read without running what is in them."""

    def __init__(self, run: _run.Run) -> None:
        self.run = run

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.run.write_checkpoint(Path(path).name, {**checkpoint, "step": checkpoint["global_step"]})

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        resumed = self.run.resumed
        # what was checked, not what the file holds by now
        return (
            resumed if resumed and Path(path).name == "last.pt" else self.run.read_checkpoint(Path(path).name)
        )


class _Keeper(Checkpoint):
    """Writes the run: figures, ``best.pt`` and ``last.pt`` after every epoch, ``last.pt`` between if asked.

    Lightning's ``ModelCheckpoint`` is not used: it remembers absolute paths, so that a run that was moved
    forgets its best epoch, and of equal epochs it keeps the first, which has learned least.
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
        self.run.watch(
            lambda: f"epoch {trainer.current_epoch + 1}, batch {self.batch + 1}",
            trainer.optimizers[0],
            lambda: self.gradients,  # Lightning takes them from the parameters before the next forward pass
        )
        if self._random is not None:
            self.restore()
        elif trainer.global_rank:  # the processes draw different augmentations
            torch.manual_seed(self.run.flags.seed + 1_000_003 * trainer.global_rank)

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
        every = self.run.flags.checkpoint_every
        stop = self._stopping(trainer)
        if stop or (every and (batch_idx + 1) % every == 0):
            self._save(trainer, "last.pt")
        if stop:
            self.run.stop()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        sums = torch.tensor([self.loss, float(self.count)], dtype=torch.float64)
        loss, count = summed(sums.to(pl_module.device)).tolist()
        self.figures = {"train_loss": loss / max(1.0, count), **_numbers(trainer.callback_metrics)}
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
        if self._stopping(trainer):
            self.run.stop()

    def _save(self, trainer: pl.Trainer, name: str) -> None:
        trainer.save_checkpoint(self.run.folder / name)

    def _stopping(self, trainer: pl.Trainer) -> bool:
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
        place = self.batches.place if self.batches else [0, 0]
        checkpoint |= {"stopped": self.stopped, "whole_epochs": whole, "place": place}

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
            raise _run.RunError(
                f"the run was trained by {len(ranks)} processes, these are {trainer.world_size}"
            )
        own = ranks[trainer.global_rank]
        self._random, self.loss, self.count = own["random"], own["loss"], own["count"]
        self.best, self.figures, self.stopped = checkpoint["best"], checkpoint["figures"], checkpoint["stopped"]
        if self.batches is not None:
            self.batches.place = checkpoint["place"]


def _numbers(metrics: Any) -> dict[str, float]:
    """Figures as numbers, in the digits that float32 has."""
    return {name: float(f"{float(value):.7g}") for name, value in metrics.items()}


def _quiet() -> None:
    """Keep Lightning's advertisements and advice off the screen; errors still come."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric")
