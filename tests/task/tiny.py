"""A small environment for the tests: say which of two numbers is larger. ``tests.task.tiny:Larger-v0``."""

from typing import Any

import gymnasium
import numpy as np


class Larger(gymnasium.Env):
    """Ten turns with a reward of 1 for each right answer; observations ``[1, 2]``, answers 3 and 4."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1, 2))
    action_space = gymnasium.spaces.Discrete(2, start=3)

    def __init__(self, turns: int = 10, render_mode: str | None = None) -> None:
        self.turns, self.render_mode, self.done = turns, render_mode, 0

    def _next(self) -> np.ndarray:
        self.numbers = self.np_random.uniform(-1, 1, (1, 2)).astype(np.float32)
        return self.numbers

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.done = 0
        return self._next(), {}

    def step(self, action: int) -> Any:
        assert action in (3, 4)
        reward = float(action - 3 == self.numbers.argmax())
        self.done += 1
        return self._next(), reward, self.done >= self.turns, False, {}


class Sized(Larger):
    """What nobody can make by its name alone."""

    def __init__(self, size: int, render_mode: str | None = None) -> None:
        super().__init__(size, render_mode)


here = "tests.task.tiny:Larger"
gymnasium.register("Larger-v0", here, max_episode_steps=50, reward_threshold=7.5)
gymnasium.register("Endless-v0", here, kwargs={"turns": 10**9})
gymnasium.register("Easy-v0", here, kwargs={"turns": 3}, reward_threshold=0.0, max_episode_steps=50)
gymnasium.register("Sized-v0", "tests.task.tiny:Sized")
