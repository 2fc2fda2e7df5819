"""Reinforcement learning: a spiking policy balances CartPole, or another environment of gymnasium.

    python -m snnlib.task.cartpole
    python -m snnlib.task.cartpole --policy=lsnn --video
    python -m snnlib.task.cartpole --environment=Acrobot-v1

For each decision the policy starts at rest and is shown the observation for --seq_length time steps; the action
is drawn from the voltages of its readout. The policy gradient has a baseline and a clipped ratio (PPO, Schulman
et al. 2017). Training ends when validation episodes are solved. The reward that is reported is the mean of 100
test episodes, with the best action of each state, from first states that neither training nor validation saw.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from absl import flags
from torch import Tensor, nn
from torch.distributions import Categorical

from snnlib.functional.lif import LIFParameters
from snnlib.functional.lsnn import LSNNParameters
from snnlib.module.policy import RunningScale, SpikingPolicy, tanh_network
from snnlib.task import _environment, _flags, _run, _train
from snnlib.task._error import DivergedError, RunError
from snnlib.task._flags import POSITIVE, at_least, between, define, fill, one_of, shared
from snnlib.task._launch import launch

__all__ = ["FLAGS", "Agent", "policy", "prepare", "train"]

NEEDS = ("gymnasium", "tensorboard", "matplotlib", "PIL")

# fmt: off
FLAGS = shared(
    device="cpu", seed=0, batch_size=512, learning_rate=2e-3, weight_decay=0.0, clip_grad=0.5, optimizer="adam",
    seq_length=16, dt=0.001, tau_syn_inv=200.0, tau_mem_inv=100.0, method="triangle", alpha=None,
    backend="auto", output_dir="runs", resume=None, plot=True, fast=False,
)
define(FLAGS, {
    "policy": ("snn",
        "Recurrent LIF neurons, the same with adaptive thresholds, or two layers of tanh.",
        one_of("snn", "lsnn", "ann")),
    "environment": ("CartPole-v1",
        "An environment of gymnasium with a Box of observations and Discrete actions."),
    "episodes": (None,
        "Most training episodes, rounded up to whole updates of --num_envs; 6400 if not given.", at_least(1)),
    "num_envs": (None, "Episodes in an update; 32 if not given.", at_least(1)),
    "episode_steps": (0,
        "Longest training episode, and any episode of an environment without a limit; 0: the environment's.",
        at_least(0)),
    "gamma": (0.99, "Discount of a reward one step later.", between(0.0, 0.9999)),
    "gae_lambda": (0.95,
        "Between the baseline's own next value (0) and the whole return (1) as the judge of an action.",
        between(0.0, 1.0)),
    "passes": (4, "Passes over the episodes of an update.", at_least(1)),
    "clip_ratio": (0.2, "How far an update moves an action's probability, relative to what it was.", POSITIVE),
    "entropy": (0.01, "Weight of the policy's entropy in the loss.", at_least(0.0)),
    "hidden_size": (64, "Neurons of the policy.", at_least(1)),
    "input_scale": (5.0,
        "Current of an observation one standard deviation from the mean, in thresholds (snn, lsnn).", POSITIVE),
    "eval_every": (5, "Updates between validations.", at_least(1)),
    "stop_when_solved": (True, "End training when validation is solved."),
    "render": (False, "Show a test episode on the screen at the end."),
    "video": (False, "Write a test episode to episode.gif."),
})
# fmt: on

TRIAL, TRAIN, VALID, TEST = range(4)


def prepare(values: flags.FlagValues) -> None:
    """Fill in what ``--fast`` makes smaller, and refuse an environment before anything is written."""
    fill(values, usual={"episodes": 6400, "num_envs": 32}, fast={"episodes": 8, "num_envs": 4})
    if values.policy == "ann":
        spiking = ("seq_length", "dt", "tau_syn_inv", "tau_mem_inv", "method", "alpha", "backend")
        _flags.refuse_beside("--policy=ann", values, *spiking)
    name, limit = values.environment, values.episode_steps
    try:
        _environment.Environments(name, 1, limit).close()
        for mode in render_modes(values):
            _environment.try_to_draw(name, limit, mode)
    except _environment.WrongEnvironmentError as error:
        _flags.fail(str(error), code=2)


def render_modes(values: flags.FlagValues) -> list[str]:
    """How gymnasium is to draw the test episode that is shown."""
    return ["human"] * values.render + ["rgb_array"] * values.video


def policy(inputs: int, actions: int) -> nn.Module:
    """From scaled observations ``[B, inputs]`` to scores of actions ``[B, actions]``."""
    if FLAGS.policy == "ann":
        return tanh_network(inputs, FLAGS.hidden_size, actions)
    p = (LSNNParameters if FLAGS.policy == "lsnn" else LIFParameters)(
        tau_syn_inv=FLAGS.tau_syn_inv, tau_mem_inv=FLAGS.tau_mem_inv, method=FLAGS.method, alpha=FLAGS.alpha
    )
    shown = {"seq_length": FLAGS.seq_length, "input_scale": FLAGS.input_scale}
    return SpikingPolicy(inputs, FLAGS.hidden_size, actions, p, **shown, dt=FLAGS.dt, backend=FLAGS.backend)


class Agent(nn.Module):
    """The policy, the baseline that judges it (an ordinary network), and the scale of what both see."""

    def __init__(self, inputs: int, actions: int) -> None:
        super().__init__()
        self.policy = policy(inputs, actions)
        self.baseline = tanh_network(inputs, FLAGS.hidden_size, 1)
        self.scale = RunningScale(inputs)

    def scores(self, observations: Tensor) -> Tensor:
        scores: Tensor = self.policy(self.scale(observations))
        if not scores.isfinite().all():
            raise DivergedError("the policy's scores are not finite, they hold nan or inf")
        return scores

    def values(self, observations: Tensor) -> Tensor:
        """Expected discounted rewards; with rewards of 1 the network's own output stays within 1."""
        value: Tensor = self.baseline(self.scale(observations)).squeeze(-1) / (1 - FLAGS.gamma)
        return value

    @torch.no_grad()
    def drawn(self, observations: Tensor) -> Tensor:
        action: Tensor = Categorical(logits=self.scores(observations)).sample()
        return action

    @torch.no_grad()
    def greedy(self, observations: Tensor) -> Tensor:
        return self.scores(observations).argmax(1)


