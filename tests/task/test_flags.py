"""The flags of all tasks: each is read, each changes the run, and each has a test.

A task's own flags are tested beside the task; here is what several tasks share, and that no flag has no test.
"""

import importlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from snnlib.module import neuron
from snnlib.task import _flags, _lightning, _run
from tests.task.command import checkpoint, clear, inside, metrics, same

SHORT = ("--fast", "--noplot", "--epochs=1")
TASKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cartpole": ("cartpole", ("--fast", "--noplot", "--episodes=4", "--seq_length=4")),
    "cifar10": ("cifar10", (*SHORT, "--cutout=3")),
    "correlation": (
        "correlation",
        (*SHORT, "--train_episodes=8", "--batch_size=4", "--seq_length=40", "--test_episodes=4"),
    ),
    "memory": (
        "memory",
        (
            *(*SHORT, "--population_size=2", "--hidden_size=8", "--period=0.02", "--seq_periods=5"),
            "--expected_delay=2",
        ),
    ),
    "mnist": ("mnist", SHORT),
    "mnist_pl": ("mnist_pl", SHORT),
    "speech_commands": ("speech_commands.run", SHORT),
}
"""Each task: its module, and flags for a run in which little happens."""
LIGHTNING = ("cifar10", "memory", "mnist_pl", "speech_commands")
IMAGES = (
    *("--input_scale=9 --encoder=constant_current", "--poisson_rate=200 --encoder=poisson"),
    *("--encoder=latency", "--only_first_spike", "--channels=4", "--hidden_size=16", "--dropout=0.5"),
    *("--refrac", "--train_only_output", "--noaugment"),
)
SHARED = (
    *("--seed=1", "--batch_size=5", "--learning_rate=0.03", "--weight_decay=0.3", "--clip_grad=0.001"),
    *(
        "--optimizer=sgd",
        "--dt=0.0015",
        "--tau_syn_inv=300",
        "--tau_mem_inv=90",
        "--method=super",
        "--method=adjoint",
    ),
    *("--alpha=0.7", "--seq_length=7", "--epochs=2"),
)
TRAINER = (
    *("--limit_train_batches=0.4 --batch_size=8", "--accumulate_grad_batches=2 --batch_size=8"),
    "--precision=bf16-mixed",
)


def module_of(task: str) -> ModuleType:
    return importlib.import_module(f"snnlib.task.{TASKS[task][0]}")


def here(task: str, root: Path, *flags: str) -> Path:
    """The folder of a short run with these flags."""
    return inside(module_of(task), task, *TASKS[task][1], *flags, cwd=root)["run"]


def weights(folder: Path) -> Any:
    last = checkpoint(folder)
    return last["net"] if "net" in last else last["state_dict"]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The run of a task with the flags that it has in all tests here, and maybe some more; made once."""
    made: dict[Any, Path] = {}

    def once(task: str, *flags: str) -> Path:
        if (task, flags) not in made:
            made[task, flags] = here(task, tmp_path_factory.mktemp("usual"), *flags)
        return made[task, flags]

    return once


def changes() -> list[tuple[str, str]]:
    """A task and a flag of it that changes what is learned, but for those that the task's own tests have."""
    found = [(task, flag) for task in ("mnist", *LIGHTNING) for flag in SHARED]
    found += [(task, flag) for task in ("mnist", "mnist_pl") for flag in IMAGES]
    found += [(task, flag) for task in LIGHTNING for flag in TRAINER]
    return [(task, flag) for task, flag in found if name_of(flag) in module_of(task).FLAGS]


def name_of(flag: str) -> str:
    name = flag.split()[0].removeprefix("--").partition("=")[0]
    return "augment" if name == "noaugment" else name


@pytest.mark.parametrize(("task", "flag"), changes())
def test_a_flag_changes_what_is_learned(tmp_path: Path, usual: Callable[..., Path], task: str, flag: str):
    first, *others = flag.split()  # what only shows together with another flag
    before = usual(task, *others)
    assert not same(weights(here(task, tmp_path, first, *others)), weights(before))
    assert not list(tmp_path.rglob("*.png"))  # --noplot


@pytest.mark.parametrize("task", ["mnist", "mnist_pl", "cifar10"])
def test_an_image_that_is_left_over_at_one_time_step_is_trained_with_others(tmp_path: Path, task: str):
    folder = here(task, tmp_path, "--seq_length=1", "--batch_size=63")
    assert metrics(folder)[0]["step"] == 1
    here(task, tmp_path, f"--resume={folder}", "--epochs=2")
    assert metrics(folder)[1]["step"] == 2


@pytest.mark.parametrize("task", ["mnist", *LIGHTNING])
def test_the_same_flags_give_the_same_run(tmp_path: Path, usual: Callable[..., Path], task: str):
    assert same(weights(here(task, tmp_path)), weights(usual(task)))


