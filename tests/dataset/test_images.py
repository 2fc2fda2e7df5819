"""The image sets: real digits and MNIST, generated ones, a person's own, and what is refused."""

import gzip
import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from snnlib.dataset import DataError, Images, generated_images, load_images, random_affine


def rows(x: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in x}


def check_splits(data: Images) -> None:
    for x, y in ((data.x_train, data.y_train), (data.x_valid, data.y_valid), (data.x_test, data.y_test)):
        assert len(x) == len(y) > 0
        assert y.dtype == torch.int64
        assert 0 <= int(y.min()) <= int(y.max()) < data.classes


def test_digits_are_all_there_and_split_without_overlap():
    data = load_images("digits", "")
    check_splits(data)
    assert data.shape == (1, 8, 8)
    assert data.classes == 10
    assert len(data.y_test) == 360
    assert len(data.y_train) + len(data.y_valid) == 1437
    from sklearn.datasets import load_digits

    assert len(rows(data.x_train) | rows(data.x_valid) | rows(data.x_test)) == len(
        {image.astype(np.uint8).tobytes() for image in load_digits().images}
    )
    assert not rows(data.x_train) & rows(data.x_test)
    assert not rows(data.x_train) & rows(data.x_valid)
    assert float(data.scaled(data.x_train).max()) == 1.0
    for y in (data.y_valid, data.y_test):  # every class has its share
        assert int(y.bincount().min()) >= len(y) // 10 - 2


def test_folds_share_no_image_and_cover_the_training_set():
    folds = [load_images("digits", "", fold) for fold in range(12)]
    sizes = [len(data.y_valid) for data in folds]
    assert sum(sizes) == 1437
    assert len(set().union(*(rows(data.x_valid) for data in folds))) >= 1437 - 5  # a few digits occur twice
    assert all(torch.equal(data.x_test, folds[0].x_test) for data in folds)
    with pytest.raises(ValueError, match="fold must be from 0 to 11, got 12"):
        load_images("digits", "", 12)


def test_digits_split_does_not_depend_on_the_seed():
    torch.manual_seed(1)
    first = load_images("digits", "")
    torch.manual_seed(2)
    assert torch.equal(first.x_test, load_images("digits", "").x_test)


