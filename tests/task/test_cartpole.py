"""``python -m snnlib.task.cartpole``: as a process where that matters, in this one where only numbers do."""

import copy
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from snnlib.task import _run, cartpole
from snnlib.task._environment import Environments, Episodes
from tests.task.command import (
    assert_wrote,
    checkpoint,
    clear,
    inside,
    metrics,
    result,
    run,
    same,
)

TINY = "--environment=tests.task.tiny:Larger-v0"
FAST = ("--fast", "--noplot", "--seq_length=8")


def here(cwd: Path, *flags: str) -> dict[str, Any]:
    return inside(cartpole, "cartpole", *flags, cwd=cwd)


def test_a_fast_run_writes_its_folder_and_nothing_else(tmp_path: Path):
    figures = result(run("cartpole", "--fast", "--video", cwd=tmp_path, fresh=True))
    assert figures["task"] == "cartpole"
    assert figures["threshold"] == 475
    assert figures["solved"] is (figures["mean_reward"] >= 475)
    assert figures["test_episodes"] == 4
    assert figures["train_episodes"] == 8
    assert 8 < figures["untrained_reward"] < 500
    assert 8 < figures["random_reward"] < 100
    assert 0 < figures["seconds"] < 60
    folder = tmp_path / figures["run"]
    assert folder.parent == tmp_path / "runs" / "cartpole"
    assert_wrote(folder, tmp_path, "curve.png", "episode.gif")
    lines = metrics(folder)
    assert [line["update"] for line in lines] == [1, 2]
    assert lines[-1]["step"] == figures["env_steps"]
    assert Image.open(folder / "episode.gif").n_frames > 2


def test_a_spiking_policy_learns(tmp_path: Path):
    # four episodes of ten turns: 5 right turns of ten are chance, one guess in a thousand gets 7.5
    figures = here(
        tmp_path,
        *(TINY, *FAST, "--episodes=768", "--num_envs=64", "--eval_every=4"),
        *("--batch_size=320", "--passes=8", "--learning_rate=0.01"),
    )
    assert figures["random_reward"] < 7.5
    assert figures["untrained_reward"] < 7.5
    assert figures["mean_reward"] >= 7.5
    assert figures["solved"] is True


def test_the_flags_file_starts_the_same_run_again(tmp_path: Path):
    first = here(tmp_path, *FAST, "--seed=3", "--policy=lsnn")
    again = here(tmp_path, f"--flagfile={first['run'] / 'flags.txt'}")
    assert again["run"] != first["run"]
    assert again["policy"] == "lsnn"
    assert same(checkpoint(first["run"])["net"], checkpoint(again["run"])["net"])
    assert metrics(first["run"]) == metrics(again["run"])


def test_a_finished_run_goes_on_and_can_be_filmed_later(tmp_path: Path):
    folder = here(tmp_path, *FAST)["run"]
    here(tmp_path, f"--resume={folder}", "--episodes=12", "--video")
    assert [line["update"] for line in metrics(folder)] == [1, 2, 3]
    assert (folder / "episode.gif").exists()


