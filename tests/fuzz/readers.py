"""A fuzz of snnlib's readers that is led by coverage; needs atheris, which CI does not install.

    pip install atheris
    python -m tests.fuzz.readers --seconds=60
    python -m tests.fuzz.readers --seconds=600 --reader=images

Each reader runs in a process of its own, since libFuzzer ends the process. An input is a file that was whole
and is changed; a reader takes it or refuses it with its own exception, in one line. Any other exception, a file
that code in an input made, more than 3 GB, or an input that takes more than 10 s is a finding: the end of what
the process says is printed, with the input.
"""

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

Reader = tuple[list[bytes], Callable[[bytes], Any]]


def images(folder: Path) -> Reader:
    """An .npz of images."""
    from snnlib.dataset import DataError, load_images
    from tests.hostile import arrays

    def read(content: bytes) -> None:
        (folder / "images.npz").write_bytes(content)
        refused(DataError, lambda: load_images(str(folder / "images.npz"), ""))

    return [arrays.npz(), *(content for _, content in arrays.npz_files())], read


def idx(folder: Path) -> Reader:
    """The labels of MNIST, unpacked: gzip would keep all changes out."""
    import gzip

    from snnlib.dataset import DataError
    from snnlib.dataset.images import _idx
    from tests.hostile import arrays

    def read(content: bytes) -> None:
        packed = gzip.compress(content, 1)
        (folder / "labels.gz").write_bytes(packed)
        refused(DataError, lambda: _idx(folder / "labels.gz", hashlib.md5(packed).hexdigest()))

    return [gzip.decompress(content) for content in arrays.whole_idx().values()], read


def archive(folder: Path) -> Reader:
    """An archive of clips."""
    from snnlib.dataset import DataError
    from snnlib.dataset.speech_commands import _unpacked
    from tests.hostile import speech

    def read(content: bytes) -> None:
        (folder / "clips.tar").write_bytes(content)
        with tempfile.TemporaryDirectory() as fresh:
            refused(DataError, lambda: _unpacked(folder / "clips.tar", Path(fresh, "data")))
            outside = [path for path in Path(fresh).iterdir() if path.name != "data"]
            if outside:
                raise RuntimeError(f"outside of its folder: {outside}")

    small = dict.fromkeys(speech.tree(), b"text")
    return [speech.packed(small), *(content for _, content in speech.archives() if len(content) < 50_000)], read


def clip(folder: Path) -> Reader:
    """A recording."""
    from snnlib.dataset import DataError
    from snnlib.dataset.speech_commands import RATE
    from snnlib.dataset.wave import read_wave
    from tests.hostile import speech

    def read(content: bytes) -> None:
        (folder / "clip.wav").write_bytes(content)
        refused(DataError, lambda: read_wave(folder / "clip.wav", RATE, RATE))

    return [speech.wav(200), *(content for _, content in speech.clips())], read


def graph(folder: Path) -> Reader:
    """A file of NIR."""
    from snnlib import from_nir
    from tests.hostile import graphs

    whole = graphs.whole_graph(folder / "whole.nir").read_bytes()

    def read(content: bytes) -> None:
        (folder / "net.nir").write_bytes(content)
        refused(ValueError, lambda: from_nir(folder / "net.nir"))

    return [whole], read


def checkpoint(folder: Path) -> Reader:
    """What a run takes over from last.pt, but for the training itself."""
    import torch

    from snnlib.task._error import RunError
    from snnlib.task._random import random_state
    from snnlib.task._run import Run
    from tests.hostile.checkpoints import packed

    net = torch.nn.Linear(2, 1)
    optim = torch.optim.Adam(net.parameters())
    net(torch.ones(2)).backward()
    optim.step()
    rate = torch.optim.lr_scheduler.LambdaLR(optim, lambda step: 1.0)
    parts = {"net": net, "optimizer": optim, "schedule": rate}
    run = Run.__new__(Run)
    run.folder, run.task, run.chief = folder, "mnist", True
    at = {"epoch": 0, "best": None, "list": []}
    states = {name: part.state_dict() for name, part in parts.items()}
    whole = packed({"task": "mnist", "step": 1, "logged": 1, "random": random_state(), "at": at, **states})

    def take() -> None:
        run.resumed = run.read_checkpoint("last.pt")
        run.track(dict(at), **parts)

    def read(content: bytes) -> None:
        (folder / "last.pt").write_bytes(content)
        refused(RunError, take)

    return [whole], read


