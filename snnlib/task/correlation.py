"""Correlation: two patterns told apart by which inputs spike together, by synapses that learn as they run.

    python -m snnlib.task.correlation
    python -m snnlib.task.correlation --rule=stdp
    python -m snnlib.task.correlation --control=shuffled

All channels are Poisson spikes of the same mean rate. In class 0 one random subset of channels tends to spike
together, in class 1 another. An episode has new subsets and new weights: the net sees a sample of class 0 while
a teacher's current lets one half of its neurons spike, then one of class 1 while it lets the other half.
Meanwhile a local rule changes the weights: a change depends on the synapse's own correlation sensor and its own
weight, and each neuron keeps the sum of its weights. Then the weights stay, the teacher is silent, and the
readout says of which class a third sample is. What training changes, by gradient through the whole episode, is
the rule (four numbers, all 0 to begin with), the teacher and the readout.

The episodes that choose the epoch and those that are reported have seeds of their own. The result also tells
how the trained net does where the sensors of a neuron are exchanged, and where only the rates are left.
"""

import time
from functools import partial
from typing import Any

import torch
from absl import flags
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from snnlib.dataset.correlated import Episodes, generated_episodes, without_timing
from snnlib.functional.correlation import (
    CorrelationSensorParameters,
    CorrelationSensorState,
    correlation_based_update,
    correlation_sensor_step,
)
from snnlib.functional.lif import LIFParameters
from snnlib.functional.stdp import STDPParameters, STDPState, stdp_step_linear
from snnlib.module.li import LI
from snnlib.module.lif import LIF
from snnlib.module.sequential import SequentialState
from snnlib.task import _run, _train
from snnlib.task._batches import batch_sizes
from snnlib.task._flags import POSITIVE, at_least, between, define, fill, one_of, shared
from snnlib.task._launch import launch
from snnlib.task._random import own_seed

__all__ = ["FLAGS", "PlasticNet", "prepare", "train"]

NEEDS = ("tensorboard", "matplotlib")

CONTROLS = ["none", "shuffled", "rates"]
# fmt: off
FLAGS = shared(
    device="auto", seed=0, epochs=3, batch_size=32, learning_rate=0.02, weight_decay=0.0, clip_grad=1.0,
    optimizer="adam", seq_length=150, dt=0.001, tau_syn_inv=500.0, tau_mem_inv=200.0, method="arctan",
    alpha=None, backend="auto", output_dir="runs", resume=None, save_every=0, plot=True, fast=False,
)
define(FLAGS, {
    "rule": ("gradient",
        "What changes the weights within an episode: a linear function of sensors and weight, learned by "
        "gradient, or spike-timing-dependent plasticity with fixed rates.", one_of("gradient", "stdp")),
    "control": ("none",
        "What must fail: the sensors of a neuron's synapses are exchanged at random, or all spikes are moved "
        "to random times, so that the rates alone remain; in training and in testing.", one_of(*CONTROLS)),
    "train_episodes": (320, "Episodes of an epoch.", at_least(1)),
    "test_episodes": (1000, "Episodes that are reported; a quarter as many validate.", at_least(4)),
    "channels": (100, "Input channels.", at_least(2)),
    "subset": (30, "Channels that are correlated in a class.", at_least(1)),
    "poisson_rate": (40.0, "Mean rate of every channel, Hz.", POSITIVE),
    "correlation": (0.6, "Share of its steps in which a channel follows its subset.", between(0.0, 1.0)),
    "hidden_size": (8, "Plastic neurons, half for each class.", at_least(2)),
    "initial_weight": (0.075, "Mean weight of a neuron, in thresholds, which it keeps.", POSITIVE),
    "plasticity": (0.2, "Factor of every change by the local rule.", at_least(0.0)),
    "update_every": (25, "Steps between two readings of the sensors, and scalings.", at_least(1)),
    "tau_sensor_inv": (200.0, "Inverse time constant of sensors and STDP, 1/s.", POSITIVE),
})
# fmt: on


def consistent(f: dict[str, Any]) -> bool:
    if 2 * f["subset"] > f["channels"]:
        raise flags.ValidationError(f"two subsets of {f['subset']} do not fit into {f['channels']} channels")
    if f["poisson_rate"] * f["dt"] > 1:
        raise flags.ValidationError(f"{f['poisson_rate']} Hz are more than a spike in a step of {f['dt']} s")
    if f["method"] == "adjoint" and f["rule"] == "stdp":
        raise flags.ValidationError("with --rule=stdp weights change at every step; adjoint needs sequences")
    if f["update_every"] > f["seq_length"]:
        raise flags.ValidationError(f"no weight changes in {f['seq_length']} steps, fewer than --update_every")
    return True


NAMES = ["subset", "channels", "poisson_rate", "dt", "update_every", "seq_length", "method", "rule"]
flags.register_multi_flags_validator(NAMES, consistent, flag_values=FLAGS)


def prepare(values: flags.FlagValues) -> None:
    """Shrink the run for ``--fast``."""
    fast = {"epochs": 2, "train_episodes": 16, "batch_size": 8, "test_episodes": 16, "seq_length": 75}
    fill(values, usual={}, fast=fast)


