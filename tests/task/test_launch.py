"""Tasks that are called from Python, as in a notebook: one run leaves nothing to the next."""

import json
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from snnlib.task import _run, mnist, mnist_pl
from snnlib.task._launch import launch


@pytest.mark.parametrize("task", ["mnist", "mnist_pl"])
@pytest.mark.parametrize("ends", ["well", "stopped"])
def test_a_second_run_begins_as_the_first_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], task: str, ends: str
):
    module = {"mnist": mnist, "mnist_pl": mnist_pl}[task]
    monkeypatch.chdir(tmp_path)

    def main(*flags: str) -> None:
        monkeypatch.setattr(sys, "argv", ["notebook", "--fast", "--noplot", "--epochs=1", *flags])
        launch(module.FLAGS, task, module.train, "usage", prepare=mnist.prepare)

    def mine(number: int, frame: object) -> None: ...

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, mine) for number in numbers]
    try:
        with monkeypatch.context() as patch:
            patch.setattr(_run.Run, "stopping", ends == "stopped")
            with pytest.raises(SystemExit) if ends == "stopped" else nullcontext():
                main("--seed=7", "--hidden_size=5", "--batch_size=9")
        assert [signal.getsignal(number) for number in numbers] == [mine, mine]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    capsys.readouterr()
    began = time.perf_counter()
    main()
    taken = time.perf_counter() - began
    figures = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("result: "))
    assert figures["seed"] == 0
    assert 0 < figures["seconds"] <= taken + 0.05  # it is rounded
    kept = (tmp_path / figures["run"] / "flags.txt").read_text().splitlines()
    assert {"--hidden_size=256", "--batch_size=32", "--seed=0"} <= {*kept}