def figures(folder: Path) -> Reader:
    """The lines of metrics.jsonl."""
    from snnlib.task._error import RunError
    from snnlib.task._log import Log
    from tests.hostile.checkpoints import metrics_files

    whole = b'{"step": 1, "epoch": 1, "train_loss": 0.5}\n{"step": 2, "epoch": 2, "train_loss": NaN}\n'

    def read(content: bytes) -> None:
        (folder / "metrics.jsonl").write_bytes(content)
        refused(RunError, lambda: Log(folder, 10))

    return [whole, *(content for _, content in metrics_files(whole) if len(content) < 5000)], read


def flag_file(folder: Path) -> Reader:
    """A file of flags."""
    from snnlib.task import _command, mnist
    from tests.hostile import flag_files
    from tests.task.command import clear

    def parse() -> None:
        clear(mnist)
        with mock.patch.object(sys, "argv", ["mnist", f"--flagfile={folder / 'flags.txt'}"]):
            _command.parse(mnist.FLAGS, "usage")

    def read(content: bytes) -> None:
        (folder / "flags.txt").write_bytes(content)
        said = io.StringIO()
        with mock.patch.object(sys, "stderr", said), mock.patch.object(sys, "stdout", io.StringIO()):
            refused(SystemExit, parse)
        if said.getvalue().count("\n") > 1:
            raise RuntimeError(f"more than a line: {said.getvalue()!r}")

    whole = "".join(
        mnist.FLAGS[name].serialize() + "\n" for name in ("seed", "dt", "optimizer", "fast")
    ).encode()
    return [whole, *(content for _, content in flag_files.flag_files() if len(content) < 5000)], read


READERS = {f.__name__: f for f in (images, idx, archive, clip, graph, checkpoint, figures, flag_file)}


def refused(kind: type[BaseException], read: Callable[[], Any]) -> None:
    """Read; the reader's own exception is right, as long as it has something to say in one line."""
    try:
        read()
    except kind as error:
        if kind is not SystemExit and len(str(error).strip().splitlines()) != 1:
            raise RuntimeError(f"not one line: {error!r}") from error


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one reader in this process, and end it."""
    import atheris

    from tests.hostile.damage import TRIPWIRE

    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)
    (folder / "corpus").mkdir()
    with atheris.instrument_imports(
        include=["snnlib.dataset", "snnlib.task", "snnlib.exchange", "nir", "absl"]
    ):
        seeds, read = READERS[name](folder)
    for number, seed in enumerate(seeds):
        (folder / "corpus" / f"{number:04}").write_bytes(seed)
    warnings.simplefilter("ignore")

    def one(content: bytes) -> None:
        read(content)
        if Path(folder, TRIPWIRE).exists():
            raise RuntimeError("code in the input ran")

    options = [f"-max_total_time={seconds}", "-rss_limit_mb=3000", "-timeout=10", "-max_len=60000", "-seed=1"]
    atheris.Setup([sys.argv[0], *options, "-print_final_stats=1", "corpus"], one)
    atheris.Fuzz()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--seconds", type=int, default=60, help="for each reader")
    arguments.add_argument("--reader", choices=READERS, help="this one alone")
    arguments.add_argument("--here", action="store_true", help="in this process")
    given = arguments.parse_args()
    if given.here:
        fuzz(given.reader, given.seconds)
    for name in [given.reader] if given.reader else READERS:
        line = [
            sys.executable,
            "-m",
            "tests.fuzz.readers",
            "--here",
            f"--reader={name}",
            f"--seconds={given.seconds}",
        ]
        done = subprocess.run(line, capture_output=True, text=True, errors="replace")
        wanted = ("stat::number_of_executed_units", "stat::peak_rss_mb")
        said = (done.stdout + done.stderr).splitlines()
        figures = {text.split(":")[2]: text.split()[-1] for text in said if text.startswith(wanted)}
        print(json.dumps({"reader": name, "exit": done.returncode, **figures}), flush=True)
        if done.returncode:
            print("\n".join(said[-60:]), flush=True)


if __name__ == "__main__":
    main()
