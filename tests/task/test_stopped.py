"""Every task, stopped at a random moment and gone on with, comes to what a run comes to that nothing stopped.

``--stops`` says how often each is stopped in each way: once here, far oftener for ``docs/reliability.md``.
"""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.task.command import Started, assert_same_run, only_run, result, run

FAST = ("--fast", "--noplot")
DIGITS = ("--dataset=digits", "--channels=4,8", "--hidden_size=16", "--seq_length=3", "--noplot")
TASKS = {
    "cartpole": (*FAST, "--seq_length=8", "--episodes=60", "--hidden_size=16", "--eval_every=3"),
    "cifar10": (*FAST, "--epochs=10", "--batch_size=8", "--ema_decay=0.9", "--save_every=1"),
    "correlation": (
        *(*FAST, "--epochs=4", "--train_episodes=48", "--batch_size=8", "--seq_length=50"),
        *("--channels=20", "--subset=6", "--hidden_size=4", "--initial_weight=0.8", "--test_episodes=8"),
        "--save_every=3",
    ),
    "memory": (
        *(*FAST, "--epochs=8", "--batches=20", "--batch_size=4", "--hidden_size=8", "--save_every=3"),
        *(
            "--population_size=2",
            "--period=0.02",
            "--seq_periods=5",
            "--expected_delay=2",
            "--precision=64-true",
        ),
    ),
    "mnist": (*DIGITS, "--epochs=6", "--save_every=5"),
    "mnist_pl": (*DIGITS, "--epochs=5", "--save_every=5"),
    "speech_commands": (*FAST, "--epochs=10", "--batch_size=8", "--save_every=2"),
}
ATTEMPTS = 8
"""A moment that comes after the end of a run, because others keep this machine busy less, is drawn again."""


class Whole(NamedTuple):
    """A run that nothing stopped."""

    folder: Path
    seconds: float
    """From the first file in its folder to its end."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("attempt", range(metafunc.config.getoption("--stops")))


@pytest.fixture(scope="module", params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def whole(task: str, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    root = tmp_path_factory.mktemp(task)
    started = Started(task, TASKS[task], root)
    while only_run(root / "runs") is None and started.process.is_alive():
        time.sleep(0.002)
    begin = time.monotonic()
    started.process.join()
    seconds = time.monotonic() - begin
    code, _, said = started.end(1)
    assert code == 0, said
    folder = only_run(root / "runs")
    assert folder is not None
    return Whole(folder, seconds)


def stopped(
    task: str, number: signal.Signals, cwd: Path, moment: Callable[[Path], bool]
) -> tuple[Path, int, str]:
    """Start a task and send it a signal when ``moment`` holds for its folder.

    Returns:
        The folder, the exit code, standard error.
    """
    started = Started(task, TASKS[task], cwd)
    folder = None
    while started.process.is_alive():
        folder = folder or only_run(cwd / "runs")
        if folder is not None and moment(folder):
            started.send(number)
            break
        time.sleep(0.0005)
    code, _, said = started.end(60)
    folder = only_run(cwd / "runs")
    assert folder is not None, said
    return folder, code, said


def at_random(seconds: float) -> Callable[[Path], bool]:
    """Holds at a moment of a run that takes so long."""
    wait = random.SystemRandom().uniform(0.0, seconds)
    print(f"after {wait:.3f} s")
    first: list[float] = []

    def holds(folder: Path) -> bool:
        first.append(time.monotonic())
        return first[-1] >= first[0] + wait

    return holds


def in_a_write() -> Callable[[Path], bool]:
    """Holds while a file is being written, for one of the first few that are seen."""
    left = random.SystemRandom().randrange(1, 20)
    print(f"in write {left}")
    seen: list[bool] = []

    def holds(folder: Path) -> bool:
        there = any(folder.glob("*.new"))
        if there and not (seen and seen[-1]):
            seen.append(True)
        elif not there and seen and seen[-1]:
            seen.append(False)
        return there and sum(seen) >= left

    return holds


def assert_goes_on(task: str, folder: Path, whole: Whole) -> None:
    figures = result(run(task, f"--resume={folder}", cwd=folder.parents[2]))
    assert Path(figures["run"]) == folder
    assert_same_run(folder, whole.folder)
    assert {path.name for path in folder.iterdir() if path.suffix == ".new"} == set()


@pytest.mark.parametrize("moment", ["at random", "in a write"])
def test_killed_it_goes_on_to_the_same_run(task: str, whole: Whole, moment: str, attempt: int, tmp_path: Path):
    for again in range(ATTEMPTS):
        when = at_random(whole.seconds / (1 + again)) if moment == "at random" else in_a_write()
        folder, code, said = stopped(task, signal.SIGKILL, tmp_path / str(again), when)
        if code != 0:
            break
    assert code == -signal.SIGKILL, said
    assert_goes_on(task, folder, whole)


def test_told_to_stop_it_saves_and_goes_on(task: str, whole: Whole, attempt: int, tmp_path: Path):
    """One that is told while it tests comes to its end and exits with 0. The two signals take turns."""
    number = (signal.SIGINT, signal.SIGTERM)[(list(TASKS).index(task) + attempt) % 2]
    for again in range(ATTEMPTS):
        when = at_random(0.8 * whole.seconds / (1 + again))
        folder, code, said = stopped(task, number, tmp_path / str(again), when)
        if code != 0:
            break
    assert code == 128 + number, said
    assert said.splitlines()[-1] == f"interrupted; go on with --resume={folder.relative_to(folder.parents[2])}"
    assert "Traceback" not in said
    assert (folder / "last.pt").exists()
    assert_goes_on(task, folder, whole)
