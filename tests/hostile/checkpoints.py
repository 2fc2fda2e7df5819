"""Checkpoints of strangers: what last.pt, best.pt and metrics.jsonl of a run may hold instead."""

import io
from collections.abc import Iterator
from copy import copy
from typing import Any

import torch

from tests.hostile.damage import Trap, damaged, repacked, trap

__all__ = ["checkpoints", "lies", "metrics_files", "packed"]

Case = tuple[str, Any]
"""A name and what is in the file: bytes, or what :func:`packed` makes them of. Most are never written."""
WRONG = (None, [], {}, "text", -1, 2**70, float("nan"), torch.zeros(3), torch.zeros(2, 2).to_sparse(), b"bytes")
"""What may stand where something else is meant."""


def packed(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    made = io.BytesIO()
    torch.save(content, made)
    return made.getvalue()


def checkpoints(whole: bytes) -> Iterator[Case]:
    """From a checkpoint that is whole those of another form; none of them can be gone on with."""
    yield from damaged(whole, 1, cuts=8, flips=0)
    yield "code", {"task": "mnist", "net": Trap()}
    yield "code_in_the_old_format", old_format({"task": "mnist", "net": Trap()})
    yield "code_in_its_pickle", repacked(whole, data__pkl=trap())
    yield "pickle_cut", repacked(whole, data__pkl=b"\x80\x02}")
    yield "no_pickle", repacked(whole, data__pkl=None)
    yield "storage_cut", repacked(whole, **{"data/0": b"\0\0\0\0"})
    yield "no_storage", repacked(whole, **{"data/0": None})
    content = torch.load(io.BytesIO(whole), weights_only=True)
    for kind in ([], "text", 3, {}, torch.zeros(2), None):
        yield f"a_{type(kind).__name__}_{kind!s:.8}", kind
    for place in places(content):
        for k, wrong in enumerate(wrong_for(place, content)):
            yield f"{named(place)}_is_{k}_{type(wrong).__name__}", replaced(content, place, wrong)
        if not optional(place):
            holder = copy(within(content, place[:-1]))
            holder.pop(place[-1])
            yield f"{named(place)}_is_missing", replaced(content, place[:-1], holder)


def lies(whole: bytes) -> Iterator[Case]:
    """From a checkpoint that is whole those in which all is of the right kind, and says what cannot be."""
    content = torch.load(io.BytesIO(whole), weights_only=True)
    for place in places(content):
        for name, wrong in untrue(place, within(content, place)):
            yield f"{named(place)}_is_{name}", replaced(content, place, wrong)
    yield "last_line_after_step", content | {"logged": content["step"] + 1}
    if "loops" not in content:
        return
    for version in ("0.0.1", "no\nversion", "9" * 100_000):
        yield f"version_{version:.5}", content | {"pytorch-lightning_version": version}
    for place in (("place", 0), ("place", 1), ("whole_epochs",), *counters(content)):
        for more in (1, 2**62):
            yield f"{named(place)}_is_{more}_more", replaced(content, place, within(content, place) + more)
    last = ("loops", "fit_loop", "epoch_loop.batch_progress", "is_last_batch")
    yield "last_batch", replaced(content, last, not within(content, last))
    for name in ("optimizer_states", "lr_schedulers", "ranks"):
        yield f"two_{name}", content | {name: content[name] * 2}


def untrue(place: tuple[Any, ...], value: Any) -> Iterator[tuple[str, Any]]:
    """Counts below zero, numbers that are none, and learning rates that no float32 holds or that climb."""
    if place[-1] == "best" or "figures" in place:  # may be anything
        return
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        yield "nan", torch.full_like(value, torch.nan)
    elif type(value) is int:
        yield "negative", -1
    elif isinstance(value, float):
        yield from (("nan", torch.nan), ("infinite", torch.inf))
    if place[-1] == "lr" or place[-2:-1] == ("base_lrs",):
        yield from (("huge", 1e300), ("negative", -1.0))


def counters(content: Any) -> Iterator[tuple[Any, ...]]:
    """The counters of Lightning from which it knows what is to be done."""
    loop = ("loops", "fit_loop")
    for progress in (("epoch_progress", "current"), ("epoch_loop.batch_progress", "current")):
        yield from ((*loop, *progress, name) for name in within(content, (*loop, *progress)))
    yield *loop, "epoch_loop.automatic_optimization.optim_progress", "optimizer", "step", "total", "completed"


def named(place: tuple[Any, ...]) -> str:
    return ".".join(map(str, place))


def replaced(content: Any, place: tuple[Any, ...], wrong: Any) -> Any:
    """The same content with something else at a place; the rest is shared with it."""
    if not place:
        return wrong
    changed = copy(content)
    changed[place[0]] = replaced(content[place[0]], place[1:], wrong)
    return changed


def old_format(content: Any) -> bytes:
    made = io.BytesIO()
    torch.save(content, made, _use_new_zipfile_serialization=False)
    return made.getvalue()


def within(content: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        content = content[key]
    return content


def places(content: Any) -> list[tuple[Any, ...]]:
    """Where something can be wrong: the parts of a checkpoint, and in each some of what is in it."""
    found: list[tuple[Any, ...]] = []

    def look(value: Any, place: tuple[Any, ...]) -> None:
        if place and not skipped(place):
            found.append(place)
        keys: list[Any] = []
        if isinstance(value, dict):
            keys = list(value)
            if len(keys) > 6 and all(isinstance(inner, torch.Tensor) for inner in value.values()):
                keys = keys[:1] + keys[-1:]
            if place and place[-1] in ("state",):
                keys = keys[:1]
        elif isinstance(value, list) and len(value) < 8:
            keys = list(range(len(value)))
        for key in keys:
            look(value[key], (*place, key))

    look(content, ())
    return found


def skipped(place: tuple[Any, ...]) -> bool:
    """What is taken from the flags, or may be anything: the numbers of another Lightning."""
    if "param_groups" in place and (place[-1] not in ("param_groups", "lr", 0) or "params" in place):
        return True
    if place[-1] == "cuda":  # looked at where there is a GPU
        return True
    return place in [("epoch",), ("global_step",), ("pytorch-lightning_version",), ("loops",)] or (
        "validate_loop" in place or "test_loop" in place or "predict_loop" in place or "state_dict" in place[1:]
    )


def optional(place: tuple[Any, ...]) -> bool:
    """What may be missing: which data it was, the state of what is not trained, a figure, one of a list."""
    return place == ("data",) or place[-2:-1] in [("state",), ("figures",), ("probability",)]


def wrong_for(place: tuple[Any, ...], content: Any) -> list[Any]:
    """Of :data:`WRONG` three, what is no mistake at this place left out."""
    value = within(content, place)
    free = value is None or place[-1] == "best"  # what is a number or nothing, and an order or nothing

    def mistake(wrong: Any) -> bool:
        if place[-1] == "stopping_reason_message":
            return not isinstance(wrong, str | None)
        if type(wrong) in (int, float) and wrong != 2**70:
            return not free and type(value) not in (int, float)
        if wrong is None or (free and isinstance(wrong, torch.Tensor)):
            return not free
        return isinstance(wrong, torch.Tensor) or wrong == 2**70 or type(wrong) is not type(value)

    kept = [wrong for wrong in WRONG if mistake(wrong)]
    first = sum(map(ord, str(place)))
    return [kept[(first + 3 * k) % len(kept)] for k in range(2)]


def metrics_files(whole: bytes) -> Iterator[Case]:
    """metrics.jsonl that is none."""
    first = whole.splitlines(keepends=True)[0]
    lines: dict[str, bytes] = {
        "text": b"no json\n",
        "list": b"[1]\n",
        "number": b"1\n",
        "null": b"null\n",
        "no_step": b'{"epoch": 1}\n',
        "step_is_text": b'{"step": "1"}\n',
        "step_is_null": b'{"step": null}\n',
        "step_is_a_list": b'{"step": [1]}\n',
        "figure_is_text": b'{"step": 0, "epoch": "one"}\n',
        "nested": b"[" * 100_000 + b"\n",
        "digits": b'{"step": ' + b"9" * 10_000 + b"}\n",
        "no_utf8": b'{"step": \xff\xfe}\n',
        "zeros": bytes(100) + b"\n",
        "two_on_a_line": first.strip() * 2 + b"\n",
        "pickle": trap() + b"\n",
        "cut_in_the_middle": first[: len(first) // 2] + b"\n",
    }
    yield from ((name, line + first) for name, line in lines.items())