def seeds(split: int, first: int, number: int) -> Sequence[int]:
    """Seeds of first states; those of different splits have different remainders by four."""
    start = 4 * (FLAGS.seed * 1_000_000 + first) + split
    return range(start, start + 4 * number, 4)


def advantages(episodes: _environment.Episodes, values: Tensor) -> Tensor:
    """How much better an action was than the baseline expected, ``[L, B]`` (GAE, Schulman et al. 2016).

    ::

        d[t] = r[t] + gamma V[t+1] - V[t]
        A[t] = d[t] + gamma gae_lambda A[t+1]

    V is zero after an end of the environment's own; after a time limit it is what the baseline expects.
    """
    running = episodes.running
    last = torch.arange(len(running))[:, None] == episodes.lengths - 1
    follows = values[1:] * ~(last & episodes.terminated)
    change = (episodes.rewards + FLAGS.gamma * follows - values[:-1]) * running
    result = torch.zeros_like(change)
    ahead = torch.zeros_like(change[0])
    for t in range(len(change) - 1, -1, -1):
        ahead = change[t] + FLAGS.gamma * FLAGS.gae_lambda * ahead
        result[t] = ahead
    return result


def update(agent: Agent, optim: torch.optim.Optimizer, episodes: _environment.Episodes) -> dict[str, float]:
    """A few passes of gradient steps over the episodes; the figures of the last pass."""
    device = next(agent.parameters()).device
    running = episodes.running
    seen, action = episodes.seen.to(device), episodes.actions[running].to(device)
    with torch.no_grad():
        values = agent.values(episodes.observations).cpu()
        before = Categorical(logits=agent.scores(seen)).log_prob(action)
    advantage = advantages(episodes, values)[running]
    target = (values[:-1][running] + advantage).to(device) * (1 - FLAGS.gamma)
    advantage = ((advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)).to(device)
    figures = {"loss": 0.0, "value_loss": 0.0, "entropy": 0.0}
    for _ in range(FLAGS.passes):
        figures = dict.fromkeys(figures, 0.0)
        for index in torch.randperm(len(action)).to(device).split(FLAGS.batch_size):
            policy = Categorical(logits=agent.scores(seen[index]))
            ratio = (policy.log_prob(action[index]) - before[index]).exp()
            clipped = ratio.clamp(1 - FLAGS.clip_ratio, 1 + FLAGS.clip_ratio)
            gain = torch.minimum(ratio * advantage[index], clipped * advantage[index]).mean()
            entropy = policy.entropy().mean()
            miss = (agent.values(seen[index]) * (1 - FLAGS.gamma) - target[index]).square().mean()
            loss = miss - gain - FLAGS.entropy * entropy
            optim.zero_grad()
            loss.backward()
            if FLAGS.clip_grad:
                nn.utils.clip_grad_norm_(agent.parameters(), FLAGS.clip_grad)
            optim.step()
            share = len(index) / len(action)
            for name, value in (("loss", loss), ("value_loss", miss), ("entropy", entropy)):
                figures[name] += _train.finite(value) * share
    return figures


