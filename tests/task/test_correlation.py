"""``python -m snnlib.task.correlation``: as a process, and inside this one for what each flag changes."""

import signal
from pathlib import Path

import pytest
import torch

from snnlib.task import _run, correlation
from snnlib.task._launch import launch
from tests.task.command import (
    assert_wrote,
    checkpoint,
    metrics,
    result,
    run,
    same,
)

SMALL = ("--channels=20", "--subset=6", "--hidden_size=4", "--initial_weight=0.8", "--test_episodes=8")
FIGURES = {"test_accuracy", "test_probability", "valid_accuracy", "shuffled_accuracy", "rates_accuracy"}


def test_a_fast_run_writes_its_folder_and_nothing_else(tmp_path: Path):
    figures = result(run("correlation", "--fast", cwd=tmp_path, fresh=True))
    assert figures["task"] == "correlation"
    assert figures["chance"] == 0.5
    assert all(0 <= figures[name] <= 1 for name in FIGURES)
    folder = tmp_path / figures["run"]
    assert_wrote(folder, tmp_path, "learning.png")
    assert [line["epoch"] for line in metrics(folder)] == [1, 2]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--rule=hebb"], "rule"),
        (["--control=all"], "control"),
        (["--correlation=1.5"], "correlation"),
        (["--poisson_rate=nan"], "poisson_rate"),
        (["--plasticity=inf"], "plasticity"),
        (["--hidden_size=1"], "hidden_size"),
        (["--test_episodes=3"], "test_episodes"),
        (["--initial_weight=0"], "initial_weight"),
        (["--tau_sensor_inv=0"], "tau_sensor_inv"),
        (["--subset=60"], "two subsets of 60 do not fit into 100 channels"),
        (["--poisson_rate=2000"], "2000.0 Hz are more than a spike in a step of 0.001 s"),
        (["--update_every=200"], "no weight changes in 150 steps"),
        (["--method=adjoint", "--rule=stdp"], "weights change at every step"),
    ],
)
def test_a_wrong_flag_ends_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str], says: str
):
    monkeypatch.setattr("sys.argv", ["correlation", *flags])
    clear()
    with pytest.raises(SystemExit) as stop:
        launch(correlation.FLAGS, "correlation", correlation.train, "", prepare=correlation.prepare)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert says in said
    assert len(said.strip().splitlines()) == 1


def clear() -> None:
    correlation.FLAGS.unparse_flags()
    for name in correlation.FLAGS:
        correlation.FLAGS[name].unparse()


def trained(root: Path, *flags: str) -> tuple[dict, list, dict]:
    """A very short run in this process: the figures of its result, its metrics, its last checkpoint."""
    clear()
    short = ["--fast", "--noplot", "--epochs=2", "--train_episodes=8", "--batch_size=4", "--seq_length=40"]
    correlation.FLAGS(["correlation", *short, *SMALL, f"--output_dir={root}", *flags])
    torch.manual_seed(correlation.FLAGS.seed)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    this = _run.Run(correlation.FLAGS, "correlation")
    try:
        figures = correlation.train(this)
    finally:
        this.close()
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    return figures, metrics(this.folder), checkpoint(this.folder)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list, dict]:
    return trained(tmp_path_factory.mktemp("usual"))


def test_the_same_flags_give_the_same_run(tmp_path: Path, usual: tuple[dict, list, dict]):
    again = trained(tmp_path)
    assert again[:2] == usual[:2]
    assert same(again[2], usual[2])


@pytest.mark.parametrize(
    "flag",
    [
        "--seed=1",
        "--epochs=1",
        "--batch_size=2",
        "--learning_rate=0.01",
        "--weight_decay=0.1",
        "--clip_grad=0.001",
        "--optimizer=sgd",
        "--seq_length=50",
        "--dt=0.0005",
        "--tau_syn_inv=300",
        "--tau_mem_inv=100",
        "--method=super",
        "--method=adjoint",
        "--alpha=0.5",
        "--rule=stdp",
        "--control=shuffled",
        "--control=rates",
        "--train_episodes=12",
        "--channels=22",
        "--subset=5",
        "--poisson_rate=60",
        "--correlation=0.9",
        "--hidden_size=6",
        "--initial_weight=0.7",
        "--plasticity=0.5",
        "--update_every=10",
        "--tau_sensor_inv=100",
    ],
)
def test_every_flag_changes_the_run(tmp_path: Path, usual: tuple[dict, list, dict], flag: str):
    _, lines, last = trained(tmp_path, flag)
    assert [line["train_loss"] for line in lines] != [line["train_loss"] for line in usual[1]]
    assert not same(last["net"], usual[2]["net"])


def test_more_test_episodes_give_other_figures_and_the_same_net(tmp_path: Path, usual: tuple[dict, list, dict]):
    figures, _, last = trained(tmp_path, "--test_episodes=36")
    assert figures["test_probability"] != usual[0]["test_probability"]
    assert same(last["net"], usual[2]["net"])


