"""Start a task as a person does: a process with a command line, or that command line inside this process."""

import io
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import chdir, redirect_stdout
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any
from unittest import mock

import torch

from snnlib.task._launch import launch
from tests.copies import Copied


def command(task: str, *flags: str) -> list[str]:
    return [sys.executable, "-m", f"snnlib.task.{task}", *flags]


def run(
    task: str,
    *flags: str,
    cwd: Path,
    fresh: bool = False,
    environment: Mapping[str, str] = MappingProxyType({}),
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Run to the end; standard output and error as text.

    Parameters:
        fresh: whether in a new process, as always with ``options``, which are those of ``subprocess.run``.
        environment: variables beside those of this process, for a copy.
    """
    line = command(task, *flags)
    if fresh or options:
        if fresh:
            options["env"] = _watch(cwd)
        return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=120, **options)
    code, *said = Started(task, flags, cwd, environment=environment).end(120)
    return subprocess.CompletedProcess(line, code, *said)


_HOOK = """
import os, sys

log = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}


def note(event, given):
    if event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or event in CHANGES:
        if not isinstance(given[0], int):
            os.write(log, os.path.realpath(os.fsdecode(given[0])).encode() + b"\\n")


sys.addaudithook(note)
"""


def _watched(cwd: Path) -> Path:
    """Where it is noted what fresh processes in ``cwd`` change."""
    return cwd.with_name(f"{cwd.name}.watched")


def _watch(cwd: Path) -> dict[str, str]:
    """An environment in which Python notes every file and folder that a process changes."""
    place = _watched(cwd)
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(_HOOK)
    paths = f"{place}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    # torch notes in its environment, which is inherited here, where its temporary files are
    environment = {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"}
    return {**environment, "PYTHONPATH": paths, "WATCHED": str(place / "log"), "TMPDIR": str(place)}


def assert_wrote(folder: Path, cwd: Path, *names: str) -> None:
    """The folder of a fresh run in ``cwd`` has these files beside what all have, and nothing else was changed:
    but for what is temporary, what is compiled, and what matplotlib notes of fonts.
    """
    found = {path.name for path in folder.iterdir()}
    events = {name for name in found if name.startswith("events.out.tfevents.")}
    assert len(events) == 1
    assert found - events == {"flags.txt", "metrics.jsonl", "last.pt", "best.pt", *names}
    changed = {Path(line) for line in (_watched(cwd) / "log").read_text().splitlines()}
    assert folder / "metrics.jsonl" in changed
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    fonts = cache / "matplotlib", Path.home() / ".config" / "matplotlib"
    places = folder, _watched(cwd), cache / "snnlib", *fonts, Path("/dev"), Path("/proc")
    assert [
        path
        for path in sorted(changed - {cache, *folder.parents})
        if not any(path.is_relative_to(place) for place in places) and "__pycache__" not in path.parts
    ] == []


class Started(Copied):
    """A task in a process that was copied.

    Parameters:
        before: is called first.
    """

    def __init__(
        self,
        task: str,
        flags: tuple[str, ...],
        cwd: Path,
        before: Callable[[], None] | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(_task, task, flags, before, cwd=cwd, environment=environment)


def _task(task: str, flags: tuple[str, ...], before: Callable[[], None] | None) -> None:
    if before:
        before()
    sys.argv = [task, *flags]
    runpy.run_module(f"snnlib.task.{task}", run_name="__main__", alter_sys=True)


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
    with chdir(cwd), redirect_stdout(said), mock.patch.object(sys, "argv", [task, *flags]):
        try:
            launch(module.FLAGS, task, module.train, "usage", prepare=module.prepare)
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


def only_run(root: Path) -> Path | None:
    """The one run folder below ``root``, once it is there."""
    found = [path.parent for path in root.glob("*/*/flags.txt")]
    return found[0] if len(found) == 1 else None


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


def shown(folder: Path | str) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: steps and values, without what the clock says."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    names = [name for name in events.Tags()["scalars"] if not name.endswith("seconds")]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}


def assert_same_run(folder: Path | str, other: Path | str) -> None:
    """Two runs have the same checkpoints, figures and curves, but for Lightning's counters of resumes."""
    for name in ("last.pt", "best.pt"):
        first, second = checkpoint(folder, name), checkpoint(other, name)
        assert first.keys() == second.keys()
        assert [part for part in first if part != "loops" and not same(first[part], second[part])] == []
    assert metrics(folder) == metrics(other)
    curves = shown(folder)
    assert curves == shown(other)
    for name, curve in curves.items():
        assert [step for step, _ in curve] == [line["step"] for line in metrics(folder) if name in line]
