"""Images from strangers: .npz files, and the files of MNIST."""

import hashlib
from pathlib import Path

import pytest

from snnlib.dataset import DataError, load_images
from tests.hostile import arrays
from tests.hostile.attack import Attack, told
from tests.hostile.damage import damaged, trap


def test_arrays_of_images(tmp_path: Path):
    attack, path = Attack(tmp_path), tmp_path / "images.npz"
    for name, content in arrays.npz_files():
        path.write_bytes(content)
        attack.case(name, lambda: told(lambda: load_images(str(path), ""), DataError))
    for name, content in damaged(arrays.npz(), 8, cuts=0, flips=60):
        path.write_bytes(content)
        attack.case(name, lambda: told(lambda: load_images(str(path), ""), DataError), may_pass=True)
    attack.end(180)


def test_the_files_of_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the checksum of what is read in the place of the published one."""
    from torchvision.datasets import MNIST

    attack, raw, whole = Attack(tmp_path), tmp_path / "MNIST" / "raw", arrays.whole_idx()
    raw.mkdir(parents=True)

    def write(**other: bytes) -> None:
        resources = []
        for name, _ in MNIST.resources:
            content = next(c for begin, c in (whole | other).items() if name.startswith(begin))
            (raw / name).write_bytes(content)
            resources.append((name, hashlib.md5(content).hexdigest()))
        monkeypatch.setattr(MNIST, "resources", resources)

    write()
    assert len(load_images("mnist", tmp_path).y_test) == 30
    for name, content in arrays.idx_files():
        for part in ("train-labels", "t10k-images"):
            write(**{part: content})
            attack.case(f"{name}_{part}", lambda: told(lambda: load_images("mnist", tmp_path), DataError))
    write()
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(trap())
    attack.case("a_checksum", lambda: told(lambda: load_images("mnist", tmp_path), DataError))
    attack.end(45)