def test_fewer_episodes_than_were_played_before_a_validation_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(_run.Run, "stopping", True)  # after the first update
    with pytest.raises(SystemExit):
        here(tmp_path, *FAST)
    monkeypatch.undo()
    (folder,) = (path.parent for path in tmp_path.rglob("last.pt"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        here(tmp_path, f"--resume={folder}", "--episodes=4")
    assert stopped.value.code == 1
    said = "error: --episodes=4: 4 were played and none has validated yet; give more\n"
    assert capsys.readouterr().err == said
    here(tmp_path, f"--resume={folder}", "--episodes=5")


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fast")
    return here(root, *FAST)["run"]


@pytest.mark.parametrize(
    "flag",
    [
        *(
            "--policy=lsnn",
            "--policy=ann",
            "--environment=Acrobot-v1",
            "--seed=1",
            "--episodes=4",
            "--num_envs=2",
        ),
        *("--episode_steps=5", "--gamma=0.5", "--gae_lambda=0.1", "--passes=2", "--clip_ratio=0.0001"),
        *("--entropy=0.3", "--hidden_size=16", "--input_scale=20", "--batch_size=16", "--learning_rate=0.01"),
        *("--weight_decay=0.3", "--clip_grad=0.001", "--clip_grad=0", "--optimizer=sgd", "--seq_length=10"),
        *("--dt=0.002", "--tau_syn_inv=500", "--tau_mem_inv=300", "--method=super", "--alpha=1"),
    ],
)
def test_a_flag_changes_what_is_learned(tmp_path: Path, fast: Path, flag: str):
    name = flag[2:].partition("=")[0]
    flags = [f for f in FAST if not f.startswith(f"--{name}=")]
    if name == "environment":
        flags.append("--episode_steps=10")
    if flag == "--policy=ann":  # which has no time
        flags.remove("--seq_length=8")
    folder = here(tmp_path, *flags, flag)["run"]
    assert not same(checkpoint(folder)["net"], checkpoint(fast)["net"])


def test_eval_every_says_when_it_is_validated(tmp_path: Path, fast: Path):
    folder = here(tmp_path, *FAST, "--eval_every=1")["run"]
    assert [("valid_reward" in line) for line in metrics(folder)] == [True, True]
    assert [("valid_reward" in line) for line in metrics(fast)] == [False, True]


def test_all_observations_of_training_tell_the_scale(tmp_path: Path):
    figures = here(tmp_path, *FAST)
    assert checkpoint(figures["run"])["net"]["scale.count"] == figures["env_steps"]


def test_solved_is_two_standard_errors_above_the_threshold():
    clear(cartpole)
    cartpole.FLAGS(["cartpole"])
    stage = cartpole.Stage()
    spread = torch.randn(100, generator=torch.Generator().manual_seed(0))
    rewards = 10.0 * (spread - spread.mean()) / spread.std()  # the standard error is 1
    assert stage.solved(rewards + 475 + 2.1)
    assert not stage.solved(rewards + 475 + 1.9)


def test_it_stops_when_solved_unless_told_otherwise(tmp_path: Path):
    # one step is enough where the threshold is a reward that everyone gets
    flags = (*FAST, TINY.replace("Larger", "Easy"), "--eval_every=1", "--episodes=12")
    assert here(tmp_path, *flags)["train_episodes"] == 4
    assert here(tmp_path, *flags, "--nostop_when_solved")["train_episodes"] == 12


def test_episodes_are_rounded_up_to_whole_updates(tmp_path: Path):
    assert here(tmp_path, *FAST, "--episodes=3", "--num_envs=2", "--episode_steps=5")["train_episodes"] == 4


def test_fast_is_short_and_the_whole_run_is_not(tmp_path: Path):
    # the defaults of a whole run, without running it
    here(tmp_path, *FAST, "--episodes=1")
    assert cartpole.FLAGS.num_envs == 4
    cartpole.FLAGS.unparse_flags()
    cartpole.FLAGS(["cartpole", "--nofast"])
    cartpole.FLAGS["episodes"].unparse()
    cartpole.FLAGS["num_envs"].unparse()
    cartpole.prepare(cartpole.FLAGS)
    assert (cartpole.FLAGS.episodes, cartpole.FLAGS.num_envs) == (6400, 32)
    assert cartpole.Stage().number == 100


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_backends_agree(tmp_path: Path, fast: Path, backend: str):
    figures = here(tmp_path, *FAST, f"--backend={backend}")
    reward = next(line["valid_reward"] for line in metrics(fast) if "valid_reward" in line)
    assert figures["valid_reward"] == pytest.approx(reward, abs=1)


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--policy=cnn", "policy"),
        ("--gamma=1", "gamma"),
        ("--gamma=nan", "gamma"),
        ("--gae_lambda=1.5", "gae_lambda"),
        ("--clip_ratio=0", "clip_ratio"),
        ("--entropy=-1", "entropy"),
        ("--input_scale=0", "input_scale"),
        ("--input_scale=inf", "input_scale"),
        ("--entropy=inf", "entropy"),
        ("--episodes=0", "episodes"),
        ("--num_envs=0", "num_envs"),
        ("--episode_steps=-1", "episode_steps"),
        ("--passes=0", "passes"),
        ("--hidden_size=0", "hidden_size"),
        ("--eval_every=0", "eval_every"),
        ("--environment=Nonsense-v1", "Nonsense"),
        ("--environment=Pendulum-v1", "its action must be a Discrete"),
        ("--environment=FrozenLake-v1", "its observation must be a Box"),
        ("--environment=tests.task.tiny:Endless-v0", "--episode_steps"),
        ("--environment=", "environment"),
    ],
)
def test_a_wrong_flag_ends_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, says: str
):
    with pytest.raises(SystemExit) as stopped:
        here(tmp_path, "--fast", flag)
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert says in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_resume_refuses_flags_that_make_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = here(tmp_path, *FAST)["run"]
    with pytest.raises(SystemExit):
        here(tmp_path, f"--resume={folder}", "--environment=Acrobot-v1")
    assert "keeps it" in capsys.readouterr().err


