"""A run of a task: its folder, its checkpoints, its metrics, and how it stops."""

import fcntl
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from absl import flags

from snnlib._console import is_task
from snnlib.task import _train
from snnlib.task._checkpoint import Checkpoints
from snnlib.task._digest import digest
from snnlib.task._error import Interrupted, RunError
from snnlib.task._files import HALF, new_folder, write
from snnlib.task._form import check_form
from snnlib.task._log import Log
from snnlib.task._processes import is_chief
from snnlib.task._random import random_state

__all__ = ["Run"]

_TASK = "# task: "
"""Begins ``flags.txt``, a comment to absl; the name of the task follows."""
_EPOCHS = "# epochs was {} until step {}"
"""Another comment there: a resume changed the length of the schedule."""

_STOPS = (signal.SIGINT, signal.SIGTERM)

_Gradients = dict[str, torch.Tensor]
"""Of the last step, by the names of the parameters."""


class Run(Checkpoints):
    """The folder of a run and what is written to it.

    ``flags.txt`` (usable as ``--flagfile``), ``metrics.jsonl``, TensorBoard events, ``last.pt``,
    ``best.pt`` and figures. Checkpoints are written beside their name and then renamed, so that a name
    always holds a whole file.

    Attributes:
        flags: the task's flags.
        folder: where everything is written.
        chief: whether this process is the one that writes; of several that train one net the others do not.
        resumed: the checkpoint to go on from, or None.
    """

    def __init__(self, values: flags.FlagValues, task: str) -> None:
        self.flags = values
        self.resumed: dict[str, Any] | None = None
        self._at: dict[str, Any] = {}
        self._parts: dict[str, Any] = {}
        self._watched: tuple[torch.optim.Optimizer, Callable[[], str], Callable[[], _Gradients]] | None = None
        self._signal = 0
        self._data: dict[str, str] = {}
        self._earlier: list[str] = []
        self._told = ""
        self._lock: int | None = None
        self._log: Log | None = None
        self._handlers = {number: signal.getsignal(number) for number in _STOPS}
        self.listen()
        self.chief = is_chief()
        root = Path(values.output_dir) / task
        folder = Path(values.resume) if values.resume else new_folder(root) if self.chief else root
        super().__init__(folder, task)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        """Lock the folder, read what is resumed, and only then write to it."""
        if self.chief:
            self._claim()
        if self.flags.resume:
            self._take_up()
        if self.chief:
            if self.resumed:
                self._compare_epochs(self.resumed["step"])
            # the line of a checkpoint's own step may have come after it
            self._log = Log(self.folder, self.resumed["logged"] if self.resumed else 0)
            self.write_flags()
            if not self.resumed:  # else with the first line: what is resumed may not fit
                self._log.open()

    def _take_up(self) -> None:
        """Read ``last.pt``. A run that was killed in its first epoch, before it wrote one, begins anew."""
        first = (self.folder / "flags.txt").read_text(errors="replace").partition("\n")[0]
        if first.startswith(_TASK) and first != _TASK + self.task:
            raise RunError(f"{self.folder} is a run of {first.removeprefix(_TASK)}, not of {self.task}")
        if (self.folder / "last.pt").exists():
            self.resumed = self.read_checkpoint("last.pt")
            return
        metrics, best = self.folder / "metrics.jsonl", (self.folder / "best.pt").exists()
        epochs = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        if epochs > 1 or best > epochs:
            raise RunError(f"{self.folder} has no last.pt to go on from, but what was trained")
        if self.chief:
            print(f"{self.folder} has no last.pt yet: the run begins anew", file=sys.stderr)

    def _compare_epochs(self, step: int) -> None:
        """Note for ``flags.txt`` how many epochs there were to be until now: the schedule had their length."""
        text = (self.folder / "flags.txt").read_text(errors="replace")
        self._earlier = re.findall(_EPOCHS.format(r"\d+", r"\d+"), text)
        before = re.search(r"^--epochs=(\d+)$", text, re.MULTILINE)
        if before and int(before[1]) != self.flags.epochs:
            self._earlier.append(_EPOCHS.format(before[1], step))
            epochs = self.flags.epochs
            changed = f"from step {step} on the learning rate is that of a run of {epochs}"
            self._told = f"--epochs={epochs}: there were to be {before[1]}; {changed}"

    def listen(self) -> None:
        """Note Ctrl-C and SIGTERM for :attr:`stopping`, which a task looks at between two steps."""
        for number in _STOPS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._signal == number:  # a second Ctrl-C does not wait for the step to end
            sys.exit(128 + number)
        self._signal = number

    def _claim(self) -> None:
        """Lock the folder, so that nobody resumes what runs."""
        self._lock = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"another process works on the run in {self.folder}") from error
        for left in self.folder.glob(f"*{HALF}"):  # of a process that was killed while it wrote
            left.unlink()

    def write_flags(self) -> None:
        """Write ``flags.txt``, anew where a flag was set by the run itself."""
        left_out = {"resume", "help", "h"}
        lines = [self.flags[n].serialize() for n in sorted(self.flags) if n not in left_out]
        if self.chief:
            lines = [_TASK + self.task, *self._earlier, *lines]
            write(self.folder / "flags.txt", "".join(f"{line}\n" for line in lines if line).encode())

    def log(self, step: int, **figures: float) -> None:
        """Append a line to metrics.jsonl, give the same figures to TensorBoard, and print them."""
        self._written().write(step, **figures)

    def figure(self, name: str, figure: Any) -> None:
        """Write a figure of matplotlib as ``<name>.png``, and give the same picture to TensorBoard."""
        self._written().figure(name, figure)

    def metrics(self, *figures: str) -> list[dict[str, float]]:
        """What :meth:`log` wrote so far, lines that have these figures.

        Raises:
            RunError: there is no line, or one that lacks a figure.
        """
        lines = self._written().lines()
        missing = [name for name in figures if not lines or any(name not in line for line in lines)]
        if missing:
            path = self.folder / "metrics.jsonl"
            raise RunError(f"{path} has no {', '.join(missing)} of every epoch to draw; --noplot draws nothing")
        return lines

    def _written(self) -> Log:
        assert self._log is not None, "only the chief writes"
        return self._log

    def track(self, at: dict[str, Any], **parts: Any) -> dict[str, Any]:
        """Name what checkpoints hold; after ``--resume`` set it to what it was, every random state too.

        Parameters:
            at: where the run stands, plain values and tensors; changed in place as the run goes on.
            parts: what has a ``state_dict``: the net, the optimiser, ...

        Returns:
            ``at``, or what it was in the checkpoint.
        """
        self._at, self._parts = at, parts
        if self.resumed:
            self.load_into(self.resumed, **parts)
            self._at = self.part_of(self.resumed, "at", at)
            self.load_random_state(self.resumed)
        return self._at

    def keep_to(self, data: tuple[Any, ...]) -> None:
        """Note with every checkpoint which data set this is; after ``--resume`` refuse another one."""
        self._data = {"data": digest(data)}
        if self.resumed and self.resumed.get("data", self._data["data"]) != self._data["data"]:
            told = "give it the data that it began with, or begin a new run without --resume"
            raise RunError(f"the run in {self.folder} was trained with other data than these: {told}")

    def watch(
        self,
        net: torch.nn.Module,
        optim: torch.optim.Optimizer,
        where: Callable[[], str] | None = None,
        gradients: Callable[[], _Gradients] | None = None,
    ) -> None:
        """Name what :meth:`circumstances` tells of; what is resumed has been found to fit.

        Parameters:
            net: what learns.
            optim: has the learning rate.
            where: says where training stands; None for the epoch and the batch that are tracked.
            gradients: gives those of the last step; None for those that ``net`` holds.
        """
        self._watched = optim, where or self._place, gradients or partial(_train.gradients, net)
        if self._told:
            print(self._told, file=sys.stderr)
            self._told = ""

    def _place(self) -> str:
        named = [f"{name} {self._at[name] + 1}" for name in ("epoch", "batch") if name in self._at]
        return ", ".join(named) or "training"

    def circumstances(self) -> str:
        """For the end of a sentence about numbers that are not finite: where it was, how fast it learned."""
        if self._watched is None:
            return self.last_checkpoint()
        optim, where, gradients = self._watched
        sizes = {name: float(value.abs().max()) for name, value in gradients().items()}
        name = max(sizes, key=lambda name: (math.isnan(sizes[name]), sizes[name]), default=None)
        gradient = f"the largest gradient {sizes[name]:.3g}, of {name}" if name else "no gradient yet"
        rate = optim.param_groups[0]["lr"]
        return f" in {where()}: learning rate {rate:.3g}, {gradient}{self.last_checkpoint()}"

    def last_checkpoint(self) -> str:
        """For the end of a sentence: where the last checkpoint is, if there is one."""
        return f"; the last checkpoint is in {self.folder}" if (self.folder / "last.pt").exists() else ""

    def save(self, step: int, name: str = "last.pt") -> None:
        """Write a checkpoint: what :meth:`track` named, the step, and every random state."""
        states = {part: held.state_dict() for part, held in self._parts.items()}
        self.write_checkpoint(name, {"step": step, "random": random_state(), "at": self._at, **states})

    def write_checkpoint(self, name: str, content: dict[str, Any]) -> None:
        super().write_checkpoint(name, {"logged": self._written().step, **self._data, **content})

    def due(self, steps: int) -> bool:
        """Whether ``--save_every`` asks for a checkpoint after so many steps of an epoch."""
        every: int = self.flags.save_every
        return every > 0 and steps % every == 0

    def pause(self, step: int, due: bool = False) -> None:
        """Between two steps, and before the report: write ``last.pt`` where it is ``due``; save and leave after
        Ctrl-C or SIGTERM.
        """
        if due or self.stopping:
            self.save(step)
        if self.stopping:
            self.stop()

    @property
    def stopping(self) -> bool:
        """Whether Ctrl-C or SIGTERM arrived."""
        return self._signal != 0

    def stop(self) -> NoReturn:
        """Leave the run, which was saved."""
        self.close()
        raise Interrupted(self._signal or signal.SIGTERM)

    def take_best(self, net: torch.nn.Module, *figures: str) -> dict[str, float]:
        """Hand a net the weights of ``best.pt``; its epoch's line of metrics.jsonl, which has ``figures``."""
        best = self.read_checkpoint("best.pt")
        self.load_into(best, net=net)
        with self.fitting("best epoch"):
            epoch = best["at"]["epoch"]
            check_form(0, epoch, "epoch")
        for line in self.metrics():
            if line.get("epoch") == epoch and line.keys() >= {*figures}:
                return line
        raise RunError(
            f"{self.folder / 'metrics.jsonl'} has no {', '.join(figures)} of the best epoch, {epoch}"
        )

    def progress(self, steps: Iterable[int], label: str) -> Iterable[int]:
        """A progress bar on a terminal, the bare steps elsewhere."""
        if not sys.stderr.isatty():
            return steps
        from tqdm import tqdm

        return tqdm(steps, label, leave=False)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Leave the folder. Ctrl-C and SIGTERM are whose they were, unless this process ends with the run."""
        for number, handler in self._handlers.items() if not is_task() else ():
            signal.signal(number, handler)
        if self._log is not None:
            self._log.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
