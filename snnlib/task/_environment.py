"""Environments of gymnasium: made, checked, played side by side, and filmed."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snnlib._words import first_line
from snnlib.task._files import write

__all__ = ["Environments", "Episodes", "WrongEnvironmentError", "show", "try_to_draw", "write_gif"]


class WrongEnvironmentError(ValueError):
    """There is no such environment, or it is not for these policies; the message is for the user."""


class Episodes(NamedTuple):
    """Episodes that ran side by side. L is the length of the longest; what lies behind an end is zero."""

    observations: Tensor
    """``[L + 1, B, features]``: before each action, and after the last one."""
    actions: Tensor
    """``[L, B]``, counted from 0."""
    rewards: Tensor
    """``[L, B]``."""
    lengths: Tensor
    """Actions of each episode, ``[B]``."""
    terminated: Tensor
    """Whether an episode came to its own end, and not to a time limit, ``[B]``."""

    @property
    def running(self) -> Tensor:
        """Whether an episode was still running at a step, ``[L, B]``."""
        return torch.arange(len(self.actions))[:, None] < self.lengths

    @property
    def seen(self) -> Tensor:
        """The observations that were answered with an action, one after another, ``[decisions, features]``."""
        return self.observations[:-1][self.running]

    @property
    def returns(self) -> Tensor:
        """The sum of the rewards of each episode, ``[B]``."""
        return self.rewards.sum(0)


def library() -> Any:
    """gymnasium.

    Raises:
        ImportError: it is not installed.
    """
    # pygame greets on standard output
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import gymnasium
    except ImportError as missing:
        message = "environments need gymnasium: pip install 'snnlib[tasks]'"
        raise ImportError(f"{message} ({missing})") from missing
    return gymnasium


class Environments:
    """A number of the same environment, each with a Box of observations and Discrete actions.

    Parameters:
        name: as it is registered, ``CartPole-v1``, or ``module:Name-v0`` to import a module first.
        number: how many.
        limit: the longest episode where the environment has no limit of its own; 0 is none.
        shorten: whether ``limit`` also holds where the environment has one.
        render_mode: None, "human" or "rgb_array", which keeps a picture of every step in ``frames``.

    Raises:
        WrongEnvironmentError: there is none of that name, it cannot be made, its spaces are others, or neither
            it nor ``limit`` ends an episode.
        ImportError: gymnasium is not installed.
    """

    def __init__(
        self, name: str, number: int, limit: int = 0, shorten: bool = False, render_mode: str | None = None
    ) -> None:
        gymnasium = library()
        *module, registered = name.split(":")
        if len(module) > 1 or not registered or any(not m or m.startswith(".") for m in module):
            raise WrongEnvironmentError(
                f"--environment={name!r} must be a name, or a module, a colon and a name"
            )
        try:
            # its checker takes a fifth of a step of CartPole
            options = {"render_mode": render_mode, "disable_env_checker": True}
            self.each = [gymnasium.make(name, **options) for _ in range(number)]
        except Exception as error:  # gymnasium's, or any of the module's, which may be a stranger's
            raise WrongEnvironmentError(f"--environment={name}: {first_line(error)}") from error
        first = self.each[0]
        _check_space(name, "observation", first.observation_space, gymnasium.spaces.Box)
        _check_space(name, "action", first.action_space, gymnasium.spaces.Discrete)
        own = first.spec.max_episode_steps
        self.limit = limit if shorten or own is None else 0
        if own is None and not limit:
            raise WrongEnvironmentError(
                f"--environment={name} has no time limit; give one with --episode_steps"
            )
        self.features = int(np.prod(first.observation_space.shape))
        self.actions = int(first.action_space.n)
        self.threshold: float | None = first.spec.reward_threshold
        self.pictures_a_second = float(first.metadata.get("render_fps") or 30)
        self.frames: list[Any] = []
        self._filmed = render_mode == "rgb_array"
        self._first_action = int(getattr(first.action_space, "start", 0))

    def play(self, seeds: Sequence[int], act: Callable[[Tensor], Tensor]) -> Episodes:
        """One episode in each environment, all step by step together until the last has ended.

        gymnasium's ``SyncVectorEnv`` takes as long a step, and steps the ones that have ended too.

        Parameters:
            seeds: of the first states, one each.
            act: from the observations of the episodes that still run, ``[B, features]``, to actions ``[B]``.
        """
        number = len(self.each)
        seen = [self._picture(env, env.reset(seed=seed)[0]) for env, seed in zip(self.each, seeds, strict=True)]
        observations, actions, rewards = [np.stack(seen)], [], []
        lengths, terminated = np.zeros(number, np.int64), np.zeros(number, bool)
        running = np.arange(number)
        while len(running):
            action, reward = np.zeros(number, np.int64), np.zeros(number, np.float32)
            after, ended = np.zeros_like(observations[0]), np.zeros(number, bool)
            action[running] = act(torch.from_numpy(observations[-1][running])).cpu().numpy()
            for k in running.tolist():
                env = self.each[k]
                new, reward[k], terminated[k], cut, _ = env.step(int(action[k]) + self._first_action)
                after[k], ended[k] = self._picture(env, new), terminated[k] or cut
            lengths[running] += 1
            observations.append(after)
            actions.append(action)
            rewards.append(reward)
            running = running[:0] if len(actions) == self.limit else running[~ended[running]]
        arrays = (np.stack(observations), np.stack(actions), np.stack(rewards), lengths, terminated)
        return Episodes(*map(torch.from_numpy, arrays))

    def _picture(self, env: Any, observation: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The observation as a row of numbers; films the environment where it is filmed."""
        if self._filmed:
            self.frames.append(env.render())
        return np.asarray(observation, np.float32).reshape(-1)

    def close(self) -> None:
        for env in self.each:
            env.close()