@pytest.mark.parametrize("task", ["mnist", "mnist_pl"])
def test_the_first_spike_alone_is_the_latency_code(tmp_path: Path, task: str):
    latency, first = (here(task, tmp_path, flag) for flag in ("--encoder=latency", "--only_first_spike"))
    assert same(weights(latency), weights(first))


@pytest.mark.parametrize("task", ["mnist", "mnist_pl"])
def test_only_the_readout_is_trained(tmp_path: Path, usual: Callable[..., Path], task: str):
    # two lengths of training from the same beginning
    trained, longer = (weights(here(task, tmp_path, "--train_only_output", f"--epochs={n}")) for n in (1, 2))
    learned = {name for name in trained if not torch.equal(trained[name], longer[name])}
    counted = {name for name in learned if "running" in name or "num_batches" in name or "accuracy" in name}
    readout = max(int(part) for name in trained for part in name.split(".") if part.isdecimal())
    assert {name.rpartition("layers.")[2] for name in learned - counted} == {
        f"{readout}.weight",
        f"{readout}.bias",
    }


def test_a_fold_is_another_part_of_the_training_images():
    mnist = module_of("mnist")
    parts = []
    for fold in (0, 1):
        clear(mnist)
        mnist.FLAGS(["mnist", "--dataset=digits", f"--fold={fold}"])
        parts.append(mnist.load(mnist.FLAGS).x_valid)
    assert not torch.equal(*parts)


@pytest.mark.parametrize("task", TASKS)
def test_the_backend_is_handed_to_all_neurons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str):
    asked: set[str] = set()
    scan = neuron.scan

    def noted(*arguments: Any, backend: str, **options: Any) -> Any:
        asked.add(backend)
        return scan(*arguments, **options)

    monkeypatch.setattr(neuron, "scan", noted)
    here(task, tmp_path, "--backend=reference")
    assert asked == {"reference"}


@pytest.mark.parametrize("task", ["mnist", *LIGHTNING])
def test_checkpoints_are_also_written_within_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
):
    steps: list[int] = []
    write = _run.Run.write_checkpoint

    def noted(self: _run.Run, name: str, content: dict[str, Any]) -> None:
        steps.append(content["step"])
        write(self, name, content)

    monkeypatch.setattr(_run.Run, "write_checkpoint", noted)
    folder = here(task, tmp_path)
    assert set(steps) == {metrics(folder)[0]["step"]}
    here(task, tmp_path, "--save_every=1")
    assert 1 in steps


@pytest.mark.parametrize("task", LIGHTNING)
def test_patience_ends_a_run_that_does_not_get_better(tmp_path: Path, task: str):
    folder = here(task, tmp_path, "--epochs=30", "--patience=1", "--learning_rate=1e-12")
    assert len(metrics(folder)) < 30


@pytest.mark.parametrize("task", LIGHTNING)
def test_figures_are_drawn_of_a_net_in_double_precision_too(tmp_path: Path, task: str):
    folder = here(task, tmp_path, "--precision=64-true", "--plot")
    assert {path.name for path in folder.glob("*.png")} == {"curve.png", "sample.png"}


@pytest.mark.parametrize("task", LIGHTNING)
def test_a_dev_run_leaves_no_checkpoint(tmp_path: Path, task: str):
    assert not list(here(task, tmp_path, "--fast_dev_run").glob("*.pt"))


@pytest.mark.parametrize("task", LIGHTNING)
def test_lightning_is_told_where_to_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str):
    asked: dict[str, Any] = {}

    def trainer(**options: Any) -> Any:
        asked.update(options)
        raise ValueError("this is as far as it goes")

    monkeypatch.setattr(_lightning.pl, "Trainer", trainer)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    given = {"accelerator": "cpu", "devices": "3", "num_nodes": 2, "strategy": "ddp"}
    with pytest.raises(SystemExit):
        here(task, tmp_path, *(f"--{name}={value}" for name, value in given.items()))
    assert {name: asked[name] for name in given} == given


@pytest.mark.parametrize("task", TASKS)
def test_a_device_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], task: str
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        here(task, tmp_path, "--device=cuda")
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith("error: --device=cuda: torch finds no CUDA device")


@pytest.mark.parametrize("task", ["cifar10", "mnist", "mnist_pl", "speech_commands"])
def test_data_is_looked_for_where_it_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], task: str
):
    for name in ("http_proxy", "https_proxy"):  # a proxy that refuses at once: no network
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(SystemExit) as stopped:
        here(task, tmp_path, "--nofast", "--data_dir=elsewhere")
    assert stopped.value.code == 1
    assert "elsewhere" in capsys.readouterr().err


