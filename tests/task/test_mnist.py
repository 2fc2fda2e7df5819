"""``python -m snnlib.task.mnist`` as a process: what it writes, how it stops and goes on, what it refuses."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import nll_loss

from snnlib.task import mnist
from tests.task.command import (
    assert_wrote,
    checkpoint,
    inside,
    metrics,
    result,
    run,
    same,
)

FAST = ("--fast", "--noplot")


@pytest.mark.parametrize("task", ["mnist", "mnist_pl", "cifar10"])
def test_a_data_set_that_is_none_is_refused_before_there_is_a_folder(task: str, tmp_path: Path):
    done = run(task, "--dataset=digit", cwd=tmp_path)
    known = ", nmnist" if task != "cifar10" else ""
    assert done.returncode != 0
    assert "digit: no such file, and none of mnist, " in done.stderr
    assert f"cifar100{known}\n" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_fast_run_writes_its_folder_and_nothing_else(tmp_path: Path):
    figures = result(run("mnist", "--fast", cwd=tmp_path, fresh=True))
    assert figures["task"] == "mnist"
    assert figures["seed"] == 0
    assert 0 <= figures["test_accuracy"] <= 1
    assert 0 < figures["seconds"] < 60
    folder = tmp_path / figures["run"]
    assert folder.parent == tmp_path / "runs" / "mnist"
    assert_wrote(folder, tmp_path, "curve.png", "sample.png")
    assert [line["epoch"] for line in metrics(folder)] == [1, 2]


def test_the_flags_file_starts_the_same_run_again(tmp_path: Path):
    first = result(run("mnist", *FAST, "--seed=3", "--method=triangle", cwd=tmp_path))
    again = result(run("mnist", f"--flagfile={tmp_path / first['run'] / 'flags.txt'}", cwd=tmp_path))
    assert again["run"] != first["run"]
    assert "--method=triangle" in (tmp_path / again["run"] / "flags.txt").read_text()
    assert same(checkpoint(tmp_path / first["run"])["net"], checkpoint(tmp_path / again["run"])["net"])


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of one epoch."""
    root = tmp_path_factory.mktemp("fast")
    return root / result(run("mnist", *FAST, "--epochs=1", cwd=root))["run"]


@pytest.fixture
def own_copy(fast: Path, tmp_path: Path) -> Path:
    """That run once more, to be damaged or gone on with."""
    return Path(shutil.copytree(fast, tmp_path / "copy"))


def test_a_finished_run_goes_on_with_more_epochs(own_copy: Path, tmp_path: Path):
    more = result(run("mnist", f"--resume={own_copy}", "--epochs=3", cwd=tmp_path))
    assert more["run"] == str(own_copy)
    assert [line["epoch"] for line in metrics(own_copy)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--epochs=0"], "epochs"),
        (["--batch_size=-3"], "batch_size"),
        (["--learning_rate=nan"], "learning_rate"),
        (["--learning_rate=0"], "learning_rate"),
        (["--learning_rate=3.5e37"], "must be a positive number up to 1e+30"),
        (["--alpha=inf"], "alpha"),
        (["--method=nonsense"], "method"),
        (["--channels=8,x"], "channels"),
        (["--seq_length=2.5"], "seq_length"),
        (["--no_such_flag=1"], "no_such_flag"),
        (["--dropout=1"], "dropout"),
        (["--channels_last=perhaps"], "--channels_last=perhaps: must be true or false"),
        (["--nofast=true"], "error: --nofast=true does not take an argument"),
        (["--output_dir= lead and trail "], "must be text without a space at its end"),
        (["digits"], "unexpected argument 'digits'"),
        (["--resume=nowhere"], "no run in that folder"),
        (["--resume="], "--resume= names no folder"),
        (["--flagfile=nowhere"], "nowhere"),
    ],
)
def test_a_wrong_flag_ends_in_a_sentence(tmp_path: Path, flags: list[str], says: str):
    done = run("mnist", *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_resume_refuses_flags_that_make_another_run(own_copy: Path, tmp_path: Path):
    done = run("mnist", f"--resume={own_copy}", "--batch_size=7", cwd=tmp_path)
    assert done.returncode == 2
    assert "--batch_size=7" in done.stderr
    assert "--batch_size=32" in done.stderr


@pytest.mark.parametrize("damage", ["truncate", "pickle", "other task"])
def test_a_damaged_checkpoint_is_named_and_not_run(own_copy: Path, tmp_path: Path, damage: str):
    path = own_copy / "last.pt"
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "pickle":

        class Bomb:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "ran",))

        path.write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save({**checkpoint(own_copy), "task": "memory"}, path)
    done = run("mnist", f"--resume={own_copy}", cwd=tmp_path)
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_without_data_it_says_what_is_missing_and_the_ways_out(tmp_path: Path):
    # a proxy that refuses at once stands in for a machine with no network
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = run("mnist", "--dataset=mnist", cwd=tmp_path, environment={"CUDA_VISIBLE_DEVICES": "", **proxies})
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 2
    assert "train-images-idx3-ubyte.gz" in lines[0]
    assert "--data_dir" in lines[1]
    assert "--dataset=digits" in lines[1]


@pytest.mark.parametrize(
    ("module", "flags"),
    [("sklearn", ["--dataset=digits"]), ("torchvision", ["--dataset=mnist"]), ("tensorboard", ["--fast"])],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    tmp_path: Path, module: str, flags: list[str]
):
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / f"{module}.py").write_text(f"raise ImportError('No module named {module}')")
    done = run("mnist", *flags, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(shadow)})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "pip install 'snnlib[tasks]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_figures_do_not_change_what_is_tested(tmp_path: Path):
    flags = ("--fast", "--encoder=poisson", "--poisson_rate=300", "--batch_size=4", "--epochs=4")
    drawn, bare = (inside(mnist, "mnist", *flags, plot, cwd=tmp_path) for plot in ("--plot", "--noplot"))
    for name in ("test_accuracy", "silent_share"):
        assert drawn[name] == bare[name]


def test_channels_last_is_a_matter_of_memory_alone():
    found = []
    for flag in ("--channels_last", "--nochannels_last"):
        values = mnist.image_flags()
        values(["mnist", "--fast", "--encoder=constant_current", "--channels=4,6,5", flag])
        mnist.prepare(values)
        data = mnist.load(values)
        torch.manual_seed(0)
        net = mnist.network(values, data)
        nll_loss(net(mnist.encode(values, data.scaled(data.x_train[:8]))), data.y_train[:8]).backward()
        found.append(list(net.parameters()))
    (weights, *_), (others, *_) = ([w for w in found_ if w.dim() == 4][1:] for found_ in found)
    assert not weights.is_contiguous()
    assert weights.is_contiguous(memory_format=torch.channels_last)
    assert others.is_contiguous()
    for one, other in zip(*found, strict=True):
        assert one.grad.abs().max() > 0
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_own_images(tmp_path: Path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 11, 6, 3), dtype=np.uint8), np.arange(60) % 3
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    figures = result(
        run("mnist", "--dataset=own.npz", "--epochs=1", "--channels=4", "--hidden_size=8", cwd=tmp_path)
    )
    assert figures["dataset"] == "own.npz"
    assert figures["chance"] == pytest.approx(1 / 3, abs=1e-3)


def test_an_output_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    done = run("mnist", *FAST, "--output_dir=file/runs", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Not a directory: ")
    assert "Traceback" not in done.stderr
