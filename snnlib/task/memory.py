"""Store and recall: a net of spiking neurons keeps a symbol over seconds, and other symbols, until it is asked.

    python -m snnlib.task.memory
    python -m snnlib.task.memory --neuron_model=lif
    python -m snnlib.task.memory --neuron_model=lsnnlif --seq_repetitions=2

The memory is the adaptation of the thresholds: 60 LSNN neurons learn the task, 60 LIF neurons, the control,
do not. Every trial is drawn anew; validation and test have trials of their own, the former choose the epoch.
Without --epochs, --batches and --batch_size they are 12, 25 and 64. Without --alpha it is 0.1 for
--method=triangle, and for others the method's own; over thousands of steps gradients explode where a surrogate
is high and wide, as tanh's is then, which --alpha=20 makes narrow.
"""

import math
from typing import Any

import torch
from absl import flags
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snnlib.dataset.store_recall import NO_RECALL, StoreRecall, Trials, steps_in_a_period
from snnlib.functional.li import LIParameters
from snnlib.functional.lsnn import LSNNParameters
from snnlib.module.li import LI
from snnlib.module.lsnn import LSNNRecurrent
from snnlib.module.states import state_over_time
from snnlib.task import _run, _train
from snnlib.task._batches import Batches
from snnlib.task._flags import LIGHTNING, POSITIVE, at_least, define, fill, one_of, shared
from snnlib.task._launch import launch
from snnlib.task._lightning import MeanMetric, pl
from snnlib.task._trainer import fit, scheduled, trainer

__all__ = ["FLAGS", "Memory", "Net", "prepare", "train"]

NEEDS = ("pytorch_lightning", "tensorboard", "matplotlib")

# fmt: off
FLAGS = shared(
    seed=0, epochs=None, batch_size=None, learning_rate=0.01, weight_decay=0.0, clip_grad=1.0, optimizer="adam",
    dt=0.001, tau_syn_inv=200.0, tau_mem_inv=50.0, method="triangle", alpha=None, backend="auto",
    output_dir="runs", resume=None, save_every=0, **LIGHTNING, plot=True, fast=False,
)
define(FLAGS, {
    "batches": (None, "Batches in an epoch.", at_least(1)),
    "neuron_model": ("lsnn",
        "Neurons whose threshold adapts, neurons whose threshold does not, or half of each.",
        one_of("lsnn", "lif", "lsnnlif")),
    "hidden_size": (60, "Recurrent neurons.", at_least(1)),
    "tau_adapt": (2.0, "Time constant of the adaptation, s; the control, lif, has none.", POSITIVE),
    "beta": (0.18,
        "How far the threshold, 1, rises for each Hz of a neuron's own rate; that of the control, lif, stays.",
        at_least(0.0)),
    "period": (0.2, "How long a symbol is shown, s.", POSITIVE),
    "seq_periods": (20, "Symbols in a sequence.", at_least(2)),
    "seq_repetitions": (1, "Sequences that follow one another in a trial.", at_least(1)),
    "expected_delay": (10.0, "Mean number of symbols from STORE to RECALL.", at_least(1.0)),
    "population_size": (25, "Neurons of each input population.", at_least(1)),
    "poisson_rate": (50.0, "Rate of an input neuron whose population is on, Hz.", POSITIVE),
    "regularization_factor": (0.01,
        "Weight in the loss of the neurons' mean squared distance from --regularization_target, 1/Hz^2.",
        at_least(0.0)),
    "regularization_target": (10.0, "Rate that neurons are held to, Hz.", POSITIVE),
})
# fmt: on


def _allow_trials(values: dict[str, Any]) -> bool:
    periods = values.pop("seq_periods") * values.pop("seq_repetitions")
    try:
        return steps_in_a_period(periods, **values) > 0
    except ValueError as error:
        raise flags.ValidationError(str(error)) from error


NAMES = ["seq_periods", "seq_repetitions", "period", "expected_delay", "poisson_rate", "dt"]
flags.register_multi_flags_validator(NAMES, _allow_trials, flag_values=FLAGS)

