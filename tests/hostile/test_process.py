"""Files from strangers, as a process of its own meets them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.damage import TRIPWIRE, trap
from tests.task.command import run


@pytest.mark.parametrize("attacked", ["last.pt", "metrics.jsonl", "flags.txt", "npz"])
def test_as_a_process(made: Callable[[str], Path], tmp_path: Path, attacked: str):
    folder = Path(shutil.copytree(made("mnist"), tmp_path / "run"))
    if attacked == "npz":
        flags = ("--nofast", "--dataset=images.npz")
        (tmp_path / "images.npz").write_bytes(trap())
    else:
        flags = ("--resume=run", "--epochs=2")
        (folder / attacked).write_bytes(trap())
    before = {name: (folder / name).read_bytes() for name in ("last.pt", "best.pt", "metrics.jsonl")}
    done = run("mnist", *flags, cwd=tmp_path)
    assert done.returncode == (2 if attacked == "flags.txt" else 1)
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert before == {name: (folder / name).read_bytes() for name in before}
    assert not list(tmp_path.rglob(TRIPWIRE))
