"""What is done to any file: cut short, bits turned, replaced by what is none; and code that must not run."""

import io
import os
import pickle
import random
import zipfile
from collections.abc import Iterator
from typing import Any

__all__ = ["TRIPWIRE", "Trap", "damaged", "repacked", "trap"]

TRIPWIRE = "tripped"
"""The file that code in an input makes where it runs, in the folder that the process is in."""


class Trap:
    """A value whose pickle has code in it."""

    def __reduce__(self) -> Any:
        return os.open, (TRIPWIRE, os.O_CREAT)


def trap(protocol: int = 2) -> bytes:
    return pickle.dumps({"task": "mnist", "net": Trap()}, protocol)


def damaged(content: bytes, seed: int, cuts: int, flips: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents: ``cuts`` that end early, ``flips`` with some bits turned, files of other kinds."""
    chance = random.Random(seed)
    for k in range(cuts):
        yield f"cut_{k}", content[: len(content) * k // cuts]
    for k in range(flips):
        broken = bytearray(content)
        for _ in range(chance.choice((1, 3, 30))):
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        yield f"flip_{k}", bytes(broken)
    yield from (
        ("text", b"no such file\n"),
        ("zeros", bytes(1000)),
        ("zip", b"PK\x05\x06" + bytes(18)),
        ("pickle_2", trap(2)),
        ("pickle_4", trap(4)),
        ("pickle_0", trap(0)),
    )


def repacked(content: bytes, **members: bytes | None) -> bytes:
    """A zip archive with other members, found by how their names end (__ is a dot); None leaves one out."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for info in old.infolist():
            fits = [end for end in members if info.filename.endswith(end.replace("__", "."))]
            inside = members[fits[0]] if fits else old.read(info)
            if inside is not None:
                new.writestr(info.filename, inside)
    return made.getvalue()
