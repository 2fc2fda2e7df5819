"""A run of a task: its folder, its checkpoints, its metrics, and how it ends."""

import fcntl
import io
import json
import math
import os
import pickle
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import torch
from absl import flags

from snnlib.dataset.images import DataError
from snnlib.engine.check import NaNInputError
from snnlib.engine.memory import keep_memory
from snnlib.task import _flags
from snnlib.task._form import check_form, load_optimizer
from snnlib.task._processes import is_chief

__all__ = [
    "DivergedError",
    "Run",
    "RunError",
    "launch",
    "new_folder",
    "process_seconds",
    "random_state",
    "set_random_state",
    "write",
]

_IMPORTED = time.perf_counter()
_Gradients = dict[str, torch.Tensor]
_HALF = ".new"
"""Ends the name of a file that is not yet whole."""


class RunError(Exception):
    """The run cannot go on; the message is for the user."""


class DivergedError(RunError):
    """A loss is not finite."""


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C or SIGTERM arrived, and the run is saved."""


def launch(
    values: flags.FlagValues,
    task: str,
    train: Callable[["Run"], dict[str, Any]],
    usage: str,
    prepare: Callable[[flags.FlagValues], None] = lambda values: None,
) -> None:
    """Run a task from the command line: flags, run folder, ``train``, the ``result:`` line, the exit code.

    Parameters:
        values: the task's flags.
        task: its name.
        train: does the work and returns the figures of the result.
        usage: what ``--help`` shows above the flags.
        prepare: fills in flags whose default depends on other flags.
    """
    _flags.parse(values, usage)
    keep_memory()
    run = None
    try:
        prepare(values)
        torch.manual_seed(values.seed)
        random.seed(values.seed)
        np.random.seed(values.seed % 2**32)
        run = Run(values, task)
        figures = train(run)
        figures = {"task": task, **figures, "seconds": round(process_seconds(), 1), "seed": values.seed}
        if run.chief:
            print("result: " + json.dumps({**figures, "run": str(run.folder)}), flush=True)
    except Interrupted as stop:
        number = int(stop.args[0])
        if run and run.chief:
            print(f"interrupted; go on with --resume={run.folder}", file=sys.stderr)
        sys.exit(128 + number)
    except ImportError as error:
        way_out = "" if "pip install" in str(error) else ": pip install 'snnlib[tasks]'"
        _flags.fail(f"{error}{way_out}")
    except (DivergedError, NaNInputError) as error:
        _flags.fail(f"{error}{run.circumstances() if run else ''}")
    except (DataError, RunError) as error:  # worded for whoever started the task
        _flags.fail(str(error))
    except ValueError as error:  # so is what snnlib itself refuses; torch's may have many lines
        _flags.fail(" ".join(str(error).split()))
    except OSError as error:
        way_out = run.last_checkpoint() if run else ""
        _flags.fail(f"{error.strerror or error}: {error.filename or 'writing the run'}{way_out}")
    except (MemoryError, RuntimeError) as error:
        if not _no_memory(error):
            raise
        _flags.fail(f"there is not enough memory for {_flags.largest(values)}: {_first_line(error)}")
    finally:
        if run:
            run.close()


class Run:
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
        self.task = task
        self.resumed: dict[str, Any] | None = None
        self._at: dict[str, Any] = {}
        self._parts: dict[str, Any] = {}
        self._watched: tuple[Callable[[], str], torch.optim.Optimizer, Callable[[], _Gradients]] | None = None
        self._signal = 0
        self._lock: int | None = None
        # the step of the last line of metrics; the line of a checkpoint's own step may have come after it
        self._logged = 0
        self._metrics: Any = None
        self._events: Any = None
        self.listen()
        self.chief = is_chief()
        root = Path(values.output_dir) / task
        self.folder = Path(values.resume) if values.resume else new_folder(root) if self.chief else root
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        """Lock the folder, read what is resumed, and only then write to it."""
        if self.chief:
            self._claim()
        if self.flags.resume and (self.folder / "last.pt").exists():
            self.resumed = self.read_checkpoint("last.pt")
            self._logged = self.resumed["logged"]
        if self.chief:
            self._kept_lines()
            self.write_flags()
        if self.chief and not self.resumed:  # else with the first line: what is resumed may not fit
            self._metrics = self._open_metrics()

    def listen(self) -> None:
        """Note Ctrl-C and SIGTERM for :attr:`stopping`, which a task looks at between two steps."""
        for number in (signal.SIGINT, signal.SIGTERM):
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
        for left in self.folder.glob(f"*{_HALF}"):  # of a process that was killed while it wrote
            left.unlink()

    def write_flags(self) -> None:
        """Write ``flags.txt``, anew where a flag was set by the run itself."""
        left_out = {"resume", "help", "h"}
        lines = [self.flags[n].serialize() for n in sorted(self.flags) if n not in left_out]
        if self.chief:
            write(self.folder / "flags.txt", "".join(f"{line}\n" for line in lines if line).encode())

    def _open_metrics(self) -> Any:
        path = self.folder / "metrics.jsonl"
        if path.exists():
            write(path, "".join(self._kept_lines()).encode())
        return path.open("a")

    def _kept_lines(self) -> list[str]:
        """The whole lines of metrics.jsonl but for those after the checkpoint, which will be written again."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        kept = []
        for number, line in enumerate(lines, 1):
            try:
                if line.endswith(b"\n") and _figures(line)["step"] <= self._logged:
                    kept.append(line.decode())
            except (RecursionError, ValueError) as error:
                raise RunError(f"{path}, line {number}, is no line of figures: {_first_line(error)}") from error
        return kept

    def log(self, step: int, **figures: float) -> None:
        """Append a line to metrics.jsonl, give the same figures to TensorBoard, and print them."""
        events = self._tensorboard()
        self._metrics = self._metrics or self._open_metrics()
        self._metrics.write(json.dumps({"step": step, **figures}) + "\n")
        self._metrics.flush()
        self._logged = step
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
        self._tensorboard().add_image(name, picture, self._logged + 1, dataformats="HWC")

    def _tensorboard(self) -> Any:
        if self._events is None:
            # a second or more to import: not before it is needed
            from torch.utils.tensorboard import SummaryWriter

            # what an earlier process wrote after the checkpoint will be written again
            self._events = SummaryWriter(str(self.folder), purge_step=self._logged + 1)
        return self._events

    def metrics(self) -> list[dict[str, float]]:
        """What :meth:`log` wrote so far."""
        return [json.loads(line) for line in self._kept_lines()]

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

    def watch(
        self, where: Callable[[], str], optim: torch.optim.Optimizer, gradients: Callable[[], _Gradients]
    ) -> None:
        """Name what :meth:`circumstances` tells of.

        Parameters:
            where: says where training stands.
            optim: has the learning rate.
            gradients: gives those of the last step by the names of the parameters.
        """
        self._watched = where, optim, gradients

    def circumstances(self) -> str:
        """For the end of a sentence about numbers that are not finite: where it was, how fast it learned."""
        if self._watched is None:
            return self.last_checkpoint()
        where, optim, gradients = self._watched
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
        """Write ``content``, which has a ``step``, as a checkpoint of this task."""
        buffer = io.BytesIO()
        torch.save({"task": self.task, "logged": self._logged, **content}, buffer)
        write(self.folder / name, buffer.getvalue())

    def read_checkpoint(self, name: str) -> dict[str, Any]:
        """A checkpoint of this task; nothing in it is executed."""
        path = self.folder / name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # torch advises to run what is in it
            told = "it is damaged, or holds more than plain values, which may be code and is not run"
            raise RunError(f"{path} is not a checkpoint that can be read: {told}") from error
        except Exception as error:  # a damaged archive fails in many ways
            raise RunError(f"{path} is not a checkpoint that can be read: {_first_line(error)}") from error
        if not isinstance(found, dict) or found.get("task") != self.task:
            raise RunError(f"{path} is not a checkpoint of the task {self.task}")
        if not all(isinstance(found.get(name), int) for name in ("step", "logged")):
            raise RunError(
                f"{path} is not a checkpoint of this version of snnlib: it has no step or no last line"
            )
        return found

    def pause(self, step: int, due: bool = False) -> None:
        """Between two steps: write ``last.pt`` where it is ``due``; save and leave after Ctrl-C or SIGTERM."""
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

    def load_into(self, checkpoint: dict[str, Any], **parts: Any) -> None:
        """Hand each of ``parts`` its state, or say which does not fit."""
        for name, part in parts.items():
            with self.fitting(name):
                found = checkpoint[name]
                if isinstance(part, torch.optim.Optimizer):
                    load_optimizer(part, found)
                else:
                    check_form(part.state_dict(), found, name)
                    part.load_state_dict(found)

    def load_random_state(self, checkpoint: dict[str, Any]) -> None:
        """Set every random state to that of a checkpoint."""
        with self.fitting("random"):
            state = checkpoint["random"]
            # there may be other GPUs than there were; torch looks at their states itself
            check_form({**random_state(), "cuda": 0}, {**state, "cuda": 0}, "random")
            set_random_state(state)

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

    def part_of(self, checkpoint: dict[str, Any], name: str, wanted: Any) -> Any:
        """A part of a checkpoint that is plain values, which has the form of ``wanted``."""
        with self.fitting(name):
            check_form(wanted, checkpoint[name], name)
        return checkpoint[name]

    @contextmanager
    def fitting(self, name: str) -> Iterator[None]:
        """Say if a part of a checkpoint, which may come from a stranger, does not fit."""
        try:
            yield
        except Exception as error:  # what is not meant for it lets torch and Lightning fail in any way
            told = f"it has no {error}" if isinstance(error, KeyError) else _first_line(error)
            raise RunError(f"the {name} in {self.folder} does not fit the flags: {told}") from error

    def progress(self, steps: Iterable[int], label: str) -> Iterable[int]:
        """A progress bar on a terminal, the bare steps elsewhere."""
        if not sys.stderr.isatty():
            return steps
        from tqdm import tqdm

        return tqdm(steps, label, leave=False)  # type: ignore[no-any-return]

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
        if self._events is not None:
            self._events.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


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
    fresh = path.with_name(path.name + _HALF)
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def random_state() -> dict[str, Any]:
    """Every random state of the process, as plain values and tensors."""
    kind, keys, *rest = cast(tuple[Any, ...], np.random.get_state())
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": [kind, keys.tolist(), *rest],
        "python": [version, list(numbers), gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set every random state to what :func:`random_state` gave."""
    torch.set_rng_state(state["torch"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, at, *rest = state["numpy"]
    if not 0 <= at <= len(keys):  # NumPy would read beyond them
        raise ValueError(f"numpy[2] must be 0 to {len(keys)}, got {at}")
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), at, *rest))
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def process_seconds() -> float:
    """Wall time of the whole process, the imports included."""
    try:
        started = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):  # not Linux
        return time.perf_counter() - _IMPORTED


def _figures(line: bytes) -> dict[str, float]:
    """A line of metrics.jsonl: numbers by their names, one of them the step."""
    found = json.loads(line)
    if not isinstance(found, dict) or "step" not in found:
        raise ValueError("it has no step")
    for name, value in found.items():
        if not isinstance(value, int | float):
            raise ValueError(f"{name} is {str(value)[:40]!r}")
    return found


def _no_memory(error: Exception) -> bool:
    """Whether memory is missing, for which torch has no class of its own on the CPU."""
    words = ("allocate memory", "out of memory", "size calculation overflowed")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
