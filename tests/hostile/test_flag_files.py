"""Files of flags from strangers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import flag_files
from tests.hostile.attack import Attack
from tests.hostile.damage import TRIPWIRE
from tests.hostile.runs import ended, resumed


def test_files_of_flags(made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    attack, whole = Attack(tmp_path), made("mnist")
    for name, content in flag_files.flag_files():
        code = 1 if name == "a_null" else 2
        (tmp_path / "flags.txt").write_bytes(content)
        given = ("--fast", "--noplot", "--flagfile=flags.txt")
        attack.case(name, lambda given=given, code=code: ended("mnist", tmp_path, capsys, *given, code=code))
        (tmp_path / "flags.txt").unlink()
        resumed("mnist", whole, tmp_path, capsys, flags__txt=content.replace(b"=flags", b"=run/flags"))
        attack.case(
            f"{name}_of_a_run",
            lambda code=code: ended("mnist", tmp_path, capsys, "--resume=run", code=code),
        )
    attack.end(40)


def test_a_file_of_flags_imports_nothing(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
):
    """An environment's name may have a module before it, which may lie beside the file."""
    attack, whole = Attack(tmp_path), made("cartpole")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger.py").write_text(f"open({TRIPWIRE!r}, 'w')")
    named = b"--environment=stranger:Cart-v0\n"
    (tmp_path / "flags.txt").write_bytes(named)
    attack.case("flagfile", lambda: ended("cartpole", tmp_path, capsys, "--flagfile=flags.txt", code=2))
    text = (whole / "flags.txt").read_bytes()
    resumed("cartpole", whole, tmp_path, capsys, flags__txt=text + named)
    attack.case("resume", lambda: ended("cartpole", tmp_path, capsys, "--resume=run", code=2))
    attack.end(2)
