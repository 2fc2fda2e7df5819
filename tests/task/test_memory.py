"""``python -m snnlib.task.memory``: what it writes and learns, how it stops and goes on, what it refuses."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from snnlib import LIParameters
from snnlib.dataset.store_recall import Trials
from snnlib.task import _command, memory
from tests.task.command import (
    assert_wrote,
    metrics,
    result,
    run,
)

SMALL = ("--population_size=2", "--hidden_size=8", "--period=0.02", "--seq_periods=5", "--expected_delay=2")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def flags() -> Iterator[None]:
    """The task's flags, left as they were found: not yet parsed."""
    yield
    memory.FLAGS.unparse_flags()
    for name in memory.FLAGS:
        memory.FLAGS[name].unparse()


def given(*arguments: str) -> memory.Memory:
    """The module of a run with these flags, before its first step."""
    memory.FLAGS.unparse_flags()
    for name in memory.FLAGS:
        memory.FLAGS[name].unparse()
    memory.FLAGS(["memory", *arguments])
    memory.prepare(memory.FLAGS)
    torch.manual_seed(memory.FLAGS.seed)
    return memory.Memory()


def first_step(*arguments: str) -> list[float]:
    """Loss and size of the gradients of the first batch."""
    module = given("--fast", *SMALL, *arguments)
    loss = module.training_step(memory.drawn("train", 1, CPU)[0])["loss"]
    loss.backward()
    return [loss.item(), *(float(w.grad.norm()) for w in module.parameters() if w.grad is not None)]


def test_a_fast_run_writes_its_folder_and_nothing_else(tmp_path: Path):
    figures = result(run("memory", "--fast", cwd=tmp_path, fresh=True))
    assert figures["task"] == "memory"
    assert figures["neuron_model"] == "lsnn"
    assert figures["chance"] == 0.5
    assert 0 <= figures["recall_error"] <= 1
    assert 0 <= figures["valid_error"] <= 1
    assert 0 < figures["rate_hz"] < 100
    folder = tmp_path / figures["run"]
    assert folder.parent == tmp_path / "runs" / "memory"
    assert_wrote(folder, tmp_path, "curve.png", "sample.png")
    assert [(line["epoch"], line["step"]) for line in metrics(folder)] == [(1, 3), (2, 6)]


def error_after(steps: int, *arguments: str) -> float:
    """Recall error after some steps of training in a small setting: six symbols, time steps of 4 ms."""
    module = given(
        *("--dt=0.004", "--seq_periods=6", "--expected_delay=3", "--hidden_size=30", "--alpha=0.3"),
        *("--tau_adapt=1", "--population_size=10", "--batch_size=32", f"--batches={steps}", "--epochs=1"),
        *arguments,
    )
    optim = torch.optim.Adam(module.net.parameters(), memory.FLAGS.learning_rate)
    for trials in memory.drawn("train", steps, CPU):
        optim.zero_grad()
        module.training_step(trials)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(module.net.parameters(), memory.FLAGS.clip_grad)
        optim.step()
    with torch.no_grad():
        for trials in memory.drawn("test", 8, CPU):
            module.test_step(trials)
    return float(module.means["recall_error"].compute())


def test_adaptation_learns_what_its_control_does_not():
    assert error_after(100) < 0.1
    assert error_after(100, "--neuron_model=lsnnlif") < 0.15
    assert error_after(100, "--neuron_model=lif") > 0.2


def test_the_same_seed_gives_the_same_first_step():
    assert first_step("--seed=3") == first_step("--seed=3")
    assert first_step("--seed=3") != first_step("--seed=4")


@pytest.mark.parametrize(
    "flag",
    [
        "--neuron_model=lif",
        "--neuron_model=lsnnlif",
        "--hidden_size=9",
        "--tau_adapt=0.1",
        "--beta=0.5",
        "--period=0.03",
        "--seq_periods=6",
        "--seq_repetitions=2",
        "--expected_delay=4",
        "--population_size=3",
        "--poisson_rate=70",
        "--regularization_factor=0.02",
        "--regularization_target=20",
        "--batch_size=5",
        "--dt=0.002",
        "--tau_syn_inv=300",
        "--tau_mem_inv=100",
        "--method=arctan",
        "--alpha=0.2",
    ],
)
def test_a_flag_changes_the_first_step(flag: str):
    assert first_step(flag) != first_step()


