"""Checkpoints and lines of figures from strangers: no task goes on with them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile import checkpoints
from tests.hostile.attack import Attack
from tests.hostile.damage import damaged
from tests.hostile.runs import RUNS, ended, resumed
from tests.task.command import inside
from tests.task.test_flags import module_of


@pytest.mark.parametrize(
    ("task", "every"),
    [
        *(("mnist", 2), ("mnist_pl", 8), ("cartpole", 8), ("correlation", 4)),
        *(("cifar10", 16), ("memory", 8), ("speech_commands", 16)),
    ],
)
def test_checkpoints(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, every: int
):
    """Not every one of every task: they share the code."""
    attack, whole = Attack(tmp_path), made(task)
    last = (whole / "last.pt").read_bytes()
    cases = [*checkpoints.checkpoints(last), *checkpoints.lies(last)]
    for name, content in cases[::every]:
        attack.case(name, resumed(task, whole, tmp_path, capsys, last__pt=checkpoints.packed(content)))
    attack.end(len(cases) // every)


@pytest.mark.parametrize("task", ["mnist", "memory"])
def test_checkpoints_with_bits_turned(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
):
    """Some bits mean nothing; and there is no checksum of a weight that is wrong."""
    attack, whole = Attack(tmp_path), made(task)
    for name, content in damaged((whole / "last.pt").read_bytes(), 7, cuts=0, flips=25):
        attack.case(name, resumed(task, whole, tmp_path, capsys, last__pt=content), may_pass=True)
    attack.end(25)


@pytest.mark.parametrize(
    ("task", "every"), [("mnist", 2), ("mnist_pl", 4), ("cifar10", 8), ("memory", 8), ("speech_commands", 8)]
)
def test_the_best_checkpoint_of_a_run_that_is_finished(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, every: int
):
    attack, whole, net = Attack(tmp_path), made(task), "net." if task == "mnist" else "state_dict."
    best = (whole / "best.pt").read_bytes()
    read = ("cut", "pickle", "code", "a_", "task", net, "at.epoch", "figures_")
    cases = [*checkpoints.checkpoints(best), *checkpoints.lies(best)]
    cases = [(name, content) for name, content in cases if name.startswith(read)]
    for name, content in cases[::every]:
        resumed(task, whole, tmp_path, capsys, best__pt=checkpoints.packed(content))
        attack.case(name, lambda: ended(task, tmp_path, capsys, "--resume=run"))
    attack.end(len(cases) // every)


@pytest.mark.parametrize("task", RUNS)
def test_checkpoints_of_others(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
):
    attack = Attack(tmp_path)
    for other in RUNS.keys() - {task}:
        last = (made(other) / "last.pt").read_bytes()
        attack.case(f"{other}_as_{task}", resumed(task, made(task), tmp_path, capsys, last__pt=last))
    wider = ("--width=3" if task == "cifar10" else "--hidden_size=6", f"--output_dir={tmp_path / 'wider'}")
    folder = inside(module_of(task), task, *RUNS[task], *wider, cwd=tmp_path)["run"]
    last = (folder / "last.pt").read_bytes()
    attack.case(f"wider_{task}", resumed(task, made(task), tmp_path, capsys, last__pt=last))
    attack.end(7)


def test_lines_of_figures(made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    attack, whole = Attack(tmp_path), made("mnist")
    for name, content in checkpoints.metrics_files((whole / "metrics.jsonl").read_bytes()):
        attack.case(name, resumed("mnist", whole, tmp_path, capsys, metrics__jsonl=content))
    attack.end(16)
