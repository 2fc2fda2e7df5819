"""``python -m snnlib.task``: the tasks, what they need, and whether it is there."""

import subprocess
import sys
from pathlib import Path

from snnlib.task.__main__ import state


def listed(cwd: Path) -> dict[str, str]:
    """What is said under the name of each task."""
    done = subprocess.run(
        [sys.executable, "-m", "snnlib.task"], cwd=cwd, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()[2:]
    return {name.split()[0]: needs.strip() for name, needs in zip(lines[::2], lines[1::2], strict=True)}


def test_every_script_is_listed_with_what_it_needs(tmp_path: Path):
    found = listed(tmp_path)
    images, others = {"cifar10", "mnist", "mnist_pl"}, {"cartpole", "correlation", "memory", "speech_commands"}
    assert found.keys() == images | others
    for needs in found.values():
        assert needs.startswith("needs ")
        assert needs.endswith(": installed")
    assert "pytorch_lightning" in found["mnist_pl"]


def test_what_is_missing_is_named():
    assert state(["torch", "no_such_package"]) == "missing: no_such_package; pip install 'snnlib[tasks]'"


def test_the_name_of_a_task_runs_none_and_says_so(tmp_path: Path):
    command = [sys.executable, "-m", "snnlib.task", "mnist", "--dataset=digits"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "to run one: python -m snnlib.task.mnist --dataset=digits" in done.stderr
