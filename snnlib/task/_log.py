"""The figures of a run: metrics.jsonl, TensorBoard, pictures."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from snnlib._words import first_line
from snnlib.task._error import RunError
from snnlib.task._files import write

__all__ = ["Log"]


class Log:
    """``metrics.jsonl`` and TensorBoard's events in a folder; both go on behind ``step``.

    Parameters:
        folder: of the run.
        step: of the last line that a checkpoint knows of. What came after it will be written again.

    Attributes:
        step: of the last line.

    Raises:
        RunError: there is a ``metrics.jsonl`` that is none.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step
        self._path = folder / "metrics.jsonl"
        self._lines = self._kept_lines()
        self._metrics: Any = None
        self._events: Any = None

    def _kept_lines(self) -> list[str]:
        """The whole lines of metrics.jsonl but for those after the checkpoint, which will be written again."""
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        kept = []
        for number, line in enumerate(lines, 1):
            try:
                if line.endswith(b"\n") and _figures(line)["step"] <= self.step:
                    kept.append(line.decode())
            except (RecursionError, ValueError) as error:
                told = f"{self._path}, line {number}, is no line of figures: {first_line(error)}"
                raise RunError(told) from error
        return kept

    def open(self) -> None:
        """Be ready to write; from here on what came after ``step`` is gone."""
        if self._path.exists():
            write(self._path, "".join(self._lines).encode())
        self._metrics = self._path.open("a")

    def write(self, step: int, **figures: float) -> None:
        """Append a line to metrics.jsonl, give the same figures to TensorBoard, and print them."""
        events = self._tensorboard()
        if self._metrics is None:
            self.open()
        self._lines.append(json.dumps({"step": step, **figures}) + "\n")
        self._metrics.write(self._lines[-1])
        self._metrics.flush()
        self.step = step
        for name, value in figures.items():
            events.add_scalar(name, value, step)
        events.flush()
        print("  ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)

    def figure(self, name: str, figure: Any) -> None:
        """Write a figure of matplotlib as ``<name>.png``, and give the same picture to TensorBoard."""
        from PIL import Image

        png = io.BytesIO()
        figure.savefig(png, format="png")
        write(self.folder / f"{name}.png", png.getvalue())
        # at the step from which a resumed run purges, so that one that draws it anew does not show it twice
        picture = np.asarray(Image.open(png))
        events = self._tensorboard()
        events.add_image(name, picture, self.step + 1, dataformats="HWC")
        events.flush()

    def _tensorboard(self) -> Any:
        if self._events is None:
            # a second or more to import: not before it is needed
            from torch.utils.tensorboard import SummaryWriter

            # what an earlier process wrote after the checkpoint will be written again
            self._events = SummaryWriter(str(self.folder), purge_step=self.step + 1)
        return self._events

    def lines(self) -> list[dict[str, float]]:
        """What :meth:`write` wrote so far."""
        return [json.loads(line) for line in self._lines]

    def close(self) -> None:
        for held in (self._metrics, self._events):
            if held is not None:
                held.close()


def _figures(line: bytes) -> dict[str, float]:
    """A line of metrics.jsonl: numbers by their names, one of them the step."""
    found = json.loads(line)
    if not isinstance(found, dict) or "step" not in found:
        raise ValueError("it has no step")
    for name, value in found.items():
        if not isinstance(value, int | float):
            raise ValueError(f"{name} is {str(value)[:40]!r}")
    return found
