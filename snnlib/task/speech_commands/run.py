"""Spoken words: spiking neurons with adaptive thresholds, or an LSTM, on Google's Speech Commands.

    python -m snnlib.task.speech_commands --data_dir=data
    python -m snnlib.task.speech_commands --dataset=clips.tar.xz --model=lstm
    python -m snnlib.task.speech_commands --classes=35

The network hears log-mel features, a time step each. After every epoch the validation clips choose; the test
clips are looked at once, at the end, with the best weights. The LSTM is the control: without --hidden_size it
is as wide as gives it about the weights of the spiking net. Without --epochs there are 60.
"""

from typing import Any

import torch
from absl import flags
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.parametrize import register_parametrization

from snnlib.dataset.augment import add_noise, mask_spectrogram, random_shift
from snnlib.dataset.error import DataError
from snnlib.dataset.log_mel import LogMel
from snnlib.dataset.speech_commands import RATE, Speech, generated_speech, load_speech
from snnlib.dataset.wave import scaled
from snnlib.functional.li import LIParameters
from snnlib.functional.lsnn import LSNNParameters
from snnlib.module.li import LI
from snnlib.module.lsnn import LSNNRecurrent
from snnlib.module.sequential import SequentialState
from snnlib.task import _run, _train
from snnlib.task._batches import Batches, fetcher
from snnlib.task._flags import (
    LIGHTNING,
    at_least,
    between,
    define,
    fill,
    one_of,
    refuse_beside,
    restrict,
    shared,
)
from snnlib.task._launch import launch
from snnlib.task._lightning import MeanMetric, pl
from snnlib.task._processes import share_batch_norms
from snnlib.task._trainer import fit, scheduled, trainer

__all__ = ["FLAGS", "Classifier", "load", "main", "network", "prepare", "train"]

NEEDS = ("pytorch_lightning", "torchaudio", "soundfile", "tensorboard", "matplotlib")
BANDS = 40
HIDDEN = 256
GAIN = 5.0  # of the normalised currents at first, in thresholds: a membrane takes up dt / tau of them in a step
RECURRENT = 0.3  # gain of the recurrent weights at first
MEMBRANE, ADAPTATION = (0.02, 0.1), (0.1, 1.5)  # shortest and longest time constants, s
READOUT = 0.2  # time constant, s

# fmt: off
FLAGS = shared(
    **LIGHTNING, seed=0, epochs=None, batch_size=64, learning_rate=1e-2, weight_decay=0.01, clip_grad=1.0,
    optimizer="adamw", dt=0.02, method="arctan", alpha=0.5, backend="auto", data_dir="data", output_dir="runs",
    resume=None, save_every=0, plot=True, fast=False,
)
define(FLAGS, {
    "dataset": ("speech_commands",
        "speech_commands: the official clips in --data_dir, downloaded there if they are missing; or the path "
        "of an archive with clips and lists in the same layout, which is unpacked into --data_dir."),
    "classes": ("12", "Ten words, unknown and silence; or all 35 words.", one_of("12", "35")),
    "model": ("lsnn",
        "Spiking neurons with an adaptive threshold, without one (--beta=0), or an LSTM.",
        one_of("lsnn", "lif", "lstm")),
    "hidden_size": (None,
        f"Neurons in a layer; {HIDDEN} if not given, and for an LSTM what gives it as many weights.",
        at_least(1)),
    "layers": (2, "Recurrent layers.", at_least(1)),
    "dropout": (0.1, "Share of hidden outputs dropped in training.", between(0.0, 0.95)),
    "beta": (0.18,
        "How far the threshold rises at first for each Hz of the neuron's own rate, in thresholds.",
        at_least(0.0)),
    "learn_taus": (True, "Whether the time constants and beta of each neuron learn."),
    "noise": (0.1, "Largest volume of the background noise in training clips.", between(0.0, 1.0)),
    "time_shift": (0.1, "Longest shift of a training clip either way, s.", between(0.0, 0.5)),
    "spec_augment": (True, "Blank a stretch of time and of frequencies in training."),
})
# fmt: on
restrict(
    "dt",
    lambda dt: 0.001 <= dt <= MEMBRANE[0],
    f"between 0.001 and the shortest membrane time constant, {MEMBRANE[0]}",
    FLAGS,
)