def test_mnist_is_read_from_its_original_files(mnist_dir: Path):
    data = load_images("mnist", mnist_dir)
    check_splits(data)
    assert data.shape == (1, 28, 28)
    assert (len(data.y_train), len(data.y_valid), len(data.y_test)) == (55000, 5000, 10000)
    # facts of the files: the first test image is a 7, and the labels of the test set are 980 zeros ...
    assert int(data.y_test[0]) == 7
    assert data.y_test.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.x_train.dtype == torch.uint8
    assert abs(float(data.x_train.float().mean()) / 255 - 0.1307) < 1e-3


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_file_is_found_by_its_checksum_and_named(mnist_dir: Path, tmp_path: Path, damage: str):
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(mnist_dir / "MNIST" / "raw", raw, copy_function=shutil.copyfile)
    raw.chmod(0o755)
    path = raw / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        content = content[:1000]
    else:
        content[2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is damaged"):
        load_images("mnist", tmp_path)


@pytest.mark.parametrize(("name", "kind"), [("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")])
def test_its_kin_are_read_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str):
    """Files made here in the place of the originals, whose checksums torchvision's list has; then unpacked."""
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
    raw = tmp_path / kind / "raw"
    raw.mkdir(parents=True)
    rng, resources = np.random.default_rng(0), []
    for file, _ in getattr(datasets, kind).resources:
        count = 120 if file.startswith("train") else 20
        shape = (count, 28, 28) if "images" in file else (count,)
        values = rng.integers(0, 10, shape, dtype=np.uint8)
        header = b"\0\0\x08" + bytes([len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        packed = gzip.compress(header + values.tobytes())
        (raw / file).write_bytes(packed)
        resources.append((file, hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(getattr(datasets, kind), "resources", resources)
    data = load_images(name, tmp_path)
    check_splits(data)
    assert (len(data.y_train) + len(data.y_valid), len(data.y_test)) == (120, 20)
    for path in [*raw.iterdir()]:
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    unpacked = load_images(name, tmp_path)
    assert torch.equal(unpacked.x_train, data.x_train)
    assert torch.equal(unpacked.y_test, data.y_test)


def test_reading_mnist_writes_nothing(mnist_dir: Path):
    before = sorted(str(p) for p in mnist_dir.rglob("*"))
    load_images("mnist", mnist_dir)
    assert sorted(str(p) for p in mnist_dir.rglob("*")) == before


def write_npz(path: Path, **changes) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8),
        "y_train": np.arange(40) % 4,
        "x_test": rng.integers(0, 256, (8, 6, 5, 3), dtype=np.uint8),
        "y_test": np.arange(8) % 4,
    }
    arrays |= changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_own_images_of_any_size_and_type(tmp_path: Path):
    data = load_images(str(write_npz(tmp_path / "a.npz")), "")
    check_splits(data)
    assert data.shape == (3, 6, 5)
    assert data.classes == 4
    grey = {
        name: np.random.default_rng(1).normal(3, 2, (n, 9, 9)) for name, n in (("x_train", 40), ("x_test", 8))
    }
    data = load_images(str(write_npz(tmp_path / "b.npz", **grey)), "")
    assert data.shape == (1, 9, 9)
    scaled = data.scaled(torch.cat([data.x_train, data.x_valid]))
    assert float(scaled.min()) == 0.0
    assert float(scaled.max()) == 1.0


def test_the_images_that_train_alone_say_what_is_black_and_white(tmp_path: Path):
    x = np.zeros((40, 3, 3))
    x += np.arange(40).reshape(40, 1, 1)
    path = str(write_npz(tmp_path / "a.npz", x_train=x, x_test=x[:8] - 1000))
    for fold in range(12):
        data = load_images(path, "", fold)
        assert (data.low, data.high) == (float(data.x_train.min()), float(data.x_train.max()))
    validated = [float(load_images(path, "", fold).x_valid.max()) for fold in range(12)]
    assert 39.0 in validated  # what is not white


def test_the_only_image_of_a_class_trains_whatever_validates(tmp_path: Path):
    path = str(write_npz(tmp_path / "a.npz", y_train=np.maximum(np.arange(40) - 30, 0)))
    for fold in range(12):
        data = load_images(path, "", fold)
        assert {*data.y_train.tolist()} == {*range(10)}
        assert {*data.y_valid.tolist()} == {0}
        assert len(data.y_train) + len(data.y_valid) == 40


def test_scaled_is_from_black_to_white_and_no_further():
    data = generated_images()._replace(low=0.0, high=2.0)
    assert data.scaled(torch.tensor([-1.0, 1.0, 5.0])).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"x_train": None}, "x_train"),
        ({"x_train": np.zeros((40, 6), np.uint8)}, r"x_train must be .* got shape \[40, 6\]"),
        ({"y_train": np.zeros(39, int)}, "40 images but 39 labels"),
        ({"y_train": np.zeros(40)}, "y_train must be integers"),
        ({"y_train": np.full(40, -1)}, "counts classes from 0, got -1"),
        ({"y_test": np.full(8, 9)}, "y_test has class 9, of which y_train has no image"),
        ({"y_train": np.arange(40) % 4 * 2, "y_test": np.full(8, 3)}, "y_test has class 3, of which y_train"),
        ({"y_train": np.arange(40)}, "of no class are there enough training images"),
        ({"x_test": np.zeros((8, 6, 6, 3), np.uint8)}, "x_test"),
        ({"x_train": np.full((40, 6, 5), np.nan), "x_test": np.zeros((8, 6, 5))}, "not finite"),
        ({"x_train": np.array([{}] * 40, dtype=object)}, "x_train"),
        ({"x_test": np.zeros((8, 6, 5, 3), np.float32)}, "x_train holds uint8, x_test float32"),
        ({"x_train": np.ones((40, 6, 5)), "x_test": np.zeros((8, 6, 5))}, "every value of x_train is 1"),
        (
            {
                "x_train": np.zeros((9, 6, 5, 3), np.uint8),
                "y_train": np.zeros(9, int),
                "y_test": np.zeros(8, int),
            },
            "9 training images are too few",
        ),
    ],
)
def test_bad_archives_are_refused_with_a_reason(tmp_path: Path, changes: dict, says: str):
    path = write_npz(tmp_path / "bad.npz", **changes)
    with pytest.raises(DataError, match=says) as error:
        load_images(str(path), "")
    assert "bad.npz" in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"PK\x03\x04 cut off", id="zip cut off"),
        pytest.param(b"\x80\x04cos\nsystem\n", id="pickle"),
        pytest.param(gzip.compress(b"no"), id="gzip"),
    ],
)
def test_a_file_that_is_no_archive(tmp_path: Path, content: bytes):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npz"):
        load_images(str(path), "")


def test_unknown_name():
    with pytest.raises(DataError, match="no_such_set: no such file, and none of mnist"):
        load_images("no_such_set", "")


def test_generated_images_differ_between_the_splits():
    data = generated_images()
    check_splits(data)
    assert not rows(data.x_train) & rows(data.x_test)


@pytest.mark.parametrize("classes", [0, 5])
def test_a_generated_image_has_four_quarters_for_its_class(classes):
    with pytest.raises(ValueError, match=f"classes must be from 1 to 4, got classes={classes}"):
        generated_images(classes=classes)


