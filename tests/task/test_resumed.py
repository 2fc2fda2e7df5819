"""What every task does with a run to go on with that lacks something, or has only its report left."""

import signal
from pathlib import Path
from typing import Any

import pytest

from snnlib.task import _run
from tests.task.command import metrics
from tests.task.test_flags import TASKS, here


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
