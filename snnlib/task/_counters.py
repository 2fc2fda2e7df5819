"""Whether Lightning's counters in a checkpoint are those of a run: they may come from a stranger."""

from typing import TYPE_CHECKING, Any

from snnlib.task._checkpoint import Checkpoints
from snnlib.task._form import check_form

if TYPE_CHECKING:
    import pytorch_lightning as pl

__all__ = ["check_counters"]


def check_counters(
    trainer: "pl.Trainer", checkpoints: Checkpoints, checkpoint: dict[str, Any], batches: int
) -> None:
    """Refuse counters that contradict each other, with which Lightning trains nothing, or fails after an epoch.

    States of callbacks that the run has are looked at too, and early stopping keeps the patience of the flags.

    Parameters:
        trainer: what is to go on.
        checkpoints: those of the run, for the sentence that names it.
        checkpoint: the state to go on from.
        batches: how many an epoch has.

    Raises:
        RunError: names what differs.
    """
    epoch, done = checkpoints.part_of(checkpoint, "place", [0, 0])
    whole = checkpoints.part_of(checkpoint, "whole_epochs", 0)
    with checkpoints.fitting("loops"):
        loop = checkpoint["loops"]["fit_loop"]
        check_form(trainer.fit_loop.state_dict(), loop, "fit_loop")
        if not epoch <= whole <= epoch + 1 or done < 1 or (whole == epoch and done >= batches):
            raise ValueError(f"{whole} epochs are whole, {done} of {batches} batches done in epoch {epoch + 1}")
        _check_loop(loop, epoch, done, whole > epoch, checkpoint["step"])
    with checkpoints.fitting("callbacks"):
        states = checkpoint["callbacks"]
        if not (isinstance(states, dict) and all(isinstance(state, dict) for state in states.values())):
            raise ValueError(f"they must be a dictionary of states, got {states!r:.40}")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            _check_callback(callback, states)


def _check_callback(callback: "pl.Callback", states: dict[str, Any]) -> None:
    for name, value in callback.state_dict().items():
        found = states[callback.state_key]
        if value is not None:
            check_form(value, found[name], name)
        elif not isinstance(found[name], str | None):  # what is nothing yet may be text by then
            raise ValueError(f"{name} must be a text, got {found[name]!r:.40}")
        if name == "patience":
            found[name] = value


def _check_loop(loop: dict[str, Any], epoch: int, done: int, at_end: bool, step: int) -> None:
    """A checkpoint is written within an epoch: after some of its batches, or after all, at its end."""
    begun = {"ready": epoch + 1, "started": epoch + 1, "processed": epoch + at_end, "completed": epoch}
    given = {"ready": done, "started": done, "processed": done, "completed": done if at_end else done - 1}
    epochs, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
    steps = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]
    for name, wanted, found in (
        ("epoch_progress.total", begun, epochs["total"]),
        ("epoch_progress.current", begun, epochs["current"]),
        ("batch_progress.current", given, batches["current"]),
        ("batch_progress.is_last_batch", at_end, batches["is_last_batch"]),
        ("step.total.completed", step, steps["completed"]),
    ):
        if found != wanted:
            raise ValueError(f"{name} must be {wanted}, got {found}")
