"""Lightning as the trainer of a task; the run's folder, exact resume and ends are those of all tasks."""

import math
import os
import sys
from pathlib import Path
from typing import Any

import torch

from snnlib._words import one_line
from snnlib.task import _run, _train
from snnlib.task._batches import Batches
from snnlib.task._counters import check_counters
from snnlib.task._error import RunError
from snnlib.task._keeper import CheckpointFiles, Keeper, numbers
from snnlib.task._lightning import EarlyStopping, MisconfigurationException, pl, quiet

__all__ = ["fit", "scheduled", "trainer"]


def trainer(run: _run.Run, monitor: str, **options: Any) -> pl.Trainer:
    """Lightning's trainer, set by the flags of :data:`snnlib.task._flags.LIGHTNING`, and tied to a run.

    Parameters:
        run: where everything is written.
        monitor: the figure that chooses the best epoch; the larger is the better, but for an error or a loss.
        options: more arguments of ``pytorch_lightning.Trainer``.
    """
    values = run.flags
    quiet()
    if values.accelerator == "cuda":
        _train.device(values)  # says what to do where there is none
    _check_processes(values)
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
            callbacks=_callbacks(run, monitor),
            plugins=[CheckpointFiles(run)],
            default_root_dir=run.folder,
            logger=False,
            enable_checkpointing=True,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
            num_sanity_val_steps=0,
            **options,
        )
    except (MisconfigurationException, ValueError, RuntimeError, TypeError) as error:
        names = ("accelerator", "devices", "num_nodes", "strategy", "precision")
        given = " ".join(f"--{name}={values[name].value}" for name in names)
        raise RunError(f"Lightning refuses {given}: {one_line(error)}") from error
    if made.precision != values.precision:
        raise RunError(f"--precision={values.precision} is not to be had here, only {made.precision}")
    return made


def _check_processes(values: Any) -> None:
    """Refuse processes that cannot share a run, and such as would wait for others for ever."""
    if any(word in values.strategy for word in ("spawn", "fork", "notebook")):
        raise RunError(f"--strategy={values.strategy}: such processes cannot share a run; take ddp")
    launched = ("MASTER_ADDR", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "LSB_JOBID", "OMPI_COMM_WORLD_RANK")
    if values.num_nodes > 1 and not any(name in os.environ for name in launched):
        raise RunError(f"--num_nodes={values.num_nodes}: start it by torchrun or SLURM on every machine")


def _callbacks(run: _run.Run, monitor: str) -> list[pl.Callback]:
    small = monitor.endswith(("_error", "_loss"))
    callbacks: list[pl.Callback] = [Keeper(run, monitor, -1.0 if small else 1.0)]
    if run.flags.patience:
        mode = "min" if small else "max"
        callbacks.append(EarlyStopping(monitor, patience=run.flags.patience, mode=mode))
    return callbacks


def scheduled(optim: torch.optim.Optimizer, trainer: pl.Trainer) -> Any:
    """What ``configure_optimizers`` returns: the optimiser, and the schedule that all tasks have."""
    rate = _train.schedule(optim, int(trainer.estimated_stepping_batches))
    run = _keeper(trainer).run
    if run.resumed:
        _check_states(run, run.resumed, optim, rate)
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
    if trainer.precision == "64-true":  # Lightning would do so after it has filled the module from a checkpoint
        module.double()
    path = None
    if run.resumed:
        # Lightning would end with a traceback where it does not fit
        run.load_into(run.resumed, state_dict=module)
        path = run.folder / "last.pt"
        examples = run.part_of(run.resumed, "examples", 0)
        if examples != train.count:
            raise RunError(f"the run was trained with {examples} examples an epoch, these are {train.count}")
        check_counters(trainer, run, run.resumed, len(train))
        keeper.on_load_checkpoint(trainer, module, run.resumed)
    if not keeper.finished(trainer):
        _fit(trainer, module, train, valid, path)
    else:
        keeper.restore()
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        tested = trainer.test(module, test, verbose=False)
        return {**numbers(trainer.callback_metrics), **numbers(tested[0]), "best_epoch": 0}
    if keeper.stopping(trainer):  # all is trained and saved: --resume does the rest
        run.stop()
    best: Any = trainer.strategy.broadcast(run.read_checkpoint("best.pt") if run.chief else None)
    run.load_into(best, state_dict=module)
    tested = trainer.test(module, test, verbose=False)
    figures = run.part_of(best, "figures", dict.fromkeys(keeper.figures, math.nan))
    epoch = run.part_of(best, "epoch", 0)
    return {**figures, **numbers(tested[0]), "best_epoch": epoch + 1}


def _fit(
    trainer: pl.Trainer, module: pl.LightningModule, train: Batches, valid: Batches, path: Path | None
) -> None:
    """Train; what fails before the first step of a resumed run fails for what is in its checkpoint."""
    keeper = _keeper(trainer)
    try:
        trainer.fit(module, train, valid, ckpt_path=path)
    except Exception as error:
        if keeper.began or path is None or isinstance(error, RunError):
            raise
        with keeper.run.fitting("checkpoint"):
            raise


def _keeper(trainer: pl.Trainer) -> Keeper:
    return next(c for c in trainer.callbacks if isinstance(c, Keeper))  # type: ignore[attr-defined]


def _check_states(run: _run.Run, checkpoint: dict[str, Any], optim: torch.optim.Optimizer, rate: Any) -> None:
    """Refuse states that do not fit, and leave of the others what is not in the flags: Lightning takes all."""
    with run.fitting("optimizer"):
        ((optimizer,), (schedule,)) = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
    run.load_into({"optimizer": optimizer, "schedule": schedule}, optimizer=optim, schedule=rate)
    checkpoint["optimizer_states"], checkpoint["lr_schedulers"] = [optim.state_dict()], [rate.state_dict()]
