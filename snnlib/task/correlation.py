"""Correlation: a net tells two patterns apart by which of its inputs are correlated, with synapses that learn as it runs.

    python -m snnlib.task.correlation
    python -m snnlib.task.correlation --rule=stdp
    python -m snnlib.task.correlation --control=shuffled

All channels are Poisson spikes of the same mean rate. In class 0 one random subset of channels tends to spike
together, in class 1 another. An episode has new subsets and new weights: the net sees a sample of class 0 while a
teacher's current lets one half of its neurons spike, and a sample of class 1 while it lets the other half.
Meanwhile a local rule changes the weights: the change of a synapse depends on its own correlation sensor and its own
weight, and a neuron keeps the sum of its weights. Then the weights stay, the teacher is silent, and the readout
says of which class a third sample is. What training changes, by gradient through the whole episode, is the
rule (four numbers, all 0 to begin with), the teacher, the size of the initial weights, and the readout.

Episodes that choose the epoch and episodes that are reported are drawn with seeds of their own.
"""

import math
import time
from typing import Any

import torch
from absl import flags
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

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
from snnlib.module.lif import LIF, LIFCell
from snnlib.module.sequential import SequentialState
from snnlib.task import _flags, _run

CONTROLS = ["none", "shuffled", "rates"]
FLAGS = _flags.shared(
    device="auto",
    seed=0,
    epochs=12,
    batch_size=32,
    learning_rate=0.03,
    weight_decay=0.0,
    clip_grad=1.0,
    optimizer="adam",
    seq_length=150,
    dt=0.001,
    tau_syn_inv=500.0,
    tau_mem_inv=200.0,
    method="arctan",
    alpha=None,
    backend="auto",
    output_dir="runs",
    resume=None,
    checkpoint_every=0,
    plot=True,
    fast=False,
)
flags.DEFINE_enum(
    "rule",
    "gradient",
    ["gradient", "stdp"],
    "What changes the weights within an episode: a linear function of sensors and weight, learned by gradient, "
    "or spike-timing-dependent plasticity with fixed rates.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "control",
    "none",
    CONTROLS,
    "What must fail: the sensors of a neuron's synapses are exchanged at random, or all spikes are moved to "
    "random times, so that the rates alone remain; in training and in testing.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("episodes", 320, "Episodes of an epoch.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "test_episodes", 2000, "Episodes that are reported; a quarter as many validate.", 4, flag_values=FLAGS
)
flags.DEFINE_integer("channels", 100, "Input channels.", lower_bound=2, flag_values=FLAGS)
flags.DEFINE_integer("subset", 30, "Channels that are correlated in a class.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_float("poisson_rate", 40.0, "Mean rate of every channel, Hz.", lower_bound=0.0, flag_values=FLAGS)
flags.DEFINE_float(
    "correlation", 0.6, "Share of a correlated channel's steps that follow the subset.", 0.0, 1.0, flag_values=FLAGS
)
flags.DEFINE_integer("hidden_size", 8, "Plastic neurons, half for each class.", lower_bound=2, flag_values=FLAGS)
flags.DEFINE_float(
    "initial_weight", 0.06, "Mean weight before an episode, to begin with.", lower_bound=0.0, flag_values=FLAGS
)
flags.DEFINE_float("plasticity", 0.1, "Learning rate of the local rule.", lower_bound=0.0, flag_values=FLAGS)
flags.DEFINE_integer(
    "update_every", 25, "Steps between two readings of the sensors (gradient).", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_float(
    "tau_sensor_inv", 200.0, "Inverse time constant of sensors and STDP, 1/s.", lower_bound=0.0, flag_values=FLAGS
)
for name in ("poisson_rate", "initial_weight", "tau_sensor_inv"):
    _flags.positive(name, FLAGS)


def agree(names: tuple[str, ...], holds: Any, message: str) -> None:
    flags.register_multi_flags_validator(names, holds, message, flag_values=FLAGS)


agree(("subset", "channels"), lambda f: 2 * f["subset"] <= f["channels"], "two subsets must fit into the channels")
agree(("poisson_rate", "dt"), lambda f: f["poisson_rate"] * f["dt"] <= 1, "poisson_rate * dt must be at most 1")
agree(
    ("update_every", "seq_length"),
    lambda f: f["update_every"] <= f["seq_length"],
    "update_every must not exceed seq_length, or no weight ever changes",
)


def defaults() -> None:
    """Shrink the run for ``--fast``, where the command line does not say otherwise."""
    small = {"epochs": 2, "episodes": 32, "batch_size": 16, "test_episodes": 40, "seq_length": 50, "hidden_size": 4}
    if FLAGS.fast:
        for name, value in small.items():
            if not FLAGS[name].present:
                FLAGS[name].value = value


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
        self.log_weight = nn.Parameter(torch.tensor(FLAGS.initial_weight).log())
        # the teacher's current, in thresholds, into the neurons of the class that is shown and into the others
        self.teacher = nn.Parameter(torch.tensor([0.4, -2.0]))
        self.neurons = LIFCell(p, FLAGS.dt)
        readout = nn.Linear(n, 2)
        with torch.no_grad():  # to begin with a neuron speaks for its class
            readout.weight.copy_(10.0 * (self.class_of == torch.arange(2).unsqueeze(1)))
            readout.bias.zero_()
        self.answer = SequentialState(LIF(p, FLAGS.dt, backend=FLAGS.backend), readout, LI(dt=FLAGS.dt, backend=FLAGS.backend))

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
        before = weights = self.log_weight.exp() * spread
        for label in range(2):
            current = torch.where(self.class_of == label, self.teacher[0], self.teacher[1])
            weights = self.learn(lessons[label], sensed[label], weights, FLAGS.dt * FLAGS.tau_syn_inv * current)
        voltage, _ = self.answer(torch.einsum("bnm,tbm->tbn", weights, question))
        return voltage.mean(0), before, weights

    def learn(self, spikes: Tensor, sensed: Tensor, weights: Tensor, current: Tensor) -> Tensor:
        """The weights after a lesson ``[T, B, M]``, of which the sensors see ``sensed`` (the same, but for a control)."""
        total = weights.sum(2, keepdim=True)
        traces = STDPState(torch.zeros_like(spikes[0]), torch.zeros_like(weights[..., 0]))
        sensors = CorrelationSensorState.initial(*weights.shape, device=weights.device)
        p = CorrelationSensorParameters(tau_c_inv=FLAGS.tau_sensor_inv, tau_ac_inv=FLAGS.tau_sensor_inv)
        state = None
        for step, (x, pre) in enumerate(zip(spikes, sensed, strict=True), start=1):
            post, state = self.neurons(torch.einsum("bnm,bm->bn", weights, x) + current, state)
            if self.rule is None:
                weights, traces = stdp_step_linear(pre, post, weights, traces, stdp_parameters(), FLAGS.dt)
            else:
                sensors = correlation_sensor_step(pre, post, sensors, p, FLAGS.dt)
                rule = self.local_rule(weights)
                weights = correlation_based_update(
                    step, rule, weights, sensors, FLAGS.plasticity, FLAGS.update_every
                )
            if step % FLAGS.update_every == 0:
                weights = weights.relu()
                weights = weights * (total / weights.sum(2, keepdim=True).clamp(min=1e-6))
                clear = torch.zeros_like(weights)
                sensors = sensors._replace(correlation_trace=clear, anti_correlation_trace=clear)
        return weights

    def local_rule(self, weights: Tensor) -> Any:
        """From all sensors to the change of every weight; a synapse sees its own sensor and weight alone."""
        assert self.rule is not None

        def change(sensors: Tensor) -> Tensor:
            causal, anti_causal = sensors.view(2, *weights.shape)
            return self.rule(torch.stack((causal, anti_causal, weights), -1))

        return change


def stdp_parameters() -> STDPParameters:
    tau, eta = FLAGS.tau_sensor_inv, FLAGS.plasticity
    return STDPParameters(tau_pre_inv=tau, tau_post_inv=tau, eta_plus=eta, eta_minus=eta)


def draw(batch: int, device: torch.device) -> Episodes:
    episodes = generated_episodes(
        batch, FLAGS.channels, FLAGS.subset, FLAGS.seq_length, FLAGS.poisson_rate, FLAGS.correlation, FLAGS.dt
    )
    return Episodes(*(part.to(device) for part in episodes))


def right(logits: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
    """Of every episode the probability of the right class, and whether it is the more probable one."""
    return logits.detach().softmax(1).gather(1, answer.unsqueeze(1)).squeeze(1), logits.argmax(1) == answer


@torch.no_grad()
def evaluate(net: PlasticNet, episodes: int, seed: int, control: str, device: torch.device) -> tuple[float, float]:
    """Mean probability of the right class and accuracy on new episodes; leaves the random state as it was."""
    probabilities, hits = [], []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for first in range(0, episodes, 250):
            batch = draw(min(250, episodes - first), device)
            probability, hit = right(net(batch, control)[0], batch.answer)
            probabilities.append(probability)
            hits.append(hit)
    return float(torch.cat(probabilities).mean()), float(torch.cat(hits).float().mean())


def seeds() -> tuple[int, int]:
    """Seeds of the episodes that choose and of those that are reported, far from any that trains."""
    return 2**40 + 2 * FLAGS.seed, 2**40 + 2 * FLAGS.seed + 1


def train(run: _run.Run) -> dict[str, Any]:
    device = _run.device(FLAGS)
    net = PlasticNet().to(device)
    optim = _run.optimizer(FLAGS, net)
    batches = -(-FLAGS.episodes // FLAGS.batch_size)
    rate = _run.schedule(optim, FLAGS.epochs * batches)
    start = {"epoch": 0, "batch": 0, "loss": 0.0, "probability": 0.0, "best": -1.0}
    at = run.track(start, net=net, optimizer=optim, schedule=rate)
    while at["epoch"] < FLAGS.epochs:
        started = time.perf_counter()
        for batch in run.progress(range(at["batch"], batches), f"epoch {at['epoch'] + 1}"):
            episodes = draw(min(FLAGS.batch_size, FLAGS.episodes - batch * FLAGS.batch_size), device)
            logits, _, _ = net(episodes, FLAGS.control)
            loss = cross_entropy(logits, episodes.answer)
            optim.zero_grad()
            loss.backward()
            if FLAGS.clip_grad:
                nn.utils.clip_grad_norm_(net.parameters(), FLAGS.clip_grad)
            optim.step()
            rate.step()
            count = len(episodes.answer)
            at["loss"] += _run.finite(loss, f"epoch {at['epoch'] + 1}, batch {batch + 1}") * count
            at["probability"] += float(right(logits, episodes.answer)[0].sum())
            at["batch"] = batch + 1
            due = FLAGS.checkpoint_every and at["batch"] % FLAGS.checkpoint_every == 0
            run.pause(at["epoch"] * batches + at["batch"], due)
        probability, accuracy = evaluate(net, FLAGS.test_episodes // 4, seeds()[0], FLAGS.control, device)
        figures = {
            "train_loss": at["loss"] / FLAGS.episodes,
            "train_probability": at["probability"] / FLAGS.episodes,
            "valid_probability": probability,
            "valid_accuracy": accuracy,
        }
        at |= {"epoch": at["epoch"] + 1, "batch": 0, "loss": 0.0, "probability": 0.0}
        step = at["epoch"] * batches
        run.log(step, epoch=at["epoch"], **figures, epoch_seconds=time.perf_counter() - started)
        if probability >= at["best"]:  # of equals the later, which has learned longer
            at["best"] = probability
            run.save(step, "best.pt")
        run.save(step)
    return report(run, net, device)


def report(run: _run.Run, net: PlasticNet, device: torch.device) -> dict[str, Any]:
    best = run.best()
    run.load_into(best, net=net)
    chosen = next(m for m in run.metrics() if m["epoch"] == best["at"]["epoch"])
    tested = {c: evaluate(net, FLAGS.test_episodes, seeds()[1], c, device) for c in CONTROLS}
    if FLAGS.plot:
        draw_figure(run, net, device)
    controls = {f"{c}_accuracy": tested[c][1] for c in CONTROLS[1:]} if FLAGS.control == "none" else {}
    return {
        "rule": FLAGS.rule,
        "control": FLAGS.control,
        "test_accuracy": tested[FLAGS.control][1],
        "test_probability": round(tested[FLAGS.control][0], 4),
        "valid_accuracy": chosen["valid_accuracy"],
        "chance": 0.5,
        **controls,
        "best_epoch": int(chosen["epoch"]),
    }


@torch.no_grad()
def draw_figure(run: _run.Run, net: PlasticNet, device: torch.device) -> None:
    from snnlib.task import _plot

    episodes = draw(1, device)
    _, before, after = net(episodes, FLAGS.control)
    _plot.learned_weights(run.folder / "learning.png", run.metrics(), before[0], after[0], episodes.subsets[:, 0])


if __name__ == "__main__":
    _run.launch(FLAGS, "correlation", train, __doc__, prepare=defaults)
