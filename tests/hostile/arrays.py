"""Images of strangers: an .npz and the IDX files of MNIST, and what they may hold instead."""

import gzip
import io
import struct
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.hostile.damage import Trap, damaged, repacked

__all__ = ["idx_files", "npz", "npz_files", "whole_idx"]

Case = tuple[str, bytes]


def npz(**changes: Any) -> bytes:
    """Images that can be trained with, and what is changed of them; None leaves an array out."""
    chance = np.random.default_rng(0)
    arrays = {
        "x_train": chance.integers(0, 256, (30, 4, 4), dtype=np.uint8),
        "y_train": np.arange(30) % 3,
        "x_test": chance.integers(0, 256, (6, 4, 4), dtype=np.uint8),
        "y_test": np.arange(6) % 3,
    } | changes
    made = io.BytesIO()
    np.savez(made, **{name: value for name, value in arrays.items() if value is not None})
    return made.getvalue()


def npy(descr: str, shape: str, values: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An array with any header."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + values


def npz_files() -> Iterator[Case]:
    """Names and contents, none of which is a set of images."""
    whole = npz()
    yield from ((name, content) for name, content in damaged(whole, 2, cuts=12, flips=0))
    for name in ("x_train", "y_train", "x_test", "y_test"):
        images = name.startswith("x")
        count, shape = (30 if "train" in name else 6), ((4, 4) if images else ())
        yield f"{name}_is_missing", npz(**{name: None})
        for kind, dtype in (
            ("objects", object),
            ("text", "U3"),
            ("bytes", "S3"),
            ("dates", "M8[s]"),
            ("bool", bool),
        ):
            yield f"{name}_holds_{kind}", npz(**{name: np.zeros((count, *shape)).astype(dtype)})
        yield f"{name}_holds_code", npz(**{name: np.array([Trap()] * count, dtype=object)})
        yield f"{name}_holds_complex", npz(**{name: np.zeros((count, *shape), complex)})
        yield f"{name}_holds_records", npz(**{name: np.zeros((count, *shape), [("a", int)])})
        yield f"{name}_is_empty", npz(**{name: np.zeros((0, *shape), np.uint8)})
        yield f"{name}_is_a_number", npz(**{name: np.uint8(1)})
        yield f"{name}_is_shorter", npz(**{name: np.zeros((count - 1, *shape), np.uint8)})
        yield f"{name}_has_five_dimensions", npz(**{name: np.zeros((count, *shape, 1, 1, 1), np.uint8)})
        member = {f"{name}__npy": b""}
        headers = {
            "huge": npy("'|u1'", "(1000000000000, 4, 4)"),
            "huge_floats": npy("'<f8'", "(30, 100000, 100000)"),
            "overflowing": npy("'|u1'", f"({2**62}, 16)"),
            "endless": npy("'|u1'", f"({10**40},)"),
            "negative": npy("'|u1'", "(-30, 4, 4)"),
            "code": npy("'|u1'", "(__import__('os').open('tripped', 64),)"),
            "deep": npy("'|u1'", "(" * 3000 + ")" * 3000),
            "no_shape": npy("'|u1'", "'text'"),
            "no_type": npy("'no'", "(30, 4, 4)"),
            "objects": npy("'|O'", "(30,)", b"cos\nopen\n(Vtripped\nI64\ntR."),
            "large_items": npy("'|V2000000000'", "(30, 4, 4)"),
            "version_9": npy("'|u1'", "(30, 4, 4)", bytes(480), b"\x09\x00"),
            "no_header": b"\x93NUMPY",
            "nothing": b"",
        }
        for told, content in headers.items():
            member[f"{name}__npy"] = content
            yield f"{name}_header_is_{told}", repacked(whole, **member)
    for told, value in (("negative", -1), ("huge", 2**40), ("beyond_int64", 2**64 - 1), ("large", 10**9)):
        labels = np.zeros(30, np.uint64 if value > 0 else np.int64)
        labels[3] = value if value > 0 else 0
        labels = labels if value > 0 else labels - (np.arange(30) == 3)
        yield f"labels_are_{told}", npz(y_train=labels)
        yield f"test_labels_are_{told}", npz(y_test=labels[:6])
    yield "labels_are_floats", npz(y_train=np.zeros(30))
    yield "labels_are_two_dimensional", npz(y_train=np.zeros((30, 1), int))
    for told, value in (("nan", np.nan), ("inf", np.inf), ("beyond_float32", 1e300)):
        yield f"pixels_are_{told}", npz(x_train=np.full((30, 4, 4), value))
        yield (
            f"test_pixels_are_{told}",
            npz(x_train=np.random.default_rng(0).random((30, 4, 4)), x_test=np.full((6, 4, 4), value)),
        )
    yield "all_pixels_are_one", npz(x_train=np.ones((30, 4, 4)))
    yield "images_have_no_width", npz(x_train=np.zeros((30, 4, 0), np.uint8))
    yield "images_of_two_sizes", npz(x_test=np.zeros((6, 5, 4), np.uint8))
    few = {"x_train": np.zeros((3, 4, 4), np.uint8), "y_train": np.zeros(3, int)}
    yield "few_images", npz(**few)
    yield "one_array", whole_npy()
    yield "two_of_a_name", twice(whole)


def whole_npy() -> bytes:
    made = io.BytesIO()
    np.save(made, np.zeros((30, 4, 4), np.uint8))
    return made.getvalue()


def twice(whole: bytes) -> bytes:
    """An archive whose second y_train, the one that counts, holds text."""
    made = io.BytesIO(whole)
    with zipfile.ZipFile(made, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("y_train.npy", b"text")
    return made.getvalue()


def idx(shape: tuple[int, ...], values: bytes, magic: bytes = b"\0\0\x08", dims: int | None = None) -> bytes:
    sizes = b"".join(struct.pack(">I", size) for size in shape)
    return magic + bytes([len(shape) if dims is None else dims]) + sizes + values


def whole_idx() -> dict[str, bytes]:
    """The four files of a small MNIST, by how their names begin."""
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8).tobytes()
    labels = bytes(k % 10 for k in range(30))
    return {
        f"{part}-{kind}": gzip.compress(
            idx((30, 28, 28), images) if kind == "images" else idx((30,), labels), 1
        )
        for part in ("train", "t10k")
        for kind in ("images", "labels")
    }


def idx_files() -> Iterator[Case]:
    """Files in the place of MNIST's labels or images, as if their checksum were worth nothing."""
    whole = gzip.compress(idx((30,), bytes(30)), 1)
    yield from damaged(whole, 3, cuts=4, flips=0)
    told: dict[str, bytes] = {
        "nothing": b"",
        "short": b"\0\0",
        "no_sizes": idx((), b"", dims=3),
        "longer_than_it_is": idx((31,), bytes(30)),
        "shorter_than_it_is": idx((29,), bytes(30)),
        "huge": idx((2**32 - 1,), bytes(30)),
        "huge_images": idx((2**32 - 1, 2**32 - 1, 2**32 - 1), bytes(30)),
        "overflowing": idx((2**31, 2**31, 4), b""),
        "none_of_all": idx((0, 28, 28), b""),
        "dims_255": idx((1,) * 3, bytes(30), dims=255),
        "dims_0": idx((), bytes(30)),
        "floats": idx((30,), bytes(120), magic=b"\0\0\x0d"),
        "no_magic": idx((30,), bytes(30), magic=b"abc"),
    }
    yield from ((name, gzip.compress(content, 1)) for name, content in told.items())
