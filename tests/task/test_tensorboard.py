"""TensorBoard, started as a person does, shows a finished run: figures over the steps, and what was drawn."""

import io
import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from snnlib.task import mnist
from tests.task.command import inside, metrics

FAST = ("--fast", "--channels=4,8", "--hidden_size=16", "--seq_length=3", "--plot")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run that ended, went on for another epoch, and then was asked for once more: each time it draws."""
    root = tmp_path_factory.mktemp("shown")
    made: Path = inside(mnist, "mnist", *FAST, "--epochs=1", cwd=root)["run"]
    for _ in range(2):
        inside(mnist, "mnist", f"--resume={made}", "--epochs=2", cwd=root)
    return made


class Served:
    """What a TensorBoard on this machine answers."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        found = (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in process.stderr)
        self.root = next(address.group() for address in found if address)

    def raw(self, path: str) -> bytes:
        straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with straight.open(f"{self.root}data/plugin/{path}", timeout=10) as answer:
            return answer.read()

    def __call__(self, path: str, **query: Any) -> Any:
        return json.loads(self.raw(f"{path}?{urllib.parse.urlencode(query)}"))


# the reader that it takes by itself, a process of its own, and the one in Python
@pytest.fixture(params=["--load_fast=auto", "--load_fast=false"])
def served(request: pytest.FixtureRequest, folder: Path) -> Iterator[Served]:
    line = [sys.executable, "-m", "tensorboard.main", f"--logdir={folder.parents[1]}", request.param]
    process = subprocess.Popen(
        [*line, "--host=127.0.0.1", "--port=0"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        yield Served(process)
    finally:
        process.terminate()
        process.communicate(timeout=10)


def test_it_shows_figures_and_pictures_of_a_run_once(served: Served, folder: Path):
    name = str(folder.relative_to(folder.parents[1]))
    lines = metrics(folder)
    assert [line["epoch"] for line in lines] == [1, 2]
    tags = served("scalars/tags")
    assert tags.keys() == {name}
    assert tags[name].keys() == {*lines[0].keys(), "epoch_seconds"} - {"step"}
    for tag in ("train_loss", "valid_accuracy"):
        shown = served("scalars/scalars", run=name, tag=tag)
        assert [step for _, step, _ in shown] == [line["step"] for line in lines]
        assert [value for _, _, value in shown] == pytest.approx([line[tag] for line in lines])
    assert served("images/tags")[name].keys() == {"curve", "sample"}
    for tag in ("curve", "sample"):
        *before, shown = served("images/images", run=name, tag=tag, sample=0)
        # the quick reader keeps what was drawn after the first epoch, before the run went on
        assert [image["step"] for image in before] in ([], [lines[0]["step"] + 1])
        assert shown["step"] == lines[1]["step"] + 1
        picture = served.raw(f"images/individualImage?{shown['query']}")
        assert_same_picture(picture, (folder / f"{tag}.png").read_bytes())


def assert_same_picture(first: bytes, second: bytes) -> None:
    one, other = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in (first, second))
    assert one.shape[0] > 100
    assert one.std() > 10  # something is drawn
    np.testing.assert_array_equal(one, other)