EVALUATED, EVALUATION_BATCH = {"valid": 256, "test": 1024}, 128
"""Trials, and how many at once."""
LONG = 10
"""Symbols of delay from which on a recall counts among the long ones."""
INPUT_DRIVE, RECURRENT_DRIVE = 1.0, 0.2
"""Mean current into a neuron, in thresholds, at the start: its spread over neurons. With a recurrent drive of 1
gradients explode over thousands of steps."""


def prepare(values: flags.FlagValues) -> None:
    """Fill in the flags whose default depends on ``--fast`` or on the method."""
    usual: dict[str, Any] = {"epochs": 12, "batches": 25, "batch_size": 64}
    if values.method == "triangle":
        usual["alpha"] = 0.1
    fill(values, usual, fast={"epochs": 2, "batches": 3, "batch_size": 8})


class Net(nn.Module):
    """Recurrent neurons, of which those that do not adapt have a ``beta`` of 0, and two leaky integrators."""

    def __init__(self) -> None:
        super().__init__()
        inputs, hidden = 4 * FLAGS.population_size, FLAGS.hidden_size
        adapting = {"lsnn": hidden, "lsnnlif": hidden // 2, "lif": 0}[FLAGS.neuron_model]
        p = LSNNParameters(
            tau_syn_inv=FLAGS.tau_syn_inv,
            tau_mem_inv=FLAGS.tau_mem_inv,
            tau_adapt_inv=1.0 / FLAGS.tau_adapt,
            beta=torch.where(torch.arange(hidden) < adapting, FLAGS.beta, 0.0),
            method=FLAGS.method,
            alpha=FLAGS.alpha,
        )
        # a spike brings weight / tau_syn_inv of current times s; how many come in a second is known beforehand
        shown = FLAGS.tau_syn_inv / (FLAGS.poisson_rate * FLAGS.population_size**0.5)
        heard = FLAGS.tau_syn_inv / (FLAGS.regularization_target * hidden**0.5)
        self.neurons = LSNNRecurrent(
            inputs,
            hidden,
            p,
            FLAGS.dt,
            input_weights=INPUT_DRIVE * shown * torch.randn(hidden, inputs),
            recurrent_weights=RECURRENT_DRIVE * heard * torch.randn(hidden, hidden),
            backend=FLAGS.backend,
        )
        self.weights = nn.Linear(hidden, 2, bias=False)
        nn.init.normal_(self.weights.weight, std=heard)
        readout = LIParameters(tau_syn_inv=FLAGS.tau_syn_inv, tau_mem_inv=FLAGS.tau_mem_inv)
        self.readout = LI(readout, FLAGS.dt, backend=FLAGS.backend)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input spikes ``[T, B, M]`` to voltages of the readout ``[T, B, 2]`` and spikes ``[T, B, N]``."""
        spikes, _ = self.neurons(x)
        voltage, _ = self.readout(self.weights(spikes))
        return voltage, spikes


class Memory(pl.LightningModule):
    """The net, its loss and its figures."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        names = ("valid_error", "recall_error", "recall_error_long", "rate_hz")
        self.means = nn.ModuleDict({name: MeanMetric() for name in names})

    def answers(self, trials: Trials) -> tuple[Tensor, Tensor]:
        """Voltages ``[P, B, 2]``, the mean of each period, and the neurons' rates ``[N]``, Hz."""
        voltage, spikes = self.net(trials.spikes)
        mean = voltage.unflatten(0, (len(trials.target), -1)).mean(1)
        return mean, spikes.mean((0, 1)) / FLAGS.dt

    def training_step(self, trials: Trials) -> dict[str, Any]:
        voltage, rate = self.answers(trials)
        loss = cross_entropy(voltage.flatten(0, 1), trials.target.flatten(), ignore_index=NO_RECALL)
        loss = loss + FLAGS.regularization_factor * (rate - FLAGS.regularization_target).square().mean()
        return {"loss": loss, "examples": FLAGS.batch_size}

    def validation_step(self, trials: Trials) -> None:
        voltage, _ = self.answers(trials)
        self._count("valid_error", _wrong(voltage, trials)[trials.target != NO_RECALL])

    def test_step(self, trials: Trials) -> None:
        voltage, rate = self.answers(trials)
        wrong = _wrong(voltage, trials)
        self._count("recall_error", wrong[trials.target != NO_RECALL])
        self._count("recall_error_long", wrong[trials.delay >= LONG])
        self._count("rate_hz", rate)

    def _count(self, name: str, values: Tensor) -> None:
        metric: Any = self.means[name]
        metric.update(values)

    def on_validation_epoch_end(self) -> None:
        self._log("valid_error")

    def on_test_epoch_end(self) -> None:
        self._log("recall_error", "recall_error_long", "rate_hz")

    def _log(self, *names: str) -> None:
        for name in names:
            metric: Any = self.means[name]
            self.log(name, metric.compute())
            metric.reset()

    def configure_optimizers(self) -> Any:
        return scheduled(_train.optimizer(FLAGS, self.net), self.trainer)


def _wrong(voltage: Tensor, trials: Trials) -> Tensor:
    return (voltage.argmax(-1) != trials.target).float()


def drawn(part: str, count: int, device: torch.device) -> StoreRecall:
    """``count`` batches of validation or test, or as many of each epoch of a training."""
    size = FLAGS.batch_size if part == "train" or FLAGS.fast else EVALUATION_BATCH
    return StoreRecall(
        count * (FLAGS.epochs if part == "train" else 1),
        FLAGS.seed,
        part,
        device,
        batch_size=size,
        periods=FLAGS.seq_periods * FLAGS.seq_repetitions,
        period=FLAGS.period,
        expected_delay=FLAGS.expected_delay,
        population_size=FLAGS.population_size,
        poisson_rate=FLAGS.poisson_rate,
        dt=FLAGS.dt,
    )


def epoch_batches(part: str) -> int:
    if part == "train":
        return int(FLAGS.batches)
    return 1 if FLAGS.fast else EVALUATED[part] // EVALUATION_BATCH


def batches(module: Memory, part: str, processes: int) -> Batches:
    """Batches, drawn on the device that computes; every process gets the same number of them."""
    training = part == "train"
    limit = FLAGS.limit_train_batches if training else 1.0
    count = -(-epoch_batches(part) // processes) * processes
    return Batches(
        lambda index: drawn(part, count, module.device)[int(index)], count, 1, limit=limit, fresh=training
    )


def train(run: _run.Run) -> dict[str, Any]:
    module = Memory()
    trained_by = trainer(run, "valid_error")
    processes = trained_by.num_devices * trained_by.num_nodes
    parts = [batches(module, part, processes) for part in ("train", "valid", "test")]
    figures = fit(trained_by, module, *parts)
    if FLAGS.plot and run.chief and not FLAGS.fast_dev_run:
        report(run, module.net.cpu())
    # a test without a long delay has no error of long ones
    known = {name: None if math.isnan(value) else round(value, 5) for name, value in figures.items()}
    return {"neuron_model": FLAGS.neuron_model, **known, "chance": 0.5}


@torch.no_grad()
def report(run: _run.Run, net: Net) -> None:
    """Draw the curves, and the trial with the longest delay of the first test batch."""
    from snnlib.task import _plot

    run.figure("curve", _plot.curves(run, "valid_error"))
    trials = drawn("test", 1, torch.device("cpu"))[0]
    longest = int(trials.delay.amax(0).argmax())
    x = trials.spikes[:, longest : longest + 1].to(net.weights.weight.dtype)
    voltage, spikes = net(x)
    _, states = state_over_time(net.neurons, x, every=20)
    p = net.neurons.p
    order = (net.weights.weight[1] - net.weights.weight[0]).argsort()
    figure = _plot.memory_trial(
        x[:, 0],
        spikes[:, 0, order],
        (p.v_th + p.beta * states.b)[:, 0, order],
        voltage.softmax(-1)[:, 0, 1],
        trials.target[:, longest],
        FLAGS.dt,
    )
    run.figure("sample", figure)


if __name__ == "__main__":
    launch(FLAGS, "memory", train, __doc__, prepare=prepare)
