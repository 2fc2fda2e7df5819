"""Spoken words as tensors: Google's Speech Commands, downloaded or unpacked, and split by its own lists."""

import hashlib
import math
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snnlib._words import one_line
from snnlib.dataset.error import DataError
from snnlib.dataset.wave import read_wave

__all__ = ["COMMANDS", "RATE", "WORDS", "Speech", "generated_speech", "labels_of", "load_speech"]

RATE = 16_000
"""Samples a second; a clip is one second."""
COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
"""The ten words of the task with 12 classes, in the order of Warden 2018."""
# fmt: off
WORDS = (
    "backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go",
    "happy", "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila",
    "six", "stop", "three", "tree", "two", "up", "visual", "wow", "yes", "zero",
)
# fmt: on
"""All 35 words, alphabetically."""
_FOLDER = Path("SpeechCommands", "speech_commands_v0.02")
_NOISE_HOP = RATE // 2
_LONGEST_NOISE = 600 * RATE
# the noise of training, validation and test are different stretches of the recordings
_NOISE_PARTS = {"train": (0.0, 0.7), "valid": (0.7, 0.85), "test": (0.85, 1.0)}


class Speech(NamedTuple):
    """Clips and labels: what trains, what chooses, what reports. No clip and no speaker is in two of them."""

    x_train: Tensor
    """``[N, 16000]``, int16: a clip, padded with zeros at its end."""
    y_train: Tensor
    """``[N]``, int64, counted from 0 in the order of ``labels``."""
    x_valid: Tensor
    y_valid: Tensor
    x_test: Tensor
    y_test: Tensor
    noise: Tensor
    """``[M, 16000]``, int16: background noise to train with, a second each."""
    labels: tuple[str, ...]

    @property
    def train_count(self) -> int:
        """Examples in an epoch of training, see :meth:`draw`."""
        known = int((self.y_train < len(COMMANDS)).sum())
        return known + 2 * _share(self.y_train) if len(self.labels) == 12 else len(self.y_train)

    def draw(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Training examples, clips ``[n, 16000]`` and labels, by their numbers from 0 to ``train_count - 1``.

        With 12 classes the last numbers stand for "unknown" and "silence", as many of each as the ten words
        have on average: a clip of another word, and a second of noise at some volume, drawn anew every time.
        """
        if len(self.labels) == 35:
            return self.x_train[index], self.y_train[index]
        known, other = ((self.y_train < len(COMMANDS)) == yes for yes in (True, False))
        rows = torch.cat([known.nonzero()[:, 0], other.nonzero()[:, 0]])
        count = int(known.sum())
        silent = index >= count + _share(self.y_train)
        anyone = torch.randint(count, len(rows), index.shape, device=index.device)
        rows = rows[torch.where(index < count, index, anyone)]
        hiss = self.noise[torch.randint(len(self.noise), index.shape, device=index.device)]
        hiss = (hiss * torch.rand(len(index), 1, device=index.device)).short()
        x = torch.where(silent[:, None], hiss, self.x_train[rows])
        return x, torch.where(silent, self.labels.index("silence"), self.y_train[rows])

    def to(self, device: torch.device) -> "Speech":
        moved: Any = {k: v.to(device) for k, v in self._asdict().items() if isinstance(v, Tensor)}
        return self._replace(**moved)


def labels_of(classes: int) -> tuple[str, ...]:
    """The names of the classes in the order of their numbers.

    35: :data:`WORDS`. 12: :data:`COMMANDS`, then "unknown" (any other word), then "silence" (background noise).

    Raises:
        ValueError: ``classes`` is neither.
    """
    if classes not in (12, 35):
        raise ValueError(f"classes must be 12 or 35, got {classes}")
    return (*COMMANDS, "unknown", "silence") if classes == 12 else WORDS


def load_speech(dataset: str, data_dir: str | Path, classes: int = 12) -> Speech:
    """Load Speech Commands whole into memory, 32 kB a clip (3.4 GB for the official 105,829).

    The splits are those of ``validation_list.txt`` and ``testing_list.txt``; what is in neither trains.

    With 12 classes, validation and test take as many clips of "unknown" as the ten words have on average,
    evenly from the sorted names, and as many of "silence": a second of background noise at a volume that is
    drawn once for all. Training keeps every other word and its noise to draw from, see :meth:`Speech.draw`;
    the last 30 % of each noise recording are kept from it.

    Parameters:
        dataset: "speech_commands", the official set of version 0.02 in ``data_dir``, downloaded there if it is
            missing; or the path of an archive with clips and lists in the same layout
            (``SpeechCommands/speech_commands_v0.02/<word>/*.wav``), which is unpacked into ``data_dir`` once.
        data_dir: the folder that holds, or will hold, ``SpeechCommands``.
        classes: 12 or 35, see :func:`labels_of`.

    Raises:
        DataError: the data is missing, damaged or not what it says.
        ImportError: an optional package is missing; the message has the line that installs it.
    """
    labels = labels_of(classes)
    if dataset == "speech_commands":
        root = _official(Path(data_dir))
    else:
        root = _unpacked(Path(dataset), Path(data_dir))
    noise = {part: _noise(root, *bounds) for part, bounds in _NOISE_PARTS.items()}
    made: dict[str, Any] = {"noise": noise["train"]}
    seen: set[Path] = set()
    for part, subset in (("train", "training"), ("valid", "validation"), ("test", "testing")):
        paths = _paths(root, subset)
        if twice := seen.intersection(paths):
            raise DataError(f"{min(twice)} is in two of the lists of {root / _FOLDER}")
        seen.update(paths)
        if classes == 12 and not any(path.parent.name in COMMANDS for path in paths):
            raise DataError(f"{root / _FOLDER} has no clips of the ten words for {subset}")
        if part != "train" and classes == 12:
            paths = _fewer_unknown(paths)
        x = _read(paths)
        y = torch.tensor([_number(path, labels) for path in paths], dtype=torch.int64)
        if part != "train" and classes == 12:
            silence = _silence(noise[part], _share(y))
            x, y = torch.cat([x, silence]), torch.cat([y, torch.full((len(silence),), labels.index("silence"))])
        made |= {f"x_{part}": x, f"y_{part}": y}
    if classes == 12 and int(made["y_train"].max()) < len(COMMANDS):
        raise DataError(f"{root / _FOLDER} has no clips to train 'unknown' with, of other words than the ten")
    return Speech(**made, labels=labels)


def generated_speech(classes: int = 12, count: int = 48) -> Speech:
    """Tones, one pitch a word, for a run that needs nothing on disk: four words, and with 12 classes the rest.

    Parameters:
        classes: 12 or 35, see :func:`labels_of`.
        count: clips in each of the three sets.
    """
    labels = labels_of(classes)
    generator = torch.Generator().manual_seed(0)
    used = torch.tensor([0, 1, 2, 3, *([10, 11] if classes == 12 else [])])
    time = torch.arange(RATE) / RATE

    def draw(silence: bool) -> tuple[Tensor, Tensor]:
        y = used[torch.arange(count) % (len(used) - (classes == 12 and not silence))]
        pitch = 200.0 * 1.5 ** y.clamp(max=10).float() * (1.0 + 0.1 * torch.rand(count, generator=generator))
        tone = torch.sin(2.0 * math.pi * pitch[:, None] * time) * torch.exp(-(((time - 0.5) / 0.2) ** 2))
        hiss = torch.randn(count, RATE, generator=generator)
        x = torch.where((y == 11)[:, None] & (classes == 12), 0.0, tone)
        return (10_000 * x + 300 * hiss).short(), y

    noise = (1_000 * torch.randn(8, RATE, generator=generator)).short()
    return Speech(*draw(False), *draw(True), *draw(True), noise=noise, labels=labels)


def _official(data_dir: Path) -> Path:
    """``data_dir`` with the official set in it, whole: it is fetched into a folder of its own first."""
    if (data_dir / _FOLDER).is_dir():
        return data_dir
    made = _torchaudio()
    try:
        (data_dir / _FOLDER).parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".speech_commands_", dir=data_dir) as fresh:
            made(fresh, download=True)
            _move(Path(fresh) / _FOLDER, data_dir / _FOLDER)
    except Exception as error:  # no network, no permission, a wrong checksum: all one to the user
        raise DataError(f"{data_dir / _FOLDER} is not there and could not be downloaded: {error}") from error
    return data_dir


def _unpacked(archive: Path, data_dir: Path) -> Path:
    """The folder below ``data_dir`` that holds what is in ``archive``; its name follows from the content."""
    try:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{archive}: {error.strerror}; --dataset is speech_commands or an archive") from error
    target = data_dir / f"{archive.name.split('.')[0]}-{digest[:16]}"
    if target.is_dir():
        return target
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking_", dir=data_dir) as fresh:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(fresh, filter=_plain)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise DataError(f"{archive} cannot be unpacked: {one_line(error)}") from error
        except Exception as error:  # lzma's and zlib's own errors have no common class
            raise DataError(f"{archive} is damaged: {error}") from error
        if not (Path(fresh) / _FOLDER).is_dir():
            raise DataError(f"{archive} has no folder {_FOLDER}")
        inner = Path(fresh) / "whole"
        inner.mkdir()
        (Path(fresh) / _FOLDER.parts[0]).rename(inner / _FOLDER.parts[0])
        _move(inner, target)
    return target


def _plain(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """A file or a folder below the one that is unpacked into; links, by which some get out, are refused."""
    if member.name.startswith("/"):
        raise tarfile.AbsolutePathError(member)
    if member.islnk() or member.issym():
        raise tarfile.LinkOutsideDestinationError(member, member.linkname)
    return tarfile.data_filter(member, folder)


def _move(fresh: Path, target: Path) -> None:
    """Give a whole folder its name, unless another process was faster."""
    try:
        fresh.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(fresh, ignore_errors=True)


def _torchaudio() -> Any:
    try:
        from torchaudio.datasets import SPEECHCOMMANDS
    except Exception as error:  # a torchaudio of another build fails with an OSError or RuntimeError
        raise ImportError(f"speech needs torchaudio ({error}): pip install 'snnlib[tasks]'") from error
    return SPEECHCOMMANDS


def _paths(root: Path, subset: str) -> list[Path]:
    """The clips of a split, sorted, each once however often a list names it."""
    try:
        listed = _torchaudio()(root, subset=subset)
        paths = [root / _FOLDER.parts[0] / listed.get_metadata(n)[0] for n in range(len(listed))]
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing: it says which clips are for {subset}") from error
    except ValueError as error:
        raise DataError(
            f"{root / _FOLDER}: the list for {subset} has a name that is no clip: {error}"
        ) from error
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}; it says which clips are for {subset}") from error
    if not paths:
        raise DataError(f"{root / _FOLDER} has no clips for {subset}")
    for path in paths:
        if ".." in path.parts[len(root.parts) :]:
            raise DataError(f"{root / _FOLDER}: the list for {subset} has a clip elsewhere: {path}")
    return sorted(set(paths))


def _number(path: Path, labels: tuple[str, ...]) -> int:
    word = path.parent.name
    if word not in WORDS:
        raise DataError(f"{path}: {word!r} is none of the 35 words")
    return labels.index(word if word in labels else "unknown")


def _fewer_unknown(paths: list[Path]) -> list[Path]:
    known = [path for path in paths if path.parent.name in COMMANDS]
    other = [path for path in paths if path.parent.name not in COMMANDS]
    wanted = min(len(other), round(len(known) / len(COMMANDS)))
    return sorted(known + [other[n * len(other) // wanted] for n in range(wanted)])


def _share(y: Tensor) -> int:
    """Clips that one of the ten words has on average."""
    return max(1, round(int((y < len(COMMANDS)).sum()) / len(COMMANDS)))


def _silence(noise: Tensor, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(2026)
    chosen = torch.randint(len(noise), (count,), generator=generator)
    volume = torch.rand(count, 1, generator=generator)
    return (noise[chosen] * volume).short()


def _noise(root: Path, begin: float, end: float) -> Tensor:
    """Seconds of background noise, one every half second, from a stretch of each recording."""
    folder = root / _FOLDER / "_background_noise_"
    pieces = []
    for path in sorted(folder.glob("*.wav")):
        wave = read_wave(path, RATE, _LONGEST_NOISE)
        wave = wave[int(begin * len(wave)) : int(end * len(wave))]
        pieces += [wave[at : at + RATE] for at in range(0, len(wave) - RATE + 1, _NOISE_HOP)]
    if not pieces:
        raise DataError(f"{folder} has no recordings of background noise that are long enough")
    return torch.from_numpy(np.stack(pieces))


def _read(paths: list[Path]) -> Tensor:
    x = np.zeros((len(paths), RATE), np.int16)
    for row, path in zip(x, paths, strict=True):
        wave = read_wave(path, RATE, RATE)
        row[: len(wave)] = wave
    return torch.from_numpy(x)
