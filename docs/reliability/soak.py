"""Whether a task that trains for long keeps its memory, its threads and its open files.

    python -m docs.reliability.soak --task=mnist --minutes=60 -- --dataset=digits --epochs=1000000

starts the task with the flags after ``--``, looks at its process once a second, stops it as Ctrl-C does, and
prints a line of figures. What was before a tenth of the time had passed is warm-up.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Look(NamedTuple):
    """A process at one moment."""

    step: int
    megabytes: float
    """Resident."""
    threads: int
    files: int


def look(process: subprocess.Popen[bytes], root: Path) -> Look:
    own = Path(f"/proc/{process.pid}")
    pages = int((own / "statm").read_text().split()[1])
    metrics = next(iter(root.glob("*/*/metrics.jsonl")), None)
    lines = metrics.read_text().splitlines() if metrics else []
    step = json.loads(lines[-1])["step"] if lines else 0
    counts = (len(os.listdir(own / name)) for name in ("task", "fd"))
    return Look(step, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, *counts)


def watch(task: str, flags: list[str], minutes: float) -> list[Look]:
    """Looks at a task while it trains.

    Raises:
        RuntimeError: it ended by itself.
    """
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", f"snnlib.task.{task}", f"--output_dir={folder}", *flags]
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
        looks: list[Look] = []
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            time.sleep(1.0)
            if process.poll() is not None:
                raise RuntimeError(f"{task} ended with exit code {process.returncode}")
            looks.append(look(process, Path(folder)))
        process.send_signal(signal.SIGINT)
        process.wait()
    return looks


def report(looks: list[Look]) -> str:
    """Slopes and ranges after the warm-up."""
    warm = looks[len(looks) // 10 :]
    steps = np.array([one.step for one in warm]) / 1000
    slope = np.polyfit(steps, [one.megabytes for one in warm], 1)[0]
    ranges = {
        name: f"{min(values):.0f} to {max(values):.0f}"
        for name, values in (
            ("MB", [one.megabytes for one in warm]),
            ("threads", [one.threads for one in warm]),
            ("open files", [one.files for one in warm]),
        )
    }
    said = ", ".join(f"{range} {name}" for name, range in ranges.items())
    return f"{steps[-1] - steps[0]:.1f} thousand steps: {slope:+.4f} MB in a thousand steps; {said}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="mnist")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("flags", nargs="*")
    given = parser.parse_args()
    print(f"{given.task}: {report(watch(given.task, given.flags, given.minutes))}")


if __name__ == "__main__":
    main()