class PlasticNet(nn.Module):
    """Neurons whose weights a local rule changes while they run, and a readout."""

    def __init__(self) -> None:
        super().__init__()
        n, taus = FLAGS.hidden_size, {"tau_syn_inv": FLAGS.tau_syn_inv, "tau_mem_inv": FLAGS.tau_mem_inv}
        p = LIFParameters(**taus, method=FLAGS.method, alpha=FLAGS.alpha)
        self.class_of: Tensor
        self.register_buffer("class_of", torch.arange(n) * 2 // n)
        # changes nothing before it is learned
        self.rule = nn.Linear(3, 1) if FLAGS.rule == "gradient" else None
        for parameter in self.rule.parameters() if self.rule else ():
            nn.init.zeros_(parameter)
        # the teacher's current, in thresholds, into the neurons of the class that is shown and into the others
        self.teacher = nn.Parameter(torch.tensor([0.4, -2.0]))
        options = {"dt": FLAGS.dt, "backend": FLAGS.backend}
        self.neurons = LIF(p, **options)
        readout = nn.Linear(n, 2)
        with torch.no_grad():  # to begin with a neuron speaks for its class
            readout.weight.copy_(10.0 * (self.class_of == torch.arange(2).unsqueeze(1)))
            readout.bias.zero_()
        self.answer = SequentialState(LIF(p, **options), readout, LI(**options))

    def forward(self, episodes: Episodes, control: str) -> tuple[Tensor, Tensor, Tensor]:
        """Learn from the lessons, then answer: logits ``[B, 2]``, weights before and after ``[B, N, M]``."""
        lessons, question = episodes.lessons, episodes.question
        if control == "rates":
            lessons, question = torch.stack([without_timing(x) for x in lessons]), without_timing(question)
        sensed = lessons
        if control == "shuffled":
            place = torch.rand(lessons.shape[2:]).argsort(1).to(lessons.device)
            sensed = lessons.gather(3, place.expand_as(lessons))
        spread = 0.5 + torch.rand(len(episodes.answer), FLAGS.hidden_size, FLAGS.channels).to(lessons.device)
        before = weights = FLAGS.initial_weight * spread
        for label in range(2):
            current = torch.where(self.class_of == label, self.teacher[0], self.teacher[1])
            weights = self.learn(lessons[label], sensed[label], weights, FLAGS.dt * FLAGS.tau_syn_inv * current)
        voltage, _ = self.answer(torch.einsum("bnm,tbm->tbn", weights, question))
        return voltage.mean(0), before, weights

    def learn(self, spikes: Tensor, sensed: Tensor, weights: Tensor, current: Tensor) -> Tensor:
        """The weights after a lesson ``[T, B, M]``; the sensors see ``sensed``, the same but for a control."""
        total = weights.sum(2, keepdim=True)
        traces = STDPState(torch.zeros_like(spikes[0]), torch.zeros_like(weights[..., 0]))
        sensors = CorrelationSensorState(*[torch.zeros_like(weights)] * 4)
        tau, eta = FLAGS.tau_sensor_inv, FLAGS.plasticity
        sensor = CorrelationSensorParameters(tau_c_inv=tau, tau_ac_inv=tau)
        stdp = STDPParameters(tau_pre_inv=tau, tau_post_inv=tau, eta_plus=eta, eta_minus=eta)
        state, step = None, 0
        # as long as the weights stay
        length = 1 if self.rule is None else FLAGS.update_every
        for x, seen in zip(spikes.split(length), sensed.split(length), strict=True):
            currents = torch.einsum("bnm,tbm->tbn", weights, x) + current
            output, state = self.neurons(currents, state)
            for pre, post in zip(seen, output, strict=True):
                step += 1
                if self.rule is None:
                    weights, traces = stdp_step_linear(pre, post, weights, traces, stdp, FLAGS.dt)
                else:
                    sensors = correlation_sensor_step(pre, post, sensors, sensor, FLAGS.dt)
                    change = partial(local_change, self.rule, weights)
                    weights = correlation_based_update(step, change, weights, sensors, eta, FLAGS.update_every)
                if step % FLAGS.update_every == 0:
                    weights = weights.relu()
                    weights = weights * (total / weights.sum(2, keepdim=True).clamp(min=1e-6))
                    clear = torch.zeros_like(weights)
                    sensors = sensors._replace(correlation_trace=clear, anti_correlation_trace=clear)
        return weights


def local_change(rule: nn.Module, weights: Tensor, sensors: Tensor) -> Tensor:
    """The change of each weight ``[B, N, M]``, from the sensor of its own synapse and from itself."""
    causal, anti_causal = sensors.view(2, *weights.shape)
    change: Tensor = rule(torch.stack((causal, anti_causal, weights), -1))
    return change


def draw(batch: int, device: torch.device) -> Episodes:
    episodes = generated_episodes(
        batch, FLAGS.channels, FLAGS.subset, FLAGS.seq_length, FLAGS.poisson_rate, FLAGS.correlation, FLAGS.dt
    )
    return Episodes(*(part.to(device) for part in episodes))


def right(logits: Tensor, answer: Tensor) -> Tensor:
    """The probability of the right class, added up over the episodes."""
    return logits.detach().softmax(1).gather(1, answer.unsqueeze(1)).sum()


@torch.no_grad()
def evaluate(net: PlasticNet, count: int, seed: int, control: str, device: torch.device) -> tuple[float, float]:
    """Mean probability of the right class and accuracy on new episodes; leaves the random state as it was."""
    probability, hits = 0.0, 0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for first in range(0, count, 250):
            episodes = draw(min(250, count - first), device)
            logits, _, _ = net(episodes, control)
            probability += float(right(logits, episodes.answer))
            hits += int((logits.argmax(1) == episodes.answer).sum())
    return probability / count, hits / count


def seeds() -> tuple[int, int]:
    """Seeds of the episodes that choose and of those that are reported."""
    return own_seed(FLAGS.seed, "valid"), own_seed(FLAGS.seed, "test")


def train_epoch(
    run: _run.Run, at: dict[str, Any], net: PlasticNet, optim: Optimizer, rate: LRScheduler
) -> None:
    """Train with what is left of the epoch in which the run stands."""
    sizes, device = batch_sizes(FLAGS.train_episodes, FLAGS.batch_size), net.class_of.device
    for batch in run.progress(range(at["batch"], len(sizes)), f"epoch {at['epoch'] + 1}"):
        count = sizes[batch]
        episodes = draw(count, device)
        logits, _, _ = net(episodes, FLAGS.control)
        loss = cross_entropy(logits, episodes.answer)
        optim.zero_grad()
        loss.backward()
        if FLAGS.clip_grad:
            nn.utils.clip_grad_norm_(net.parameters(), FLAGS.clip_grad)
        optim.step()
        rate.step()
        at["loss"] += _train.finite(loss) * count
        at["probability"].append(float(right(logits, episodes.answer)) / count)
        at["batch"] = batch + 1
        run.pause(at["epoch"] * len(sizes) + at["batch"], run.due(at["batch"]))


def train(run: _run.Run) -> dict[str, Any]:
    device = _train.device(FLAGS)
    net = PlasticNet().to(device)
    optim = _train.optimizer(FLAGS, net)
    sizes = batch_sizes(FLAGS.train_episodes, FLAGS.batch_size)
    rate = _train.schedule(optim, FLAGS.epochs * len(sizes))
    start = {"epoch": 0, "batch": 0, "loss": 0.0, "best": -1.0, "probability": []}
    at = run.track(start, net=net, optimizer=optim, schedule=rate)
    run.watch(net, optim)
    while at["epoch"] < FLAGS.epochs:
        started = time.perf_counter()
        train_epoch(run, at, net, optim, rate)
        probability, accuracy = evaluate(net, FLAGS.test_episodes // 4, seeds()[0], FLAGS.control, device)
        right_by_batch = zip(sizes, at["probability"][-len(sizes) :], strict=True)
        figures = {
            "train_loss": at["loss"] / FLAGS.train_episodes,
            "train_probability": sum(n * p for n, p in right_by_batch) / FLAGS.train_episodes,
            "valid_probability": probability,
            "valid_accuracy": accuracy,
        }
        at |= {"epoch": at["epoch"] + 1, "batch": 0, "loss": 0.0}
        step = at["epoch"] * len(sizes)
        run.log(step, epoch=at["epoch"], **figures, epoch_seconds=time.perf_counter() - started)
        if probability >= at["best"]:  # of equals the later, which has learned longer
            at["best"] = probability
            run.save(step, "best.pt")
        run.save(step)
    run.pause(at["epoch"] * len(sizes))
    return report(run, net, device, at["probability"])


def report(run: _run.Run, net: PlasticNet, device: torch.device, probability: list[float]) -> dict[str, Any]:
    chosen = run.take_best(net, "valid_accuracy")
    looked_at = CONTROLS if FLAGS.control == "none" else [FLAGS.control]
    tested = {c: evaluate(net, FLAGS.test_episodes, seeds()[1], c, device) for c in looked_at}
    if FLAGS.plot:
        from snnlib.task import _plot

        with torch.no_grad():
            episode = draw(1, device)
            _, before, after = net(episode, FLAGS.control)
        weights = (before[0], after[0])
        lines = run.metrics("valid_probability")
        figure = _plot.learned_weights(weights, episode.subsets[:, 0], probability, lines)
        run.figure("learning", figure)
    return {
        "rule": FLAGS.rule,
        "control": FLAGS.control,
        "test_accuracy": tested[FLAGS.control][1],
        "test_probability": round(tested[FLAGS.control][0], 4),
        "valid_accuracy": chosen["valid_accuracy"],
        "chance": 0.5,
        **{f"{c}_accuracy": tested[c][1] for c in looked_at if c != FLAGS.control},
        "best_epoch": int(chosen["epoch"]),
    }


if __name__ == "__main__":
    launch(FLAGS, "correlation", train, __doc__, prepare=prepare)
