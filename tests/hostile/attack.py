"""An attack: files of strangers one after another, each of which must end in one sentence.

Nothing in them runs, and nothing is changed or left over.
"""

import warnings
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

from tests.hostile.damage import TRIPWIRE

__all__ = ["Attack", "told"]


def told(read: Callable[[], Any], kind: type[Exception]) -> str | None:
    """What a reader says of its input in one line, or None where it takes it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except kind as error:
        said = str(error)
    else:
        return None
    assert len(said.strip().splitlines()) == 1, said
    return said


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Attack:
    """Cases one after another in a folder; all that went wrong with one of them is an entry of ``wrong``."""

    def __init__(self, root: Path) -> None:
        self.root, self.count, self.wrong = root, 0, list[str]()

    def case(self, name: str, read: Callable[[], str | None], may_pass: bool = False, kept: str = "*") -> None:
        before = files_in(self.root)
        self.count += 1
        try:
            with chdir(self.root):
                said = read()
            if said is None and not may_pass:
                self.wrong.append(f"{name}: was taken")
        except Exception as error:
            self.wrong.append(f"{name}: {type(error).__name__}: {error!s:.200}")
            said = None
        if (self.root / TRIPWIRE).exists():
            self.wrong.append(f"{name}: code in it ran")
            (self.root / TRIPWIRE).unlink()
        after = files_in(self.root)
        changed = [path for path in before | after if before.get(path) != after.get(path)]
        if changed and not (said is None and may_pass):
            self.wrong.append(f"{name}: changed {changed}")

    def end(self, least: int) -> None:
        assert not self.wrong, "\n".join(self.wrong)
        assert self.count >= least
