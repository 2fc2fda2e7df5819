"""Start a task as a person does: a process with a command line, or that command line inside this process."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch

from snnlib.task import _run


def command(task: str, *flags: str) -> list[str]:
    return [sys.executable, "-m", f"snnlib.task.{task}", *flags]


def run(task: str, *flags: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run to the end; standard output and error as text."""
    return subprocess.run(
        command(task, *flags), cwd=cwd, capture_output=True, text=True, timeout=120, **options
    )


def clear(module: ModuleType) -> None:
    """The flags of a task as they were before any command line."""
    module.FLAGS.unparse_flags()
    for name in module.FLAGS:
        module.FLAGS[name].unparse()


def inside(
    module: ModuleType, task: str, *flags: str, cwd: Path, said: io.StringIO | None = None
) -> dict[str, Any]:
    """Run a task's script without the seconds that a new process takes; the figures of its result."""
    clear(module)
    said = said or io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    prepare = getattr(module, "prepare", None) or module.defaults
    with chdir(cwd), redirect_stdout(said), mock.patch.object(sys, "argv", [task, *flags]):
        try:
            _run.launch(module.FLAGS, task, module.train, "usage", prepare=prepare)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    figures = json.loads(said.getvalue().strip().splitlines()[-1].removeprefix("result: "))
    return {**figures, "run": cwd / figures["run"]}


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The figures of the last line of a run that ended well."""
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("result: ")
    return json.loads(last.removeprefix("result: "))


def stop_when(
    task: str, *flags: str, cwd: Path, number: signal.Signals, ready: Callable[[], bool]
) -> tuple[int, str]:
    """Start a task, send it a signal as soon as ``ready()`` holds; its exit code and standard error."""
    process = subprocess.Popen(
        command(task, *flags), cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not ready():
        assert process.poll() is None, f"ended before it was stopped: {process.communicate()[1]}"
        assert time.monotonic() < deadline, "never ready to be stopped"
        time.sleep(0.002)
    os.kill(process.pid, number)
    return process.wait(60), process.communicate()[1]


def only_run(root: Path) -> Path | None:
    """The one run folder below ``root``, once it is there."""
    found = [path.parent for path in root.glob("*/*/flags.txt")]
    return found[0] if len(found) == 1 else None


def begun(root: Path) -> bool:
    """Whether the one run below ``root`` has written a line of metrics."""
    folder = only_run(root)
    return folder is not None and (folder / "metrics.jsonl").exists() and bool(metrics(folder))


def a_while_after(first: Callable[[], bool], longest: float) -> Callable[[], bool]:
    """Holds from a random moment on, at most ``longest`` seconds after ``first()`` did."""
    wait = random.SystemRandom().uniform(0.0, longest)
    print(f"a wait of {wait:.3f} s")
    seen: list[float] = []

    def ready() -> bool:
        if not seen and first():
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() > seen[0] + wait

    return ready


def checkpoint(folder: Path | str, name: str = "last.pt") -> dict[str, Any]:
    return torch.load(Path(folder) / name, weights_only=True)


def same(first: Any, second: Any) -> bool:
    """Whether two checkpoints are equal bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def metrics(folder: Path | str) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock says."""
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.endswith("seconds")} for line in lines]


def assert_same_run(folder: Path | str, other: Path | str) -> None:
    """Both checkpoints and all figures of two runs are equal, but for Lightning's counters of resumes."""
    for name in ("last.pt", "best.pt"):
        first, second = checkpoint(folder, name), checkpoint(other, name)
        assert first.keys() == second.keys()
        assert [part for part in first if part != "loops" and not same(first[part], second[part])] == []
    assert metrics(folder) == metrics(other)