def test_a_method_that_is_not_the_default_has_an_alpha_of_its_own():
    assert given().net.neurons.p.alpha == 0.1
    assert given("--method=super").net.neurons.p.alpha is None
    assert first_step("--method=super") == first_step("--method=super", "--alpha=100") != first_step()
    assert given("--method=super", "--alpha=0.1").net.neurons.p.alpha == 0.1


def test_half_of_the_neurons_adapt():
    beta = given("--neuron_model=lsnnlif", "--hidden_size=5", "--beta=0.3").net.neurons.p.beta
    assert beta.tolist() == pytest.approx([0.3, 0.3, 0.0, 0.0, 0.0])
    assert not given("--neuron_model=lif").net.neurons.p.beta.any()


def test_the_parameters_are_those_of_the_flags():
    module = given("--tau_adapt=0.5", "--tau_syn_inv=90", "--tau_mem_inv=70", "--dt=0.002").net
    p = module.neurons.p
    assert (p.tau_adapt_inv, p.tau_syn_inv, p.tau_mem_inv) == (2.0, 90.0, 70.0)
    assert module.readout.p == LIParameters(90.0, 70.0)
    assert module.neurons.dt == module.readout.dt == 0.002


def test_loss_and_errors_are_of_recalls_and_rates(monkeypatch: pytest.MonkeyPatch):
    module = given("--regularization_factor=0.01", "--regularization_target=15")
    target, delay = torch.tensor([[-1, 0], [1, -1], [1, 0]]), torch.tensor([[0, 3], [9, 0], [12, 10]])
    voltage, rate = torch.zeros(3, 2, 2), torch.tensor([5.0, 30.0])
    voltage[..., 1] = torch.tensor([[4.0, 1.0], [1.0, 4.0], [1.0, -2.0]])  # wrong once, after 3 periods
    monkeypatch.setattr(module, "answers", lambda trials: (voltage, rate))
    trials = Trials(torch.zeros(0), target, delay)
    chances = voltage[..., 1].sigmoid()[target >= 0]
    asked = target[target >= 0]
    loss = -torch.where(asked == 1, chances, 1 - chances).log().mean() + 0.01 * (100 + 225) / 2
    torch.testing.assert_close(module.training_step(trials)["loss"], loss)
    module.validation_step(trials)
    module.test_step(trials)
    found = {name: float(mean.compute()) for name, mean in module.means.items()}
    assert found == {"valid_error": 0.25, "recall_error": 0.25, "recall_error_long": 0.0, "rate_hz": 17.5}


def test_the_first_spikes_are_near_the_target_rate():
    for flag in ("--poisson_rate=25", "--population_size=50", "--hidden_size=120", "--dt=0.002"):
        module = given("--fast", flag)
        _, rate = module.answers(memory.drawn("train", 1, CPU)[0])
        assert 2 < rate.mean() < 20, flag


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--neuron_model=alif", "neuron_model"),
        ("--tau_adapt=0", "tau_adapt"),
        ("--tau_adapt=inf", "tau_adapt"),
        ("--beta=-1", "beta"),
        ("--beta=nan", "beta"),
        ("--period=0", "period"),
        ("--period=nan", "period"),
        ("--period=0.0001", "a period must last at least one time step"),
        ("--seq_periods=1", "seq_periods"),
        ("--seq_repetitions=0", "seq_repetitions"),
        ("--expected_delay=0.9", "expected_delay"),
        ("--expected_delay=201", "expected_delay must be from 1 to 200"),
        ("--population_size=0", "population_size"),
        ("--poisson_rate=1001", "must be a probability"),
        ("--regularization_factor=-1", "regularization_factor"),
        ("--regularization_factor=inf", "regularization_factor"),
        ("--regularization_target=0", "regularization_target"),
        ("--hidden_size=0", "hidden_size"),
        ("--batches=0", "batches"),
    ],
)
def test_a_wrong_flag_ends_in_a_sentence(
    flag: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["memory", flag])
    with pytest.raises(SystemExit) as stop:
        _command.parse(memory.FLAGS, "")
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_processes_that_train_one_net_get_equally_many_batches(part: str):
    module = given("--fast")
    alone, shared = (memory.batches(module, part, processes) for processes in (1, 4))
    assert shared.count % 4 == 0
    assert alone.count <= shared.count < alone.count + 4
