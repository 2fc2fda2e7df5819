"""``python -m snnlib.task``: the tasks, what they need, and whether it is there."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import snnlib
from snnlib.task.__main__ import state

TASKS = {"cartpole", "cifar10", "correlation", "memory", "mnist", "mnist_pl", "speech_commands"}


def listed(cwd: Path) -> dict[str, str]:
    """What is said under the name of each task."""
    done = subprocess.run(
        [sys.executable, "-m", "snnlib.task"], cwd=cwd, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()[2:]
    return {name.split()[0]: needs.strip() for name, needs in zip(lines[::2], lines[1::2], strict=True)}


def test_every_script_is_listed_with_what_it_needs(tmp_path: Path):
    found = listed(tmp_path)
    assert found.keys() == TASKS
    for needs in found.values():
        assert needs.startswith("needs ")
        assert needs.endswith(": installed")
    assert "pytorch_lightning" in found["mnist_pl"]


def test_scripts_in_a_zip_file_are_listed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = Path(snnlib.__file__).parent
    packed = shutil.make_archive(str(tmp_path / "lib"), "zip", package.parent, package.name)
    monkeypatch.setenv("PYTHONPATH", packed)
    assert listed(tmp_path).keys() == TASKS


def test_what_is_missing_is_named():
    assert state(["torch", "no_such_package"]) == "missing: no_such_package; pip install 'snnlib[tasks]'"


def test_the_name_of_a_task_runs_none_and_says_so(tmp_path: Path):
    command = [sys.executable, "-m", "snnlib.task", "mnist", "--dataset=digits"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "to run one: python -m snnlib.task.mnist --dataset=digits" in done.stderr


@pytest.mark.parametrize(
    "command", [["snnlib.task"], ["snnlib.benchmark", "--help"], ["snnlib.task.mnist", "--help"]]
)
def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path, command: list[str]):
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", *command]
    done = subprocess.run(line, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["-m", "snnlib.task.mnist", "--fast"], 130),
        (["-m", "snnlib.benchmark"], 130),
        (["-c", "import snnlib"], -signal.SIGINT),
    ],
)
def test_ctrl_c_while_a_command_starts_ends_it_quietly(tmp_path: Path, command: list[str], code: int):
    """It comes while torch is imported; who only imports the library has Python's KeyboardInterrupt."""
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    paths = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    line = [sys.executable, *command]
    done = subprocess.run(
        line,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )
    assert done.returncode == code
    assert ("KeyboardInterrupt" in done.stderr) == (code != 130)
    assert done.stdout == ""