@pytest.mark.parametrize("task", TASKS)
def test_help_lists_every_flag(tmp_path: Path, task: str):
    said = io.StringIO()
    module = module_of(task)
    with pytest.raises(SystemExit) as stopped:
        inside(module, task, "--help", cwd=tmp_path, said=said)
    assert stopped.value.code == 0
    for name in module.FLAGS:
        assert f"--{name}" in said.getvalue().replace("--[no]", "--")
        assert module.FLAGS[name].help.split()[0] in said.getvalue()


def test_help_says_which_numbers_must_be_positive(tmp_path: Path):
    said = io.StringIO()
    with pytest.raises(SystemExit):
        inside(module_of("speech_commands"), "speech_commands", "--help", cwd=tmp_path, said=said)
    assert "--learning_rate (a positive number up to 1e+30)" in said.getvalue()
    assert "--weight_decay (a non-negative number)" in said.getvalue()  # which absl has from one parser
    assert "--dt (between 0.001 and the shortest membrane time constant, 0.02)" in said.getvalue()
    assert "--model (one of these)" in said.getvalue()


@pytest.mark.parametrize("task", TASKS)
def test_what_is_on_can_be_switched_off_and_numbers_are_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
):
    values = module_of(task).FLAGS
    switches = [name for name in values if values[name].boolean]
    clear(module_of(task))
    values([task, *(f"--no{name}" for name in switches)])
    assert [name for name in switches if values[name].value] == []
    with pytest.raises(SystemExit) as stopped:
        here(task, tmp_path, "--dt=fast")
    assert stopped.value.code == 2
    assert "dt" in capsys.readouterr().err
    assert isinstance(values["dt"].default, float)


def test_what_is_given_is_not_filled_in():
    values = _flags.shared(epochs=None, batch_size=None, save_every=0, plot=True, fast=False)
    values(["task", "--fast", "--save_every=0", "--noplot"])
    usual = {"epochs": 9, "batch_size": 8, "save_every": 5, "plot": True}
    _flags.fill(values, usual, fast={"epochs": 2, "save_every": 3})
    assert (values.epochs, values.batch_size, values.save_every, values.plot) == (2, 8, 0, False)


@pytest.mark.parametrize("task", TASKS)
def test_no_flag_is_without_a_test(task: str):
    # by its name; what all have in common is here and where they are stopped
    texts = [Path(__file__).with_name(f"test_{name}.py").read_text() for name in (task, "flags", "stopped")]
    if task in LIGHTNING:
        texts.append(Path(__file__).with_name("test_mnist_pl.py").read_text())
    found = "".join(texts)
    untested = [
        name
        for name in module_of(task).FLAGS
        if not any(f"--{no}{name}{after}" in found for no in ("", "no") for after in ("=", '"', " "))
    ]
    assert set(untested) <= {"h", "output_dir"} | {"accelerator", "devices", "num_nodes", "strategy"}


def test_importing_a_task_does_nothing(tmp_path: Path):
    names = [f"snnlib.task.{name}" for name, _ in TASKS.values()]
    script = f"""
import importlib, os, signal
before = os.getcwd(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
for name in {names}:
    importlib.import_module(name)
assert before == (os.getcwd(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "--no_such_flag"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("task", "flags", "says"), [
    ("speech_commands", ("--model=lstm", "--method=adjoint"), "--method=adjoint does nothing with --model="),
    ("cifar10", ("--neuron_model=relu", "--alpha=3"), "--alpha=3.0 does nothing with --neuron_model=relu"),
    ("speech_commands", ("--model=lif", "--beta=0.5"), "--beta=0.5 does nothing with --model=lif"),
    ("cifar10", ("--residual=current",), "--residual=current does nothing with --model=conv"),
    ("cartpole", ("--policy=ann", "--dt=0.002"), "--dt=0.002 does nothing with --policy=ann"),
    ("cartpole", ("--policy=ann", "--backend=cpu"), "--backend=cpu does nothing with --policy=ann"),
    ("correlation", ("--update_every=100",), "no weight changes in 75 steps"),
    ("mnist", ("--batch_size=1", "--seq_length=1"), "--batch_size=1 with --seq_length=1: batch norms need two"),
    ("mnist_pl", ("--batch_size=1", "--seq_length=1"), "--batch_size=1 with --seq_length=1"),
    ("cifar10", ("--batch_size=1", "--neuron_model=relu"), "--batch_size=1 with --seq_length=1"),
])  # fmt: skip
def test_what_would_do_nothing_is_refused_before_a_run_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, flags: tuple[str, ...], says: str
):
    """Also where a flag and a default of --fast do not go together."""
    module = importlib.import_module(f"snnlib.task.{TASKS[task][0]}")
    with pytest.raises(SystemExit) as stopped:
        inside(module, task, "--fast", *flags, cwd=tmp_path)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
