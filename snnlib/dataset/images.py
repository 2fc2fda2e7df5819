"""Image sets as tensors: MNIST and its kin, CIFAR, the digits of scikit-learn, a person's own ``.npz``."""

import gzip
import hashlib
import math
import pickle
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snnlib.dataset.error import DataError

__all__ = ["FOLDS", "NAMES", "Images", "check_name", "generated_images", "load_images", "split", "unsplit"]

FOLDS = 12
"""Parts of the training images, of which one validates."""
NAMES = ("mnist", "fashion_mnist", "kmnist", "digits", "cifar10", "cifar100")
_MNIST = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
_MOST_CLASSES = 100_000
_CIFAR = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}


class Images(NamedTuple):
    """Images and labels: what trains, what chooses, what reports. No image is in two of them."""

    x_train: Tensor
    """``[N, C, H, W]``, uint8 or float32; spikes over time ``[N, T, C, H, W]``."""
    y_train: Tensor
    """``[N]``, int64, classes counted from 0."""
    x_valid: Tensor
    y_valid: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int
    low: float
    """The value of black."""
    high: float
    """The value of white."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        maps, height, width = self.x_train.shape[-3:]
        return maps, height, width

    def scaled(self, x: Tensor) -> Tensor:
        """Images as float32 between 0 (black) and 1 (white)."""
        return ((x.float() - self.low) / (self.high - self.low)).clamp(0.0, 1.0)

    def to(self, device: torch.device) -> "Images":
        moved: Any = {k: v.to(device) for k, v in self._asdict().items() if isinstance(v, Tensor)}
        return self._replace(**moved)


def load_images(name: str, data_dir: str | Path, fold: int = 0) -> Images:
    """Load an image set whole into memory.

    The validation images are drawn from the training images class by class, whatever the seed of a run:
    a twelfth of them (5,000 of MNIST's 60,000). The twelve folds share no image and are together the
    whole training set, but for the only image of a class, which always trains.

    Parameters:
        name: "mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100" (read from ``data_dir``, else
            downloaded there by torchvision), "digits" (scikit-learn's 1,797 digits, 20 % of them for
            testing), or the path of an ``.npz`` with x_train, y_train, x_test, y_test; images
            ``[N, H, W]`` or ``[N, H, W, C]``.
        data_dir: where torchvision keeps its sets: ``<data_dir>/MNIST/raw/*.gz``, or what was unpacked from
            them, ``<data_dir>/cifar-10-batches-py`` and so on.
        fold: which twelfth of the training images validates, 0 to 11.

    Raises:
        DataError: the data is missing, truncated or not what it says.
        ImportError: an optional package is missing; the message has the line that installs it.
    """
    if name == "digits":
        whole = _digits()
    elif name in _MNIST:
        whole = _mnist(_MNIST[name], Path(data_dir))
    elif name in _CIFAR:
        whole = _cifar(_CIFAR[name], Path(data_dir))
    else:
        check_name(name)
        whole = _from_npz(Path(name))
    train, valid = split(whole.y_train, FOLDS, fold)
    x, y = whole.x_train, whole.y_train
    parts = whole._replace(x_train=x[train], y_train=y[train], x_valid=x[valid], y_valid=y[valid])
    if not len(valid):
        raise DataError(f"{name}: of no class are there enough training images to set one aside for validation")
    return parts if x.dtype == torch.uint8 else _ranged(name, parts)


def _ranged(name: str, data: Images) -> Images:
    """Black is the smallest value of the images that train, white the largest; the others have no say in it."""
    low, high = float(data.x_train.min()), float(data.x_train.max())
    if not low < high:
        raise DataError(f"{name}: every value of x_train is {low}")
    return data._replace(low=low, high=high)


def check_name(name: str, known: Sequence[str] = NAMES) -> None:
    """Refuse what is neither an image set that is known nor a file.

    Raises:
        DataError: it is not.
    """
    if name not in known and not Path(name).exists():
        raise DataError(f"{name}: no such file, and none of {', '.join(known)}")


def generated_images(count: int = 64, classes: int = 4, size: int = 8) -> Images:
    """Noise with one bright quarter, which is the class, for a run that needs nothing on disk.

    Parameters:
        count: images in each of the three sets.
        classes: at most 4.
        size: side of an image, pixels.

    Raises:
        ValueError: there are no quarters for so many ``classes``.
    """
    if not 1 <= classes <= 4:
        raise ValueError(f"classes must be from 1 to 4, got classes={classes}")
    generator = torch.Generator().manual_seed(0)

    def draw() -> tuple[Tensor, Tensor]:
        y = torch.arange(count) % classes
        x = torch.randint(0, 100, (count, 1, size, size), generator=generator, dtype=torch.uint8)
        half = size // 2
        for image, label in zip(x, y.tolist(), strict=True):
            row, column = divmod(label, 2)
            image[0, row * half : (row + 1) * half, column * half : (column + 1) * half] += 150
        return x, y

    return Images(*draw(), *draw(), *draw(), classes=classes, low=0.0, high=255.0)


def _digits() -> Images:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits need scikit-learn: pip install 'snnlib[tasks]'") from error
    digits = load_digits()
    x = torch.from_numpy(digits.images.astype(np.uint8))[:, None]
    y = torch.from_numpy(digits.target.astype(np.int64))
    rest, test = split(y, 5)
    return unsplit(x[rest], y[rest], x[test], y[test], high=16.0)


def unsplit(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, high: float = 255.0) -> Images:
    """Images of which none is set aside for validation yet."""
    return Images(x, y, x[:0], y[:0], x_test, y_test, int(y.max()) + 1, 0.0, high)


def split(y: Tensor, parts: int, fold: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of all parts but one, and of that one, with the same share of every class in each.

    The only image of its class stays with the others, whatever ``fold`` is.

    Raises:
        ValueError: there is no such part.
    """
    if fold not in range(parts):
        raise ValueError(f"fold must be from 0 to {parts - 1}, got {fold!r}")
    generator = torch.Generator().manual_seed(2026)
    shuffled = torch.randperm(len(y), generator=generator)
    by_class = shuffled[torch.argsort(y[shuffled], stable=True)]
    chosen = torch.zeros(len(y), dtype=torch.bool)
    chosen[by_class[fold::parts]] = True
    chosen &= y.bincount()[y] > 1
    return (~chosen).nonzero()[:, 0], chosen.nonzero()[:, 0]


def _mnist(kind: str, data_dir: Path) -> Images:
    made = _torchvision(kind)
    raw = data_dir / kind / "raw"
    _fetch(made, data_dir, raw, made.resources)
    x, y, x_test, y_test = (_idx(_there(raw / name), md5) for name, md5 in _in_order(made.resources))
    for images, labels in ((x, y), (x_test, y_test)):
        if images.dim() != 3 or labels.shape != images.shape[:1]:
            raise DataError(f"{raw} has images {list(images.shape)} and labels {list(labels.shape)}")
    return unsplit(x[:, None], y.long(), x_test[:, None], y_test.long())


def _cifar(kind: str, data_dir: Path) -> Images:
    made = _torchvision(kind)
    folder = data_dir / made.base_folder
    _fetch(made, data_dir, folder, made.train_list + made.test_list)
    parts = (made.train_list, made.test_list)
    (x, y), (x_test, y_test) = (_pickled(folder, files) for files in parts)
    return unsplit(x, y, x_test, y_test)


def _torchvision(kind: str) -> Any:
    """Torchvision's class of a set, which knows its files, where they are, and their checksums."""
    try:
        from torchvision import datasets
    except Exception as error:  # a torchvision of another build fails with an OSError or RuntimeError
        raise ImportError(f"{kind} needs torchvision ({error}): pip install 'snnlib[tasks]'") from error
    return getattr(datasets, kind)


def _fetch(made: Any, data_dir: Path, folder: Path, files: Sequence[Sequence[str]]) -> None:
    """Let torchvision download the set if a file is missing."""
    if all(_there(folder / name).exists() for name, _ in files):
        return
    try:
        made(str(data_dir), download=True)
    except Exception as error:  # no network, no permission, a broken mirror: all one to the user
        missing = [name for name, _ in files if not _there(folder / name).exists()]
        raise DataError(
            f"{made.__name__}: {', '.join(missing)} is not in {folder} and could not be downloaded"
        ) from error


def _there(path: Path) -> Path:
    """A file, or where its ``.gz`` is gone what was unpacked from it."""
    unpacked = path.with_suffix("")
    return unpacked if unpacked.exists() and not path.exists() else path


def _verified(path: Path, md5: str) -> bytes:
    """What is in a file, checked against its published checksum."""
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise DataError(
            f"{path} is damaged: its MD5 is not {md5} ({len(content)} bytes); delete it to fetch it anew"
        )
    return content


def _pickled(folder: Path, files: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
    """Images and labels of CIFAR's files, which are pickles: only what has the published checksum is opened."""
    images, labels = [], []
    for name, md5 in files:
        batch = pickle.loads(_verified(folder / name, md5), encoding="latin1")
        images.append(torch.from_numpy(np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32)))
        labels.append(torch.tensor(batch["labels"] if "labels" in batch else batch["fine_labels"]))
    return torch.cat(images), torch.cat(labels)


def _in_order(resources: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for part in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
        yield next((name, md5) for name, md5 in resources if name.startswith(part))


def _idx(path: Path, md5: str) -> Tensor:
    """An IDX file of bytes; for a gzipped one there is a published checksum, for an unpacked one none."""
    try:
        data = gzip.decompress(_verified(path, md5)) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    dims = data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else 0
    shape = [int.from_bytes(data[4 + 4 * d : 8 + 4 * d], "big") for d in range(dims)]
    values = np.frombuffer(data[4 + 4 * dims :], np.uint8)
    if dims not in (1, 3) or not 0 < len(values) == math.prod(shape):
        raise DataError(f"{path} is no IDX file of bytes: header {shape[:4]}, {len(values)} values")
    return torch.from_numpy(values.reshape(shape).copy())


def _from_npz(path: Path) -> Images:
    wanted = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in wanted:
                _check_size(file.zip, f"{name}.npy")
            arrays = {name: file[name] for name in wanted}
    except Exception as error:  # numpy raises a handful of kinds for what is no archive of plain arrays
        raise DataError(f"{path} is no .npz with the arrays {', '.join(wanted)}: {error}") from error
    x, x_test = (_as_images(path, name, arrays[name]) for name in ("x_train", "x_test"))
    y, y_test = (_as_labels(path, name, arrays[name]) for name in ("y_train", "y_test"))
    for part, images, labels in (("train", x, y), ("test", x_test, y_test)):
        if len(images) != len(labels):
            raise DataError(f"{path}: {len(images)} images but {len(labels)} labels in x_{part}, y_{part}")
    if x.shape[1:] != x_test.shape[1:]:
        raise DataError(f"{path}: x_train has images {list(x.shape[1:])}, x_test {list(x_test.shape[1:])}")
    if x.dtype != x_test.dtype:  # they are scaled by the range of x_train
        raise DataError(f"{path}: x_train holds {arrays['x_train'].dtype}, x_test {arrays['x_test'].dtype}")
    unknown = {*y_test.tolist()} - {*y.tolist()}
    if unknown:
        raise DataError(f"{path}: y_test has class {max(unknown)}, of which y_train has no image")
    if len(y) < 2 * FOLDS:
        raise DataError(f"{path}: {len(y)} training images are too few to set some aside for validation")
    return unsplit(x, y, x_test, y_test)


def _check_size(file: zipfile.ZipFile, name: str) -> None:
    """Refuse an array that says it is larger than what is there, before memory is taken for it."""
    with file.open(name) as array:
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read[np.lib.format.read_magic(array)](array)
        there = file.getinfo(name).file_size - array.tell()
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"{name} declares {dtype} of shape {list(shape)} and has {there} bytes")


def _as_images(path: Path, name: str, array: np.ndarray) -> Tensor:
    if array.ndim not in (3, 4) or array.size == 0:
        raise DataError(f"{path}: {name} must be [N, H, W] or [N, H, W, C], got shape {list(array.shape)}")
    if array.dtype != np.uint8 and array.dtype.kind not in "fiu":
        raise DataError(f"{path}: {name} must hold numbers, got {array.dtype}")
    array = array if array.ndim == 4 else array[..., None]
    if array.dtype != np.uint8:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise DataError(f"{path}: {name} holds a value that is not finite, or too large for float32")
    x = torch.from_numpy(np.ascontiguousarray(array))
    return x.permute(0, 3, 1, 2).contiguous()


def _as_labels(path: Path, name: str, array: np.ndarray) -> Tensor:
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.size == 0:
        raise DataError(f"{path}: {name} must be integers [N], got {array.dtype} of shape {list(array.shape)}")
    if int(array.min()) < 0:
        raise DataError(f"{path}: {name} counts classes from 0, got {int(array.min())}")
    if int(array.max()) > _MOST_CLASSES:
        raise DataError(f"{path}: {name} has class {int(array.max())}, at most {_MOST_CLASSES} are read")
    return torch.from_numpy(array.astype(np.int64))
