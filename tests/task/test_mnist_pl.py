"""``python -m snnlib.task.mnist_pl`` as a process: one, two that train one net, stopped and gone on with."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from snnlib.task import _run, mnist_pl
from tests.task.command import (
    assert_wrote,
    checkpoint,
    inside,
    metrics,
    result,
    run,
)

FAST = ("--fast", "--noplot", "--epochs=1")


def test_a_fast_run_writes_its_folder_and_nothing_else(tmp_path: Path):
    figures = result(run("mnist_pl", "--fast", cwd=tmp_path, fresh=True))
    assert figures["task"] == "mnist_pl"
    folder = tmp_path / figures["run"]
    assert_wrote(folder, tmp_path, "curve.png", "sample.png")
    assert [line["epoch"] for line in metrics(folder)] == [1, 2]
    assert figures["valid_accuracy"] == max(line["valid_accuracy"] for line in metrics(folder))
    best = checkpoint(folder, "best.pt")
    assert best["epoch"] + 1 == figures["best_epoch"]


# plain descent: Adam makes the sign of a gradient near zero as large as any other
PLAIN = ("--fast", "--noplot", "--noaugment", "--accelerator=cpu", "--optimizer=sgd", "--learning_rate=0.1")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process with a batch of 16."""
    root = tmp_path_factory.mktemp("alone")
    figures = result(run("mnist_pl", *PLAIN, "--batch_size=16", cwd=root))
    return {**figures, "run": root / figures["run"]}


def assert_same_training(two: dict[str, Any], one: dict[str, Any], root: Path) -> None:
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
    for name in ("valid_accuracy", "test_accuracy"):
        assert two[name] == one[name]
    first, second = (checkpoint(folder)["state_dict"] for folder in (root / two["run"], one["run"]))
    for name, weights in first.items():  # batch norms and their running mean and variance too
        torch.testing.assert_close(weights, second[name], rtol=1e-4, atol=1e-5)
    assert len(list((root / "runs" / "mnist_pl").iterdir())) == 1


def test_two_processes_train_as_one_with_the_double_batch(tmp_path: Path, alone: dict[str, Any]):
    two = result(
        run("mnist_pl", *PLAIN, "--strategy=ddp", "--devices=2", "--batch_size=8", cwd=tmp_path, fresh=True)
    )
    assert_same_training(two, alone, tmp_path)


def test_channels_last_is_a_matter_of_memory_alone(tmp_path: Path, alone: dict[str, Any]):
    other = inside(mnist_pl, "mnist_pl", *PLAIN, "--batch_size=16", "--nochannels_last", cwd=tmp_path)
    assert other["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-4)
    assert other["valid_accuracy"] == alone["valid_accuracy"]


def test_torchrun_starts_it_on_two_machines(tmp_path: Path, alone: dict[str, Any]):
    # both are this one; --node_rank is what tells them apart
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for machine in range(2):
        options = ("--nnodes=2", "--nproc_per_node=1", f"--node_rank={machine}", "--master_addr=127.0.0.1")
        task = ("-m", "snnlib.task.mnist_pl", *PLAIN, "--batch_size=8", "--strategy=ddp", "--num_nodes=2")
        line = [sys.executable, "-m", "torch.distributed.run", *options, f"--master_port={port}", *task]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
        started.append(subprocess.Popen([*line, "--devices=1"], **pipes))
    try:
        said = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    first, second = (
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(started, said, strict=True)
    )
    assert_same_training(result(first), alone, tmp_path)
    assert second.returncode == 0, second.stderr
    assert "result:" not in second.stdout


def test_a_rate_is_found_and_kept(tmp_path: Path):
    figures = result(run("mnist_pl", *FAST, "--find_learning_rate", cwd=tmp_path))
    assert figures["learning_rate"] != 0.002
    kept = (tmp_path / figures["run"] / "flags.txt").read_text()
    assert f"--learning_rate={figures['learning_rate']}" in kept


def test_patience_ends_a_run_that_does_not_get_better(tmp_path: Path):
    flags = ("--fast", "--noplot", "--epochs=9", "--patience=1", "--learning_rate=1e-9")
    folder = tmp_path / result(run("mnist_pl", *flags, cwd=tmp_path))["run"]
    assert [line["epoch"] for line in metrics(folder)] == [1, 2]
    # a run that was stopped for that reason stays stopped
    again = result(run("mnist_pl", f"--resume={folder}", cwd=tmp_path))
    assert again["best_epoch"] == 2
    assert [line["epoch"] for line in metrics(folder)] == [1, 2]


@pytest.mark.parametrize(
    ("flag", "says", "code"),
    [
        ("--accelerator=abacus", "abacus", 1),
        ("--device=cuda", "torch finds no CUDA device", 1),
        ("--strategy=nonsense", "nonsense", 1),
        ("--devices=x", "Lightning refuses --accelerator=auto --devices=x", 1),
        ("--limit_train_batches=0", "limit_train_batches", 2),
        ("--precision=8", "precision", 2),
        ("--precision=16-mixed", "--precision=16-mixed is not to be had here, only bf16-mixed", 1),
        ("--strategy=ddp_fork", "--strategy=ddp_fork: such processes cannot share a run; take ddp", 1),
        ("--num_nodes=2", "--num_nodes=2: start it by torchrun or SLURM", 1),
    ],
)
def test_a_wrong_flag_ends_in_a_sentence(tmp_path: Path, flag: str, says: str, code: int):
    if ("torch finds" in says or "16-mixed" in says) and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    done = run("mnist_pl", *FAST, flag, cwd=tmp_path)
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_patience_is_that_of_the_flags_whatever_a_checkpoint_says(tmp_path: Path):
    standing = ("--learning_rate=1e-30", "--patience=2")  # no epoch is better than the first
    folder = inside(mnist_pl, "mnist_pl", *FAST, *standing, cwd=tmp_path)["run"]
    last = checkpoint(folder)
    (state,) = last["callbacks"].values()
    state["patience"] = 50
    torch.save(last, folder / "last.pt")
    inside(mnist_pl, "mnist_pl", f"--resume={folder}", "--epochs=9", cwd=tmp_path)
    assert [line["epoch"] for line in metrics(folder)] == [1, 2, 3]


def test_no_rate_is_looked_for_in_a_trial_of_one_batch(tmp_path: Path):
    assert run("mnist_pl", *FAST, "--fast_dev_run", "--find_learning_rate", cwd=tmp_path).returncode == 0


def test_save_every_counts_steps_of_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved = []
    write = _run.Run.write_checkpoint

    def noted(self: _run.Run, name: str, content: dict[str, Any]) -> None:
        saved.append((name, content["step"]))
        write(self, name, content)

    monkeypatch.setattr(_run.Run, "write_checkpoint", noted)
    steps = ("--batch_size=4", "--accumulate_grad_batches=2", "--save_every=3")
    inside(mnist_pl, "mnist_pl", "--fast", "--noplot", "--epochs=1", *steps, cwd=tmp_path)
    assert [step for name, step in saved if name == "last.pt"] == [3, 6, 8]
