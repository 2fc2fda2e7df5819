"""A run's folder that fills, that turns read-only, that two processes want; and numbers that end a run."""

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.task.command import Started, assert_same_run, checkpoint, command, metrics, only_run, result, run

DIGITS = ("--dataset=digits", "--channels=4,8", "--hidden_size=16", "--seq_length=3", "--noplot", "--epochs=3")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    return root / result(run("mnist", *DIGITS, cwd=root))["run"]


def assert_goes_on(folder: Path, whole: Path) -> None:
    result(run("mnist", f"--resume={folder}", cwd=folder.parents[2]))
    assert_same_run(folder, whole)


def on_a_full_disk(cwd: Path, kilobytes: int, *flags: str) -> str:
    """Run mnist on a file system of its own in memory, which is too small; what it says on standard error."""
    (cwd / "runs").mkdir()
    script = (  # what is in the file system is gone with the last process in it
        f'mount -t tmpfs -o size={kilobytes}k none runs && {{ "$@"; code=$?; cp -r runs kept; exit $code; }}'
    )
    line = ["unshare", "-Urm", "sh", "-c", script, "sh", *command("mnist", *flags)]
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=120)
    if not (cwd / "kept").exists():
        pytest.skip(f"this machine lets nobody mount a file system: {done.stderr}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left on device")
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize("kilobytes", [4, 8])
def test_a_disk_with_no_room_for_events_or_figures_ends_the_run(tmp_path: Path, kilobytes: int):
    on_a_full_disk(tmp_path, kilobytes, "--fast", "--noplot", "--epochs=1")


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(tmp_path: Path, whole: Path):
    """There is room for two checkpoints but not for a third beside them."""
    kilobytes = int(2.7 * (whole / "last.pt").stat().st_size) // 1024
    said = on_a_full_disk(tmp_path, kilobytes, *DIGITS, "--save_every=1")
    assert "the last checkpoint is in runs/mnist/" in said
    folder = only_run(tmp_path / "kept")
    assert folder is not None
    assert not list(folder.glob("*.new"))
    assert 0 < checkpoint(folder)["step"] < checkpoint(whole)["step"]
    assert_goes_on(folder, whole)


def bound() -> None:
    """Root may write everywhere, unless it gave that right away."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, rights = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capset(header, rights) == 0, os.strerror(ctypes.get_errno())


def test_a_folder_that_turns_read_only_ends_the_run(tmp_path: Path, whole: Path):
    started = Started("mnist", (*DIGITS, "--save_every=1"), tmp_path, before=bound)
    while not list(tmp_path.rglob("last.pt")):
        assert started.process.is_alive(), started.end(1)
    folder = only_run(tmp_path / "runs")
    assert folder is not None
    folder.chmod(0o555)
    code, _, said = started.end(60)
    folder.chmod(0o755)
    assert code == 1
    assert said.startswith("error: Permission denied: ")
    assert f"the last checkpoint is in {folder.relative_to(tmp_path)}" in said
    assert len(said.strip().splitlines()) == 1
    assert_goes_on(folder, whole)


def test_runs_at_once_have_a_folder_each(tmp_path: Path):
    flags = ("--fast", "--noplot", "--epochs=1")
    started = [Started("mnist", flags, tmp_path) for _ in range(4)]
    ends = [each.end(60) for each in started]
    assert [code for code, _, _ in ends] == [0] * 4, ends
    folders = sorted((tmp_path / "runs" / "mnist").iterdir())
    assert len(folders) == 4
    for folder in folders:
        assert_same_run(folder, folders[0])


def test_of_two_that_resume_a_run_the_second_is_told(tmp_path: Path, whole: Path):
    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    started = [Started("mnist", (f"--resume={folder}", "--epochs=9"), tmp_path) for _ in range(3)]
    ends = sorted(each.end(60) for each in started)
    assert [code for code, _, _ in ends] == [0, 1, 1]
    for _, _, said in ends[1:]:
        assert said == f"error: another process works on the run in {folder}\n"
    assert [line["epoch"] for line in metrics(folder)] == list(range(1, 10))


@pytest.mark.parametrize("task", ["mnist", "cifar10", "cartpole"])
def test_numbers_that_are_not_finite_end_the_run(tmp_path: Path, task: str):
    """A learning rate under which weights overflow."""
    done = run(task, "--fast", "--noplot", "--learning_rate=1e30", "--optimizer=sgd", cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert re.match(r"error: .*(nan|inf).* in (epoch \d+, batch \d+|update \d+): learning rate ", done.stderr)
    named = re.search(r"the largest gradient [^ ]+, of ([\w.]+)", done.stderr)
    assert named is not None
    folder = only_run(tmp_path / "runs")
    assert folder is not None
    if (folder / "last.pt").exists():
        last = checkpoint(folder)
        assert named[1] in (last["net"] if "net" in last else last["state_dict"])
        assert done.stderr.endswith(f"; the last checkpoint is in {os.path.relpath(folder, tmp_path)}\n")
        assert checkpoint(folder)["step"] == metrics(folder)[-1]["step"]