def test_without_a_screen_it_says_so_before_training(tmp_path: Path):
    hidden = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")}
    done = run("cartpole", "--fast", "--render", cwd=tmp_path, env=hidden)
    assert done.returncode == 2
    assert "cannot be shown" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_with_a_screen_it_shows_an_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # a screen that nobody sees, asked for by name
    shown: list[str] = []
    play = Environments.play

    def noted(envs: Environments, *arguments: Any) -> Episodes:
        shown.append(envs.each[0].render_mode)
        return play(envs, *arguments)

    monkeypatch.setattr(Environments, "play", noted)
    here(tmp_path, *FAST, "--render")
    assert shown[-1] == "human"


@pytest.mark.parametrize("missing", ["gymnasium", "PIL"])
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
):
    monkeypatch.setitem(sys.modules, missing, None)  # importing it raises
    with pytest.raises(SystemExit) as stopped:
        here(tmp_path, "--fast", "--video")
    assert stopped.value.code == 1
    assert "pip install 'snnlib[tasks]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_no_split_shares_a_first_state():
    splits = (cartpole.TRIAL, cartpole.TRAIN, cartpole.VALID, cartpole.TEST)
    sets = [set(cartpole.seeds(split, first, 100)) for split in splits for first in (0, 100)]
    assert len(set.union(*sets)) == 100 * len(sets)


def test_an_update_is_proximal_policy_optimisation():
    """The loss of the second pass, after one step down the gradient of the first, by the paper's formula."""
    clear(cartpole)
    flags = ("--policy=ann", "--hidden_size=8", "--passes=2", "--optimizer=sgd", "--learning_rate=0.5")
    cartpole.FLAGS(["cartpole", *flags, "--entropy=0.3", "--clip_ratio=0.02", "--clip_grad=0", "--gamma=0.9"])
    torch.manual_seed(0)
    agent = cartpole.Agent(3, 2)
    seen, actions, rewards = torch.randn(41, 2, 3), torch.randint(2, (40, 2)), torch.rand(40, 2)
    episodes = Episodes(seen, actions, rewards, torch.tensor([40, 30]), torch.tensor([True, False]))
    rewards[30:, 1] = 0.0
    seen, action = episodes.seen, actions[episodes.running]
    mine = copy.deepcopy(agent)
    with torch.no_grad():
        values = mine.values(episodes.observations)
        a = cartpole.advantages(episodes, values)[episodes.running]
        target = a + values[:-1][episodes.running]
        a = (a - a.mean()) / a.std(correction=0)
        before = mine.scores(seen).softmax(1).gather(1, action[:, None])[:, 0]
    for step in range(2):
        chances = mine.scores(seen).softmax(1)
        r = chances.gather(1, action[:, None])[:, 0] / before
        gain = torch.where(a > 0, r.clamp(max=1.02), r.clamp(min=0.98)) * a
        miss = 0.1**2 * (mine.values(seen) - target).square().mean()  # 1 - gamma
        entropy = -(chances * chances.log()).sum(1).mean()
        loss = miss - gain.mean() - 0.3 * entropy
        if step == 0:
            gradients = torch.autograd.grad(loss, list(mine.parameters()))
            with torch.no_grad():
                for p, g in zip(mine.parameters(), gradients, strict=True):
                    p -= 0.5 * g
    assert ((r > 1.02) & (a > 0)).any()
    assert ((r > 1.02) & (a < 0)).any()
    found = cartpole.update(agent, cartpole._train.optimizer(cartpole.FLAGS, agent), episodes)
    wanted = {"loss": loss.item(), "value_loss": miss.item(), "entropy": entropy.item()}
    assert found == pytest.approx(wanted, rel=1e-4)


def test_advantages_are_those_of_the_definition():
    torch.manual_seed(0)
    cartpole.FLAGS(["cartpole", "--gamma=0.9", "--gae_lambda=0.7"])
    lengths, terminated = torch.tensor([6, 3, 4]), torch.tensor([False, True, False])
    inside = torch.arange(6)[:, None] < lengths
    rewards, values = torch.randn(6, 3) * inside, torch.randn(7, 3)
    episodes = Episodes(torch.zeros(7, 3, 1), torch.zeros(6, 3).long(), rewards, lengths, terminated)
    found = cartpole.advantages(episodes, values)
    for b in range(3):
        length = int(lengths[b])
        value = values[:, b].clone()
        if terminated[b]:
            value[length] = 0.0
        change = [float(rewards[t, b] + 0.9 * value[t + 1] - value[t]) for t in range(length)]
        for t in range(6):
            expected = sum((0.9 * 0.7) ** k * d for k, d in enumerate(change[t:]))
            assert float(found[t, b]) == pytest.approx(expected, abs=1e-5)