def test_the_reference_runs_to_the_same_numbers(tmp_path: Path, usual: tuple[dict, list, dict]):
    _, lines, _ = trained(tmp_path, "--backend=reference")
    for line, other in zip(lines, usual[1], strict=True):
        assert line["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)


def test_every_training_episode_counts_alike(tmp_path: Path):
    _, lines, last = trained(tmp_path, "--epochs=1", "--train_episodes=6", "--batch_size=4")
    first, second = last["at"]["probability"]
    assert lines[0]["train_probability"] == pytest.approx((4 * first + 2 * second) / 6)
    assert first != second


def test_a_checkpoint_is_also_written_within_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    steps: list[int] = []
    save = _run.Run.save

    def noted(self: _run.Run, step: int, name: str = "last.pt") -> None:
        steps.append(step)
        save(self, step, name)

    monkeypatch.setattr(_run.Run, "save", noted)
    trained(tmp_path, "--save_every=1")
    assert {1, 2, 3, 4} <= set(steps)


def test_training_leaves_no_trace_in_the_random_state_of_testing(tmp_path: Path):
    clear()
    correlation.FLAGS(["correlation", "--fast"])
    correlation.prepare(correlation.FLAGS)
    net, device = correlation.PlasticNet(), torch.device("cpu")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = correlation.evaluate(net, 10, 77, "none", device)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert correlation.evaluate(net, 10, 77, "none", device) == first


def test_no_episodes_of_a_seed_are_those_of_another():
    found = set[int]()
    for seed in range(200):
        clear()
        correlation.FLAGS(["correlation", f"--seed={seed}"])
        found |= {seed, *correlation.seeds()}
    assert len(found) == 600
    assert max(found) < 2**32


def lesson(*flags: str) -> tuple[correlation.PlasticNet, torch.Tensor, torch.Tensor]:
    """A net with a rule that says something, and what it makes of an episode's weights."""
    clear()
    correlation.FLAGS(["correlation", *flags])
    torch.manual_seed(0)
    net = correlation.PlasticNet()
    if net.rule is not None:
        with torch.no_grad():
            net.rule.weight.copy_(torch.tensor([[1.0, -0.4, -1.5]]))
    return net, *learned(net, correlation.FLAGS.control)


@torch.no_grad()
def learned(net: correlation.PlasticNet, control: str) -> tuple[torch.Tensor, torch.Tensor]:
    episodes = correlation.draw(160, torch.device("cpu"))
    _, before, after = net(episodes, control)
    # [class of the neuron, class of the subset]
    grown = torch.stack(
        [
            torch.stack(
                [
                    ((after - before) * s.unsqueeze(1)).sum(2)[:, net.class_of == c].mean()
                    for s in episodes.subsets
                ]
            )
            for c in range(2)
        ]
    )
    return grown, (after.sum(2) / before.sum(2) - 1).abs().max()


@pytest.mark.parametrize(
    ("flags", "least"), [(("--rule=gradient",), 1.0), (("--rule=stdp", "--plasticity=0.05"), 0.08)]
)
def test_weights_move_to_the_subset_that_a_neuron_was_taught_and_keep_their_sum(
    flags: tuple[str, ...], least: float
):
    _, grown, drift = lesson(*flags)
    assert drift < 1e-4
    assert (grown.diagonal() > least).all()
    assert (grown.flip(1).diagonal() < 0).all()


@pytest.mark.parametrize("control", ["shuffled", "rates"])
def test_in_the_controls_weights_do_not_follow_the_subsets(control: str):
    _, grown, _ = lesson(f"--control={control}")
    assert grown.abs().max() < 0.1


def test_of_the_question_the_rates_alone_are_left_too(monkeypatch: pytest.MonkeyPatch):
    net, _, _ = lesson("--control=rates")
    episodes = correlation.draw(8, torch.device("cpu"))
    monkeypatch.setattr(correlation, "without_timing", torch.zeros_like)
    with torch.no_grad():
        logits, _, _ = net(episodes, "rates")
        other, _, _ = net(episodes._replace(question=1.0 - episodes.question), "rates")
    assert torch.equal(logits, other)


def test_without_plasticity_nothing_changes_and_the_rule_begins_with_nothing():
    _, grown, drift = lesson("--plasticity=0")
    assert grown.abs().max() < 1e-4
    assert drift < 1e-4
    clear()
    correlation.FLAGS(["correlation"])
    net = correlation.PlasticNet()
    assert not any(p.any() for p in net.rule.parameters())
    grown, _ = learned(net, "none")
    assert grown.abs().max() < 1e-4


def test_weights_are_not_negative_whatever_the_rule_says():
    net, _, _ = lesson("--plasticity=1")
    with torch.no_grad():
        net.rule.weight.copy_(torch.tensor([[-9.0, 9.0, 0.0]]))
        _, before, after = net(correlation.draw(20, torch.device("cpu")), "none")
    assert after.min() == 0
    torch.testing.assert_close(after.sum(2), before.sum(2))


def test_a_synapse_sees_its_own_sensor_and_weight_alone():
    """The derivative of each change to each sensor and weight is zero but for its own."""
    torch.manual_seed(0)
    rule = torch.nn.Linear(3, 1)

    def change(sensors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return correlation.local_change(rule, weights, sensors.flatten()).flatten()

    sensors, weights = torch.rand(2, 2, 3, 4), torch.rand(2, 3, 4)
    by_sensor, by_weight = torch.autograd.functional.jacobian(change, (sensors, weights))
    own = torch.eye(24, dtype=torch.bool)
    for part in (*by_sensor.flatten(2).view(24, 2, 24).unbind(1), by_weight.view(24, 24)):
        assert not part[~own].any()
        assert part[own].all()