def test_random_affine_moves_at_most_by_its_bounds():
    torch.manual_seed(0)
    x = torch.zeros(64, 1, 9, 9)
    x[:, :, 4, 4] = 1.0
    still = random_affine(x, shift=0.0, rotation=0.0, scale=0.0)
    torch.testing.assert_close(still, x, atol=1e-5, rtol=0)
    moved = random_affine(x, shift=2.0 / 9, rotation=0.0, scale=0.0)
    torch.testing.assert_close(moved.sum((1, 2, 3)), torch.ones(64))  # bilinear: mass is kept inside the image
    where = torch.arange(9.0)
    centre = torch.stack([(moved.sum(2)[:, 0] * where).sum(1), (moved.sum(3)[:, 0] * where).sum(1)])
    assert float((centre - 4).abs().max()) <= 2.0 + 1e-4
    assert float((centre - 4).min()) < -1.5
    assert float((centre - 4).max()) > 1.5
    assert float(centre.std()) > 0.5


def test_random_affine_of_no_image():
    assert random_affine(torch.zeros(0, 1, 9, 9)).shape == (0, 1, 9, 9)


def test_random_affine_turns_about_the_centre():
    torch.manual_seed(0)
    x = torch.zeros(64, 1, 21, 21)
    x[:, :, 10, 16] = 1.0  # six pixels right of the centre
    turned = random_affine(x, shift=0.0, rotation=0.5, scale=0.0)
    rows_, columns = torch.arange(21.0) - 10, torch.arange(21.0) - 10
    total = turned.sum((1, 2, 3))
    dx = (turned.sum(2)[:, 0] * columns).sum(1) / total
    dy = (turned.sum(3)[:, 0] * rows_).sum(1) / total
    angle = torch.atan2(dy, dx)
    assert float(angle.abs().max()) <= 0.5 + 0.02
    assert float(angle.min()) < -0.4
    assert float(angle.max()) > 0.4
    torch.testing.assert_close(torch.hypot(dx, dy), torch.full((64,), 6.0), atol=0.15, rtol=0)


def test_random_affine_scales_both_ways():
    torch.manual_seed(0)
    x = torch.zeros(64, 1, 41, 41)
    x[:, :, 10:31, 10:31] = 1.0
    share = random_affine(x, shift=0.0, rotation=0.0, scale=0.2).sum((1, 2, 3)) / 21**2
    assert 1 / 1.2**2 - 0.03 < float(share.min()) < 0.8
    assert 1.3 < float(share.max()) < 1 / 0.8**2 + 0.03


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path, dict]:
    """Files as CIFAR's, made here: 40 training and 20 test images, whose checksums torchvision's lists hold."""
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
    made = getattr(datasets, request.param.upper())
    folder = tmp_path / made.base_folder
    folder.mkdir()
    rng, wanted = np.random.default_rng(0), {}
    for part, count in (("train_list", 40), ("test_list", 20)):
        files, images, labels = getattr(made, part), [], []
        for name, _ in files:
            x = rng.integers(0, 256, (count // len(files), 3072), dtype=np.uint8)
            y = (rng.permutation(len(x)) % 4).tolist()
            keys = (
                {"fine_labels": y, "coarse_labels": [0] * len(y)} if "100" in request.param else {"labels": y}
            )
            (folder / name).write_bytes(pickle.dumps({"data": x, **keys}))
            images.append(x)
            labels += y
        files = [[name, hashlib.md5((folder / name).read_bytes()).hexdigest()] for name, _ in files]
        monkeypatch.setattr(made, part, files)
        wanted[part] = np.concatenate(images), labels
    return request.param, folder, wanted


def test_cifar_is_read_from_its_original_files(cifar: tuple[str, Path, dict]):
    name, folder, wanted = cifar
    data = load_images(name, folder.parent)
    check_splits(data)
    assert data.shape == (3, 32, 32)
    x, y = wanted["test_list"]
    assert data.y_test.tolist() == y
    # a row is red, then green, then blue, each line by line
    assert data.x_test[3, 1, 2, 5] == x[3, 1024 + 2 * 32 + 5]
    both = rows(data.x_train) | rows(data.x_valid)
    assert both == {image.tobytes() for image in wanted["train_list"][0]}
    assert data.classes == max(wanted["train_list"][1]) + 1


def test_a_pickle_that_is_not_the_published_one_is_not_opened(cifar: tuple[str, Path, dict], tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    name, folder, _ = cifar
    path = min(folder.iterdir())
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=f"{path.name} is damaged"):
        load_images(name, folder.parent)
    assert not (tmp_path / "ran").exists()
