"""Environments side by side, against one environment alone."""

import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

from snnlib.task._environment import Environments, WrongEnvironmentError, write_gif

TINY, ENDLESS = "tests.task.tiny:Larger-v0", "tests.task.tiny:Endless-v0"


def leaning(x: torch.Tensor) -> torch.Tensor:
    """Push the cart to where the pole leans: a few dozen steps."""
    return (x[:, 2] > 0).long()


def alone(seed: int) -> list[tuple[np.ndarray, int, float]]:
    """The same episode, by itself and without the library's code."""
    env, steps, ended = gymnasium.make("CartPole-v1"), [], False
    seen, _ = env.reset(seed=seed)
    while not ended:
        action = int(seen[2] > 0)
        after, reward, end, cut, _ = env.step(action)
        steps.append((seen, action, float(reward)))
        seen, ended = after, end or cut
    return [*steps, (seen, -1, 0.0)]


def test_episodes_side_by_side_are_those_of_each_alone():
    episodes = Environments("CartPole-v1", 3).play(range(3), leaning)
    assert len(set(episodes.lengths.tolist())) > 1
    for index in range(3):
        expected = alone(index)
        length = int(episodes.lengths[index])
        assert length == len(expected) - 1
        seen = np.stack([step[0] for step in expected])
        assert torch.equal(episodes.observations[: length + 1, index], torch.from_numpy(seen))
        assert episodes.actions[:length, index].tolist() == [step[1] for step in expected[:-1]]
        assert episodes.rewards[:length, index].tolist() == [step[2] for step in expected[:-1]]
        assert episodes.rewards[length:, index].sum() == 0
    assert episodes.terminated.all()
    assert episodes.returns.tolist() == episodes.lengths.tolist()
    assert len(episodes.seen) == int(episodes.lengths.sum()) == int(episodes.running.sum())


def test_a_time_limit_is_no_end_of_the_environments_own():
    cut = Environments("CartPole-v1", 3, limit=5, shorten=True).play(range(3), leaning)
    assert cut.lengths.tolist() == [5, 5, 5]
    assert not cut.terminated.any()
    whole = Environments("CartPole-v1", 3, limit=5).play(range(3), leaning)
    assert min(whole.lengths) > 5
    # after its own limit gymnasium says "truncated", here too
    acrobot = Environments("Acrobot-v1", 1).play([0], lambda x: torch.ones(len(x), dtype=torch.long))
    assert acrobot.lengths.tolist() == [500]
    assert not acrobot.terminated.any()


def test_actions_that_start_at_three_and_observations_with_two_dimensions():
    envs = Environments(TINY, 2)
    assert (envs.features, envs.actions, envs.threshold) == (2, 2, 7.5)
    assert envs.play([0, 1], lambda x: x.argmax(1)).returns.tolist() == [10.0, 10.0]
    assert envs.play([0, 1], lambda x: x.argmin(1)).returns.tolist() == [0.0, 0.0]


def test_an_environment_without_a_limit_is_given_one():
    envs = Environments(ENDLESS, 2, limit=7)
    episodes = envs.play([0, 1], lambda x: x.argmax(1))
    assert episodes.lengths.tolist() == [7, 7]
    assert not episodes.terminated.any()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Nonsense-v1", "doesn't exist"),
        ("not a name", "Malformed"),
        ("Pendulum-v1", "its action must be a Discrete, it is Box"),
        ("FrozenLake-v1", "its observation must be a Box, it is Discrete"),
        ("no_such_module:Nonsense-v1", "no_such_module"),
        ("tests.task.tiny:Sized-v0", "missing 1 required positional argument: 'size'"),
        (ENDLESS, "--episode_steps"),
    ],
)
def test_what_these_policies_cannot_play(name: str, says: str):
    with pytest.raises(WrongEnvironmentError, match=says) as caught:
        Environments(name, 1)
    assert f"--environment={name}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", ":CartPole-v1", "a:b:c", "gymnasium:", ".foo:CartPole-v1", "..:CartPole-v1"]
)
def test_a_name_that_is_none(name: str):
    with pytest.raises(
        WrongEnvironmentError, match=f"--environment={name!r} must be a name, or a module, a colon"
    ):
        Environments(name, 1)


def test_a_module_that_is_no_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "no_python.py").write_text("def (")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WrongEnvironmentError, match=r"--environment=no_python:Cart-v0: .*no_python.py, line 1"):
        Environments("no_python:Cart-v0", 1)


def test_without_gymnasium(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)  # importing it raises
    with pytest.raises(ImportError, match=r"pip install 'snnlib\[tasks\]'"):
        Environments("CartPole-v1", 1)


def test_an_episode_is_filmed_frame_by_frame(tmp_path: Path):
    envs = Environments("CartPole-v1", 1, render_mode="rgb_array")
    episodes = envs.play([0], leaning)
    envs.close()
    assert len(envs.frames) == int(episodes.lengths) + 1
    assert envs.pictures_a_second == 50
    write_gif(tmp_path / "episode.gif", envs.frames, 50)
    film = Image.open(tmp_path / "episode.gif")
    assert film.size == (300, 200)
    time = 0
    for index in range(film.n_frames):
        film.seek(index)
        time += film.info["duration"]
    assert time == 40 * len(envs.frames[::2])  # 25 a second, in real time
    first, last = Image.open(tmp_path / "episode.gif").convert("RGB"), film.convert("RGB")
    assert np.abs(np.asarray(first, float) - np.asarray(last, float)).max() > 100  # the pole fell
