"""What every task does with a run to go on with that lacks something, or has only its report left."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from snnlib.dataset.images import generated_images
from snnlib.engine.fused import _compiled
from snnlib.task import _run, mnist_pl
from tests.task.command import assert_same_run, checkpoint, metrics
from tests.task.test_flags import TASKS, here, module_of


@pytest.mark.parametrize("task", TASKS)
def test_told_to_stop_when_all_is_trained_it_leaves_the_report_to_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
):
    write, open_ = _run.Run.write_checkpoint, _run.Run._open

    def saved(self: _run.Run, name: str, content: dict[str, Any]) -> None:
        write(self, name, content)
        if name == "last.pt":
            self._signal = signal.SIGTERM

    def opened(self: _run.Run) -> None:
        open_(self)
        self._signal = signal.SIGINT

    monkeypatch.setattr(_run.Run, "write_checkpoint", saved)
    with pytest.raises(SystemExit) as stopped:
        here(task, tmp_path)
    assert stopped.value.code == 128 + signal.SIGTERM
    monkeypatch.undo()
    (folder,) = (path.parent for path in tmp_path.rglob("last.pt"))
    monkeypatch.setattr(_run.Run, "_open", opened)
    with pytest.raises(SystemExit) as stopped:
        here(task, tmp_path, f"--resume={folder}")
    assert stopped.value.code == 128 + signal.SIGINT
    monkeypatch.undo()
    assert here(task, tmp_path, f"--resume={folder}") == folder
    assert len(metrics(folder)) == 1


def test_spikes_that_are_drawn_go_on_as_in_a_run_that_was_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A process tries the step before its first sequence, and must not draw for that."""
    flags, write = ("--epochs=2", "--method=logistic"), _run.Run.write_checkpoint
    _compiled.cache_clear()
    whole = here("mnist", tmp_path, *flags)

    def saved(self: _run.Run, name: str, content: dict[str, Any]) -> None:
        write(self, name, content)
        self._signal = signal.SIGTERM

    with monkeypatch.context() as patch:
        patch.setattr(_run.Run, "write_checkpoint", saved)
        with pytest.raises(SystemExit):
            here("mnist", tmp_path, *flags)
    (folder,) = {path.parent for path in tmp_path.rglob("last.pt")} - {whole}
    _compiled.cache_clear()
    assert_same_run(here("mnist", tmp_path, f"--resume={folder}", *flags), whole)


@pytest.mark.parametrize("task", ["mnist", "mnist_pl"])
def test_with_more_epochs_the_learning_rate_is_at_once_that_of_the_longer_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
):
    rates: list[float] = []

    def noted(optim: torch.optim.Optimizer, *_: Any) -> None:
        # those with a schedule alone
        rates.extend(group["lr"] for group in optim.param_groups if "initial_lr" in group)

    hook = register_optimizer_step_pre_hook(noted)
    try:
        whole = here(task, tmp_path, "--epochs=4")
        longer, rates[:] = [*rates], []
        folder = here(task, tmp_path, "--epochs=2")
        steps, rates[:] = len(rates), []
        assert capsys.readouterr().err == ""
        here(task, tmp_path, f"--resume={folder}", "--epochs=4")
    finally:
        hook.remove()
    assert rates == longer[steps:]
    changed = f"from step {steps} on the learning rate is that of a run of 4"
    assert capsys.readouterr().err == f"--epochs=4: there were to be 2; {changed}\n"
    here(task, tmp_path, f"--resume={folder}", "--epochs=4")  # which keeps what was said before
    first, comment, *flags = (folder / "flags.txt").read_text().splitlines()
    assert comment == f"# epochs was 2 until step {steps}"
    assert [first, *flags] == (whole / "flags.txt").read_text().splitlines()
    here(task, tmp_path, f"--flagfile={folder / 'flags.txt'}")


@pytest.mark.parametrize("damage", ["no line", "no figures", "no file"])
@pytest.mark.parametrize("task", sorted({*TASKS} - {"cartpole"}))
def test_a_curve_whose_figures_are_lost_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, damage: str
):
    folder = here(task, tmp_path)
    path = folder / "metrics.jsonl"
    if damage == "no file":
        path.unlink()
    else:
        path.write_text("" if damage == "no line" else '{"step": 1}\n')
    with pytest.raises(SystemExit) as stopped:
        here(task, tmp_path, f"--resume={folder}", "--plot")
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path} has no ")
    assert len(said.splitlines()) == 1


def refused(capsys: pytest.CaptureFixture[str], task: str, root: Path, folder: Path, *flags: str) -> str:
    """What a task says of a folder that it does not go on with; nothing in it has changed."""
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SystemExit) as stopped:
        here(task, root, f"--resume={folder}", *flags)
    assert stopped.value.code == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize("task", ["mnist", "mnist_pl"])
def test_what_was_trained_is_not_overwritten_where_last_pt_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
):
    folder = here(task, tmp_path, "--epochs=2")
    (folder / "last.pt").unlink()
    assert "has no last.pt to go on from" in refused(capsys, task, tmp_path, folder)
    (folder / "metrics.jsonl").unlink()
    assert "has no last.pt to go on from" in refused(capsys, task, tmp_path, folder)


def test_data_that_have_changed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Also by their number alone: checkpoints that were written before their data were noted have no more."""
    folder = here("mnist_pl", tmp_path)
    last = checkpoint(folder)
    del last["data"]
    torch.save(last, folder / "last.pt")
    monkeypatch.setattr(mnist_pl, "load", lambda values: generated_images(48))
    said = refused(capsys, "mnist_pl", tmp_path, folder, "--epochs=1")
    assert said == "error: the run was trained with 64 examples an epoch, these are 48\n"
    monkeypatch.undo()
    here("mnist_pl", tmp_path, f"--resume={folder}")


@pytest.mark.parametrize("task", ["cifar10", "mnist", "mnist_pl", "speech_commands"])
@pytest.mark.parametrize("changed", ["y_train", "x_valid", "x_test"])
def test_other_data_of_the_same_size_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], task: str, changed: str
):
    folder, module = here(task, tmp_path), module_of(task)
    load = module.load
    monkeypatch.setattr(
        module,
        "load",
        lambda values: (data := load(values))._replace(**{changed: getattr(data, changed).flip(0)}),
    )
    said = refused(capsys, task, tmp_path, folder, "--epochs=1")
    assert said.startswith(f"error: the run in {folder} was trained with other data than these: give it")
    monkeypatch.undo()
    here(task, tmp_path, f"--resume={folder}", "--data_dir=elsewhere")  # it was found again


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = here("mnist", tmp_path)
    figures = metrics(folder)
    (folder / "last.pt").unlink()  # between best.pt and last.pt of the first epoch
    here("mnist", tmp_path, f"--resume={folder}")
    assert metrics(folder) == figures
    assert capsys.readouterr().err == f"{folder} has no last.pt yet: the run begins anew\n"


def test_the_folder_of_another_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = here("mnist", tmp_path)  # of which mnist_pl has all flags
    for name in ("last.pt", "best.pt", "metrics.jsonl"):
        (folder / name).unlink()
        assert f"{folder} is a run of mnist, not of mnist_pl" in refused(capsys, "mnist_pl", tmp_path, folder)
