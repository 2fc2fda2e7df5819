"""N-MNIST by tonic: generated files in its format, where tonic looks for them, without a network."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from snnlib.dataset import DataError
from snnlib.dataset.events import load_nmnist
from tests.task.command import inside

tonic = pytest.importorskip("tonic", reason="tonic is not installed: pip install -e '.[events]'")
STEPS = 5


def recording(digit: int, random: np.random.Generator) -> np.ndarray:
    """300 events of five bytes: x, y, polarity and 23 bits of time in µs; a digit has rows of its own."""
    t = np.sort(random.integers(0, 300_000, 300))
    x, p = random.integers(0, 34, 300), random.integers(0, 2, 300)
    y = 11 * digit + random.integers(0, 6, 300)
    return np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], 1).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    random = np.random.default_rng(0)
    for part, count in (("Train", 48), ("Test", 12)):
        for n in range(count):
            path = tmp_path / "NMNIST" / part / str(n % 3) / f"{n:05d}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            recording(n % 3, random).tofile(path)
        (tmp_path / "NMNIST" / f"{part.lower()}.zip").touch()
    # tonic wants 10,000 files before it believes that an archive was unpacked
    monkeypatch.setattr(tonic.datasets.NMNIST, "_folder_contains_at_least_n_files_of_type", lambda *_: True)
    return tmp_path


def test_events_become_spikes(folder: Path):
    data = load_nmnist(folder, STEPS)
    assert data.x_train.shape[1:] == (STEPS, 2, 34, 34)
    assert (len(data.y_train), len(data.y_valid), len(data.y_test), data.classes) == (44, 4, 12, 3)
    assert data.shape == (2, 34, 34)
    assert data.y_test.bincount().tolist() == [4, 4, 4]
    spikes = data.scaled(data.x_test)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    # the rows of a digit, in every step, and of both polarities
    for x, digit in zip(spikes, data.y_test.tolist(), strict=True):
        assert (x[..., 11 * digit : 11 * digit + 6, :].sum((2, 3)) > 0).all()
        assert x.sum() == x[..., 11 * digit : 11 * digit + 6, :].sum()
    raw = np.fromfile(folder / "NMNIST" / "Test" / "0" / "00000.bin", np.uint8).reshape(-1, 5).astype(int)
    t = (raw[:, 2] & 127) << 16 | raw[:, 3] << 8 | raw[:, 4]
    width = (t[-1] - t[0]) // STEPS
    first = raw[t < t[0] + width]
    assert data.x_test[0, 0].sum() == len({(x, y, p >> 7) for x, y, p in first[:, :3]})


def test_missing_files_end_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def offline(_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(tonic.datasets.NMNIST, "download", offline)
    with pytest.raises(DataError, match=r"train\.zip and its files are not in .*NMNIST"):
        load_nmnist(tmp_path, STEPS)


def test_a_missing_tonic_ends_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tonic", None)
    with pytest.raises(ImportError, match=r"nmnist needs tonic .*pip install 'snnlib\[events\]'"):
        load_nmnist(tmp_path, STEPS)


SMALL = (
    "--dataset=nmnist",
    "--data_dir=.",
    f"--seq_length={STEPS}",
    "--device=cpu",
    "--channels=8",
    "--hidden_size=32",
)


@pytest.mark.parametrize("task", ["mnist", "mnist_pl"])
def test_tasks_learn_from_events(task: str, folder: Path):
    """In this process, where tonic was told that the few files are all."""
    module = importlib.import_module(f"snnlib.task.{task}")
    accelerator = ("--accelerator=cpu",) if task == "mnist_pl" else ()
    small = tuple(flag for flag in SMALL if task == "mnist" or flag != "--device=cpu")
    training = ("--epochs=6", "--batch_size=8", "--learning_rate=0.02", "--clip_grad=1")
    figures = inside(module, task, *small, *accelerator, *training, cwd=folder)
    assert figures["dataset"] == "nmnist"
    assert figures["test_accuracy"] > 0.6  # chance is a third
    assert (figures["run"] / "sample.png").exists()


def test_spikes_are_not_encoded_again(folder: Path):
    module = importlib.import_module("snnlib.task.mnist")
    with pytest.raises(SystemExit):
        inside(module, "mnist", *SMALL, "--encoder=poisson", cwd=folder)