def prepare(values: flags.FlagValues) -> None:
    """Fill in the flags whose default depends on others."""

    def width(hidden: int) -> int:
        return lstm_width(hidden, values.layers) if values.model == "lstm" else hidden

    usual = {"epochs": 60, "hidden_size": width(HIDDEN)}
    fill(values, usual, fast={"epochs": 2, "hidden_size": width(16)})
    if values.model == "lstm":
        refuse_beside("--model=lstm", values, "method", "alpha", "beta", "learn_taus")
    if values.model == "lif":
        refuse_beside("--model=lif", values, "beta")


def lstm_width(hidden: int, layers: int) -> int:
    """The width of an LSTM with about as many weights as ``hidden`` spiking neurons in each layer have."""
    wanted = hidden * BANDS + hidden * hidden * (2 * layers - 1)

    def weights(width: int) -> int:
        return 4 * width * BANDS + 4 * width * width * (2 * layers - 1)

    return min(range(1, hidden + 1), key=lambda width: abs(weights(width) - wanted))


def load(values: flags.FlagValues) -> Speech:
    classes = int(values.classes)
    if values.fast:
        return generated_speech(classes)
    try:
        return load_speech(values.dataset, values.data_dir, classes)
    except DataError as error:
        if values.dataset != "speech_commands":
            raise
        way_out = "give a folder that has SpeechCommands with --data_dir, or an archive of it with --dataset"
        raise DataError(f"{error}\n{way_out}") from error