class Stage:
    """Where a policy is judged by its best actions, in whole episodes of the environment."""

    def __init__(self) -> None:
        self.number = 4 if FLAGS.fast else 100
        self.envs = _environment.Environments(FLAGS.environment, self.number, FLAGS.episode_steps)

    def rewards(self, act: Callable[[Tensor], Tensor], split: int) -> Tensor:
        """The reward of each of the validation or test episodes."""
        return self.envs.play(seeds(split, 0, self.number), act).returns

    def solved(self, rewards: Tensor) -> bool:
        """Whether validation is two standard errors above the threshold, so that the test will be above it."""
        error = float(rewards.std()) / self.number**0.5
        return self.envs.threshold is not None and float(rewards.mean()) - 2 * error >= self.envs.threshold


def train(run: _run.Run) -> dict[str, Any]:
    torch.set_num_threads(1)  # nets so small that threads would wait for each other longer than they compute
    stage = Stage()
    envs = _environment.Environments(FLAGS.environment, FLAGS.num_envs, FLAGS.episode_steps, shorten=True)
    agent = Agent(envs.features, envs.actions).to(_train.device(FLAGS))
    optim = _train.optimizer(FLAGS, agent)
    # every update plays whole episodes from seeds of its own: a checkpoint needs nothing of the environments
    start = {"updates": 0, "env_steps": 0, "best": None, "solved": False, "random": 0.0, "untrained": 0.0}
    at = run.track(start, net=agent, optimizer=optim)
    if not at["updates"]:
        at |= before_training(agent, stage, envs)
    updates = -(-FLAGS.episodes // FLAGS.num_envs)
    if at["best"] is None and at["updates"] >= updates:
        played = at["updates"] * FLAGS.num_envs
        raise RunError(
            f"--episodes={FLAGS.episodes}: {played} were played and none has validated yet; give more"
        )
    run.watch(agent, optim, lambda: f"update {at['updates'] + 1}")
    while at["updates"] < updates and not (at["solved"] and FLAGS.stop_when_solved):
        started = time.perf_counter()
        episodes = envs.play(seeds(TRAIN, at["updates"] * FLAGS.num_envs, FLAGS.num_envs), agent.drawn)
        figures = {"train_reward": float(episodes.returns.mean()), **update(agent, optim, episodes)}
        agent.scale.see(episodes.seen)
        at["updates"] += 1
        at["env_steps"] += len(episodes.seen)
        better = False
        if at["updates"] % FLAGS.eval_every == 0 or at["updates"] == updates:
            rewards = stage.rewards(agent.greedy, VALID)
            figures["valid_reward"] = float(rewards.mean())
            better = at["best"] is None or figures["valid_reward"] >= at["best"]  # of equals the later
            at |= {"best": figures["valid_reward"]} if better else {}
            at["solved"] = stage.solved(rewards)
        seconds = time.perf_counter() - started
        run.log(at["env_steps"], update=at["updates"], **figures, update_seconds=seconds)
        if better:
            run.save(at["env_steps"], "best.pt")
        run.pause(at["env_steps"], due=True)
    run.pause(at["env_steps"])
    return report(run, agent, at, stage)


def before_training(agent: Agent, stage: Stage, envs: _environment.Environments) -> dict[str, float]:
    """Random actions tell the scale of the observations; they and the untrained policy are the controls."""
    trial = envs.play(seeds(TRIAL, 0, len(envs.each)), lambda x: torch.randint(envs.actions, (len(x),)))
    agent.scale.see(trial.seen)
    return {
        "env_steps": len(trial.seen),
        "random": float(stage.rewards(lambda x: torch.randint(envs.actions, (len(x),)), TEST).mean()),
        "untrained": float(stage.rewards(agent.greedy, TEST).mean()),
    }


def report(run: _run.Run, agent: Agent, at: dict[str, Any], stage: Stage) -> dict[str, Any]:
    run.load_into(run.read_checkpoint("best.pt"), net=agent)
    threshold = stage.envs.threshold
    mean = float(stage.rewards(agent.greedy, TEST).mean())
    (seed,), film = seeds(TEST, 0, 1), run.folder / "episode.gif"
    for mode in render_modes(FLAGS):
        _environment.show(FLAGS.environment, FLAGS.episode_steps, mode, seed, agent.greedy, film)
    if FLAGS.plot:
        from snnlib.task import _plot

        run.figure("curve", _plot.rewards(run.metrics(), threshold, at["random"]))
    return {
        "environment": FLAGS.environment,
        "policy": FLAGS.policy,
        "mean_reward": round(mean, 2),
        "solved": None if threshold is None else mean >= threshold,
        "threshold": threshold,
        "valid_reward": round(at["best"], 2),
        "untrained_reward": round(at["untrained"], 2),
        "random_reward": round(at["random"], 2),
        "test_episodes": stage.number,
        "train_episodes": at["updates"] * FLAGS.num_envs,
        "env_steps": at["env_steps"],
    }


if __name__ == "__main__":
    launch(FLAGS, "cartpole", train, __doc__, prepare=prepare)
