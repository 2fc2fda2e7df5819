"""Archives of clips by strangers, and recordings and lists in them that are none."""

import io
import struct
import tarfile
from collections.abc import Iterator

import numpy as np

from tests.hostile.damage import damaged

__all__ = ["FOLDER", "archives", "clips", "lists", "packed", "tree", "wav"]

Case = tuple[str, bytes]
FOLDER = "SpeechCommands/speech_commands_v0.02"
RATE = 16_000


def wav(samples: int = RATE, rate: int = RATE, channels: int = 1, **says: int) -> bytes:
    """A recording; ``says`` are fields of the header that say something else."""
    data = np.arange(samples * channels, dtype="<i2").tobytes()
    f = {"riff": 36 + len(data), "size": 16, "kind": 1, "channels": channels, "rate": rate, "bits": 16} | says
    block = f.get("block", f["channels"] * f["bits"] // 8) % 2**16
    head = struct.pack("<4sI4s4sI", b"RIFF", f["riff"], b"WAVE", b"fmt ", f["size"])
    head += struct.pack(
        "<HHIIHH", f["kind"], f["channels"], f["rate"], f["rate"] * block % 2**32, block, f["bits"]
    )
    return head + struct.pack("<4sI", b"data", f.get("data", len(data))) + data


def tree() -> dict[str, bytes]:
    """A set of clips, as small as one can be: two words, three speakers, a list for each split."""
    names = [f"{word}/{speaker:08x}_nohash_0.wav" for word in ("yes", "bed") for speaker in range(3)]
    made = {name: wav(200) for name in names}
    made["validation_list.txt"] = "".join(f"{name}\n" for name in names if "00000001" in name).encode()
    made["testing_list.txt"] = "".join(f"{name}\n" for name in names if "00000002" in name).encode()
    made["_background_noise_/hiss.wav"] = wav(8 * RATE)
    return {f"{FOLDER}/{name}": content for name, content in made.items()}


def packed(files: dict[str, bytes], *more: tarfile.TarInfo, mode: str = "w") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in more:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return made.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def archives() -> Iterator[Case]:
    """Names and contents of archives none of which may be unpacked."""
    whole = packed(dict(list(tree().items())[:3]), mode="w:gz")
    yield from ((name, content) for name, content in damaged(whole, 4, cuts=8, flips=0))
    out, inside = "../outside", f"{FOLDER}/yes/link"
    members = {
        "parent": member(out),
        "parent_below": member(f"{FOLDER}/../../../outside"),
        "absolute": member("/tmp/outside_of_snnlib/outside"),
        "many_parents": member("../" * 200 + "outside"),
        "device": member(inside, tarfile.CHRTYPE),
        "block_device": member(inside, tarfile.BLKTYPE),
        "fifo": member(inside, tarfile.FIFOTYPE),
        "link_out": member(inside, tarfile.SYMTYPE, "../../../../outside"),
        "link_absolute": member(inside, tarfile.SYMTYPE, "/etc/passwd"),
        "link_inside": member(inside, tarfile.SYMTYPE, "00000000_nohash_0.wav"),
        "link_to_itself": member(inside, tarfile.SYMTYPE, "link"),
        "hard_link_out": member(inside, tarfile.LNKTYPE, "../../../outside"),
        "hard_link_absolute": member(inside, tarfile.LNKTYPE, "/etc/passwd"),
        "hard_link_to_nothing": member(inside, tarfile.LNKTYPE, f"{FOLDER}/nothing"),
        "long_name": member("a/" * 3000),
        "no_utf8": member("\udcff/../../outside"),
    }
    for name, info in members.items():
        yield name, packed(tree(), info)
    first = member("SpeechCommands", tarfile.SYMTYPE, "/tmp")
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.addfile(first)
        tar.addfile(member(f"{FOLDER}/outside"))
    yield "a_link_then_through_it", made.getvalue()
    yield "no_folder", packed({"yes/a.wav": wav(10)})
    yield "a_file_as_folder", packed({FOLDER: b"text"})
    yield "nothing_in_it", packed({})
    raw = bytearray(packed(tree()))
    raw[124:136] = b"77777777777\0"  # the size of the first member
    yield "size_that_lies", bytes(raw)
    raw[124:136] = b"\xff" * 12
    yield "negative_size", bytes(raw)


def clips() -> Iterator[Case]:
    """Names and contents in the place of a clip."""
    yield from damaged(wav(200), 5, cuts=5, flips=0)
    yield "no_samples", wav(0)
    yield "stereo", wav(200, channels=2)
    yield "slow", wav(200, rate=8000)
    yield "says_no_channels", wav(200, channels=1, block=2)[:22] + b"\0\0" + wav(200)[24:]
    for name, says in (
        ("many_channels", {"channels": 65_535}),
        ("no_rate", {"rate": 0}),
        ("huge_rate", {"rate": 2**32 - 1}),
        ("no_bits", {"bits": 0, "block": 0}),
        ("longer_than_it_is", {"data": 402}),
        ("huge", {"data": 2**32 - 1}),
        ("huge_riff", {"riff": 2**32 - 1}),
        ("longer_riff", {"riff": 440}),
        ("none", {"data": 0}),
        ("unknown_kind", {"kind": 0x1234}),
        ("short_format", {"size": 2}),
        ("huge_format", {"size": 2**32 - 1}),
    ):
        yield name, wav(200, **says)
    # FLAC's 36 bits for the number of samples, 128 GB of them
    info = (
        struct.pack(">HH", 4096, 4096)
        + bytes(6)
        + ((RATE << 44) | (15 << 36) | (2**36 - 1)).to_bytes(8, "big")
        + bytes(16)
    )
    yield "flac_of_a_month", b"fLaC" + bytes([0x80]) + len(info).to_bytes(3, "big") + info
    # Sun's format, whose header says how long it is
    yield "au_with_a_huge_header", struct.pack(">4sIIIII", b".snd", 2**32 - 1, 100, 3, RATE, 1) + bytes(100)
    yield (
        "rf64",
        b"RF64" + b"\xff" * 4 + b"WAVEds64" + struct.pack("<IQQQI", 28, 2**63, 2**63, 2**62, 0) + wav(200)[12:],
    )


def lists() -> Iterator[Case]:
    """Names and contents in the place of testing_list.txt."""
    yield "nothing", b""
    yield "no_clip", b"yes/none.wav\n"
    yield "missing_clip", b"yes/00000009_nohash_0.wav\n"
    yield "unknown_word", b"xylophone/00000002_nohash_0.wav\n"
    yield "no_utf8", b"\xff\xfe\n"
    yield "a_null", b"yes/0000\x00002_nohash_0.wav\n"
    yield "long_name", b"yes/" + b"a" * 5000 + b"_nohash_0.wav\n"
    yield "parents", b"../../../yes/00000002_nohash_0.wav\n"
    yield "outside", b"../../../../../../../../tmp/yes/00000002_nohash_0.wav\n"
    yield "absolute", b"/tmp/yes/00000002_nohash_0.wav\n"
    yield "no_number", b"yes/00000002_nohash_x.wav\n"
    yield "a_folder", b"yes\n"
    yield "itself", b"testing_list.txt\n"
