"""Processes that are copies of one that has imported the packages of the tasks, which takes most of the time of
a small run. Those that are about the start of a process are new ones.
"""

import atexit
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = ["COPIES", "Copied"]

COPIES = multiprocessing.get_context("forkserver")
COPIES.set_forkserver_preload(
    [
        *("matplotlib.pyplot", "sklearn.datasets", "torch.utils.tensorboard", "torchvision", "torchaudio"),
        *("gymnasium", "pytorch_lightning", "snnlib.engine.cpu", "snnlib.task._launch"),
    ]
)


class Copied:
    """A function in a process that was copied.

    Parameters:
        function, arguments: of a module, which is imported there again.
        cwd: where it runs; made if it is not there.
        environment: variables that it has beside those of this process.
    """

    def __init__(
        self,
        function: Callable[..., None],
        *arguments: Any,
        cwd: Path,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._said = tempfile.TemporaryDirectory()
        self._files = [Path(self._said.name, name) for name in ("output", "error")]
        given = function, arguments, cwd, {**os.environ, **environment}, *self._files
        self.process = COPIES.Process(target=_main, args=given)
        self.process.start()

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self, seconds: float) -> tuple[int, str, str]:
        """Its exit code, standard output and error."""
        self.process.join(seconds)
        code = self.process.exitcode
        self.process.kill()
        said = [file.read_text() for file in self._files]
        self._said.cleanup()
        assert code is not None, f"it runs longer than {seconds} s: {said}"
        return code, *said


def _main(
    function: Callable[..., None],
    arguments: tuple[Any, ...],
    cwd: Path,
    environment: Mapping[str, str],
    *files: Path,
) -> None:
    cwd.mkdir(exist_ok=True)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(files, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    try:
        function(*arguments)
    finally:
        atexit._run_exitfuncs()
