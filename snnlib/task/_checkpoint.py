"""Checkpoints of a task in a folder. They may come from a stranger."""

import io
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from snnlib._words import first_line
from snnlib.task._error import RunError
from snnlib.task._files import write
from snnlib.task._form import check_form, load_optimizer, load_schedule
from snnlib.task._random import random_state, set_random_state

__all__ = ["Checkpoints"]


class Checkpoints:
    """The checkpoints of a task in a folder.

    Parameters:
        folder: where they are.
        task: the name of the task.
    """

    def __init__(self, folder: Path, task: str) -> None:
        self.folder, self.task = folder, task

    def write_checkpoint(self, name: str, content: dict[str, Any]) -> None:
        """Write ``content``, which has a ``step``, as a checkpoint of this task."""
        buffer = io.BytesIO()
        torch.save({"task": self.task, **content}, buffer)
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
            raise RunError(f"{path} is not a checkpoint that can be read: {first_line(error)}") from error
        if not isinstance(found, dict) or found.get("task") != self.task:
            raise RunError(f"{path} is not a checkpoint of the task {self.task}")
        if not all(
            isinstance(found.get(name), int) and 0 <= found[name] < 2**63 for name in ("step", "logged")
        ):
            raise RunError(
                f"{path} is not a checkpoint of this version of snnlib: it has no step or no last line"
            )
        if found["logged"] > found["step"]:
            step, logged = found["step"], found["logged"]
            raise RunError(
                f"{path} is not a checkpoint of a run: its step is {step}, that of its last line {logged}"
            )
        return found

    def load_into(self, checkpoint: dict[str, Any], **parts: Any) -> None:
        """Hand each of ``parts`` its state, or say which does not fit."""
        for name, part in parts.items():
            with self.fitting(name):
                found = checkpoint[name]
                if isinstance(part, torch.optim.Optimizer):
                    load_optimizer(part, found)
                elif isinstance(part, torch.optim.lr_scheduler.LambdaLR):
                    load_schedule(part, found)
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
            told = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
            raise RunError(f"the {name} in {self.folder} does not fit the flags: {told}") from error