class Between(nn.Module):
    """``low (high / low)^sigmoid(x)``: what learns is x, and the number stays between two bounds."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.ratio = low, high / low

    def forward(self, x: Tensor) -> Tensor:
        return self.low * self.ratio ** x.sigmoid()

    def right_inverse(self, y: Tensor) -> Tensor:
        return ((y / self.low).log() / torch.tensor(self.ratio).log()).logit(1e-4)


def neurons(count: int) -> LSNNRecurrent:
    """Neurons that are given their currents; their time constants are spread between the bounds."""

    def spread(shortest: float, longest: float) -> Tensor:
        return (longest / shortest) ** torch.rand(count) / longest

    beta = 0.0 if FLAGS.model == "lif" else FLAGS.beta
    each = {"tau_mem_inv": (1 / MEMBRANE[1], 1 / MEMBRANE[0], spread(*MEMBRANE))}
    if beta:
        each["tau_adapt_inv"] = (1 / ADAPTATION[1], 1 / ADAPTATION[0], spread(*ADAPTATION))
        each["beta"] = (beta / 20, beta * 20, torch.full((count,), beta))
    made: dict[str, Any] = {name: value for name, (_, _, value) in each.items()}
    if FLAGS.learn_taus:
        made = {name: nn.Parameter(value) for name, value in made.items()}
    # a current lasts one step: what is remembered is in membranes, thresholds and the recurrence
    p = LSNNParameters(tau_syn_inv=1 / FLAGS.dt, beta=beta, method=FLAGS.method, alpha=FLAGS.alpha)
    layer = LSNNRecurrent(None, count, p._replace(**made), FLAGS.dt, backend=FLAGS.backend)
    nn.init.orthogonal_(layer.recurrent_weights, RECURRENT)
    for name, (low, high, _) in each.items() if FLAGS.learn_taus else ():
        register_parametrization(layer, name, Between(low, high))
    return layer


def network(classes: int) -> SequentialState:
    """``layers`` recurrent layers and a leaky readout; its output is that of every module, a list."""
    size, count, layers = FLAGS.hidden_size, FLAGS.layers, list[nn.Module]()
    if FLAGS.model == "lstm":
        between = FLAGS.dropout if count > 1 else 0.0
        layers = [nn.LSTM(BANDS, size, count, dropout=between), nn.Dropout(FLAGS.dropout)]
    for inputs in (BANDS, *(count - 1) * [size]) if FLAGS.model != "lstm" else ():
        norm = nn.BatchNorm1d(size)
        nn.init.constant_(norm.weight, GAIN)
        layers += [nn.Linear(inputs, size, bias=False), norm, neurons(size), nn.Dropout(FLAGS.dropout)]
    readout = LI(LIParameters(1 / FLAGS.dt, 1 / READOUT), FLAGS.dt, backend=FLAGS.backend)
    return SequentialState(*layers, nn.Linear(size, classes), readout, return_hidden=True)


class Classifier(pl.LightningModule):
    """The net, its loss and its figures."""

    def __init__(self, data: Speech) -> None:
        super().__init__()
        self.data = data
        self.features = LogMel(RATE, FLAGS.dt, BANDS)
        self.layers: Any = share_batch_norms(network(len(data.labels)))
        self.valid_accuracy, self.test_accuracy = MeanMetric(), MeanMetric()
        self.spike_rate_hz = MeanMetric()

    def setup(self, stage: str) -> None:
        self.data = self.data.to(self.device)
        if stage == "fit":
            # the clips are on the device before Lightning moves the module there
            self.features.to(self.device).fit(self.data.x_train)

    def forward(self, features: Tensor) -> list[Tensor]:
        """What every layer puts out, the voltages of the readout last, ``[T, B, ...]``."""
        return self.layers(features)[0]  # type: ignore[no-any-return]

    def training_step(self, index: Tensor) -> dict[str, Any]:
        clips, labels = self.data.draw(index)
        x = random_shift(scaled(clips), round(FLAGS.time_shift * RATE))
        x = self.features(add_noise(x, self.data.noise, FLAGS.noise))
        if FLAGS.spec_augment:
            x = mask_spectrogram(x, x.shape[1] // 6, BANDS // 5)
        loss = cross_entropy(self(x.transpose(0, 1))[-1].mean(0), labels)
        return {"loss": loss, "examples": len(labels)}

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self._count(self.valid_accuracy, "valid_accuracy", *batch)

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        outputs = self._count(self.test_accuracy, "test_accuracy", *batch)
        spikes = [z for z, made in zip(outputs, self.layers, strict=False) if isinstance(made, LSNNRecurrent)]
        for z in spikes:
            self.spike_rate_hz.update(z.mean((0, 2)) / FLAGS.dt)
        if FLAGS.model != "lstm":
            self.log("spike_rate_hz", self.spike_rate_hz, on_step=False, on_epoch=True)

    def _count(self, metric: MeanMetric, name: str, clips: Tensor, labels: Tensor) -> list[Tensor]:
        """Count what is right; of several processes one may be given no clips at the end."""
        outputs = self(self.features(clips).transpose(0, 1)) if len(clips) else []
        if outputs:
            metric.update((outputs[-1].mean(0).argmax(1) == labels).float())
        self.log(name, metric, on_step=False, on_epoch=True)
        return outputs

    def configure_optimizers(self) -> Any:
        return scheduled(_train.optimizer(FLAGS, self.layers), self.trainer)


def batches(module: Classifier, part: str) -> Batches:
    """Training examples by their numbers, which a step draws; clips and labels of the other parts."""
    if part != "train":
        return Batches(fetcher(module, part), len(getattr(module.data, f"y_{part}")), 250)
    count, limit = module.data.train_count, FLAGS.limit_train_batches
    return Batches(lambda index: index, count, FLAGS.batch_size, FLAGS.seed, limit)


def train(run: _run.Run) -> dict[str, Any]:
    data = load(FLAGS)
    run.keep_to(data)
    module = Classifier(data)
    parts = [batches(module, part) for part in ("train", "valid", "test")]
    figures = fit(trainer(run, "valid_accuracy"), module, *parts)
    if FLAGS.plot and run.chief and not FLAGS.fast_dev_run:
        report(run, module)
    return {
        "dataset": "generated" if FLAGS.fast else FLAGS.dataset,
        "model": FLAGS.model,
        "classes": len(data.labels),
        **figures,
        # what always naming the most frequent class of the test clips would reach
        "chance": round(float(data.y_test.bincount().max()) / len(data.y_test), 4),
        "parameters": sum(p.numel() for p in module.layers.parameters()),
    }


def report(run: _run.Run, module: Classifier) -> None:
    from snnlib.task import _plot

    run.figure("curve", _plot.curves(run, "valid_accuracy"))
    module.cpu().eval()
    first = int((module.data.y_test == 0).int().argmax())
    x = module.features(module.data.x_test[first : first + 1].cpu())
    with torch.no_grad():
        answer = int(module(x.transpose(0, 1))[-1].mean(0).argmax())
    figure = _plot.image_response(module, x.transpose(0, 1), x.mT.flip(1), FLAGS.dt, answer, heard=True)
    run.figure("sample", figure)


def main() -> None:
    launch(FLAGS, "speech_commands", train, __doc__, prepare=prepare)


if __name__ == "__main__":
    main()
