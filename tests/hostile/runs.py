"""Runs of tasks that files of strangers are put into."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.task.command import inside
from tests.task.test_flags import module_of

__all__ = ["RUNS", "ended", "resumed"]


TINY = ("--fast", "--noplot", "--epochs=1", "--seq_length=2", "--channels=2", "--hidden_size=4")
FEW = ("--fast", "--noplot", "--epochs=1", "--patience=3", "--batch_size=4")
RUNS = {
    "mnist": (*TINY, "--save_every=1"),
    "mnist_pl": TINY,
    "cartpole": ("--fast", "--noplot", "--episodes=4", "--seq_length=2", "--hidden_size=4"),
    "cifar10": (*FEW, "--seq_length=1", "--width=2", "--ema_decay=0.9", "--limit_train_batches=2"),
    "correlation": (
        *("--fast", "--noplot", "--epochs=1", "--train_episodes=2", "--seq_length=30", "--test_episodes=4"),
        *("--channels=8", "--subset=2", "--hidden_size=2"),
    ),
    "memory": (
        *(*FEW, "--batches=2", "--hidden_size=4", "--population_size=2", "--period=0.005"),
        *("--seq_periods=4", "--expected_delay=2"),
    ),
    "speech_commands": (*FEW, "--hidden_size=4", "--layers=1", "--limit_train_batches=2"),
}
"""Short runs of all tasks: cartpole, correlation and mnist without Lightning, the others with it."""
LONGER = {"cartpole": "--episodes=8"}


def ended(task: str, root: Path, capsys: pytest.CaptureFixture[str], *flags: str, code: int = 1) -> str | None:
    """What a task says in its one line on standard error, or None if it runs to its end."""
    capsys.readouterr()
    try:
        inside(module_of(task), task, *flags, cwd=root)
    except SystemExit as stopped:
        found = stopped.code
    else:
        return None
    said = capsys.readouterr().err
    assert found == code, said
    assert said.startswith("error: "), said
    assert len(said.strip().splitlines()) == 1, said
    assert "another process" not in said
    return said


def resumed(
    task: str, whole: Path, root: Path, capsys: pytest.CaptureFixture[str], **files: bytes
) -> Callable[[], str | None]:
    """Resume a copy of a run, ``run``, with other files in it; what the task says of it."""
    folder = root / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("flags.txt", "last.pt", "best.pt", "metrics.jsonl"):
        shutil.copyfile(whole / name, folder / name)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)

    def read() -> str | None:
        flags = (folder / "flags.txt").read_bytes()
        try:
            said = ended(task, root, capsys, f"--resume={folder}", LONGER.get(task, "--epochs=2"))
            assert said is None or len(said) < 2000
            return said
        finally:
            (folder / "flags.txt").write_bytes(flags)  # may have been written anew, with --epochs=2

    return read
