"""Files that are whole or not there, and folders that no other run has."""

import os
import time
from pathlib import Path

from snnlib.task._error import RunError

__all__ = ["HALF", "new_folder", "write"]

HALF = ".new"
"""Ends the name of a file that is not yet whole."""


def new_folder(root: Path) -> Path:
    """Make a folder with the time in its name, which no other run has."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in range(1000):
        folder = root / (stamp if attempt == 0 else f"{stamp}_{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise RunError(f"no free name for a run in {root}")


def write(path: Path, content: bytes) -> None:
    """Replace a file as a whole or leave it as it was."""
    fresh = path.with_name(path.name + HALF)
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