def _check_space(name: str, what: str, space: Any, kind: type) -> None:
    if not isinstance(space, kind):
        raise WrongEnvironmentError(
            f"--environment={name}: its {what} must be a {kind.__name__}, it is {space}"
        )


def try_to_draw(name: str, limit: int, render_mode: str) -> None:
    """Draw the first picture and throw it away, so that what is missing is known before training.

    Raises:
        WrongEnvironmentError: the environment cannot be drawn, or not on a screen.
        ImportError: Pillow, which writes pictures, is not installed.
    """
    if render_mode == "rgb_array":
        import PIL.Image  # noqa: F401
    envs = Environments(name, 1, limit, render_mode=render_mode)
    try:
        envs.each[0].reset(seed=0)
        envs.each[0].render()
        if render_mode == "human" and _unseen():
            raise WrongEnvironmentError("there is no screen; --video writes the episode to a file")
    except Exception as error:  # pygame's error has no name here, other environments have their own
        raise WrongEnvironmentError(f"--environment={name} cannot be shown: {first_line(error)}") from error
    finally:
        envs.close()


def show(
    name: str, limit: int, render_mode: str, seed: int, act: Callable[[Tensor], Tensor], path: Path
) -> None:
    """Play one episode, on the screen ("human") or into an animation at ``path`` ("rgb_array").

    Parameters:
        name, limit, render_mode: see :class:`Environments`.
        seed, act: see :meth:`Environments.play`.
    """
    envs = Environments(name, 1, limit, render_mode=render_mode)
    envs.play([seed], act)
    envs.close()
    if envs.frames:
        write_gif(path, envs.frames, envs.pictures_a_second)


def _unseen() -> bool:
    """Whether pygame draws into memory: SDL's choice where there is no screen, unless someone asked for it."""
    pygame = sys.modules.get("pygame")
    if pygame is None or not pygame.display.get_init() or "SDL_VIDEODRIVER" in os.environ:
        return False
    return pygame.display.get_driver() in ("dummy", "offscreen")


def write_gif(path: Path, frames: Sequence[Any], rate: float, width: int = 300) -> None:
    """Write pictures ``[H, W, 3]`` as an animation, ``rate`` of them a second; at most 25 a second are kept."""
    from PIL import Image

    every = max(1, round(rate / 25))
    pictures = [Image.fromarray(frame) for frame in frames[::every]]
    size = (width, round(width * pictures[0].height / pictures[0].width))
    first, *rest = [picture.resize(size, Image.Resampling.LANCZOS) for picture in pictures]
    gif = io.BytesIO()
    first.save(gif, "GIF", save_all=True, append_images=rest, duration=round(1000 * every / rate), loop=0)
    write(path, gif.getvalue())
