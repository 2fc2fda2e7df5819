"""Spoken words: recurrent spiking neurons with adaptive thresholds on Google's Speech Commands.

    python -m snnlib.task.speech_commands --data_dir=data
    python -m snnlib.task.speech_commands --dataset=clips.tar.xz --model=lstm
    python -m snnlib.task.speech_commands --classes=35

A clip becomes log-mel features, a step of the network for each. After every epoch the validation clips
choose; the test clips are looked at once, at the end, with the best weights. Without --hidden_size the LSTM,
which is the control, is as wide as gives it the parameters of the spiking net.
"""

from typing import Any

import torch
from absl import flags
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.parametrize import register_parametrization
from torchmetrics.classification import MulticlassAccuracy

from snnlib.dataset.augment import add_noise, mask_spectrogram, random_shift
from snnlib.dataset.images import DataError
from snnlib.dataset.log_mel import LogMel
from snnlib.dataset.speech_commands import RATE, Speech, generated_speech, load_speech
from snnlib.functional.li import LIParameters
from snnlib.functional.lsnn import LSNNParameters
from snnlib.module.li import LI
from snnlib.module.lsnn import LSNNRecurrent
from snnlib.module.neuron import Neuron
from snnlib.module.sequential import SequentialState
from snnlib.task import _flags, _run
from snnlib.task._lightning import Batches, fit, pl, share_batch_norms, trainer

BANDS = 40
MEMBRANE, ADAPTATION = (0.02, 0.3), (0.1, 1.5)  # shortest and longest time constants, s

FLAGS = _flags.shared(
    **_flags.LIGHTNING,
    seed=0,
    epochs=40,
    batch_size=64,
    learning_rate=5e-3,
    weight_decay=0.01,
    clip_grad=1.0,
    optimizer="adamw",
    dt=0.01,
    method="arctan",
    alpha=None,
    backend="auto",
    data_dir="data",
    output_dir="runs",
    resume=None,
    checkpoint_every=0,
    plot=True,
    fast=False,
)
flags.DEFINE_string(
    "dataset",
    "speech_commands",
    "speech_commands, in --data_dir or downloaded there; or the path of an archive in its layout, unpacked there.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "classes", "12", ["12", "35"], "Ten words, unknown and silence; or all 35 words.", flag_values=FLAGS
)
flags.DEFINE_enum(
    "model", "lsnn", ["lif", "lsnn", "lstm"], "Neurons: adaptive or not, or an LSTM.", flag_values=FLAGS
)
flags.DEFINE_integer("hidden_size", None, "Neurons in a layer [256].", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("layers", 2, "Recurrent layers.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_float("dropout", 0.1, "Share of hidden spikes dropped in training.", 0.0, 0.95, flag_values=FLAGS)
flags.DEFINE_float("beta", 0.18, "How far a neuron's rate lifts its threshold at first, V s.", 0.0, flag_values=FLAGS)
flags.DEFINE_boolean("learn_taus", True, "Whether time constants and beta learn, each neuron's own.", flag_values=FLAGS)
flags.DEFINE_float("noise", 0.1, "Largest volume of background noise in training.", 0.0, 1.0, flag_values=FLAGS)
flags.DEFINE_float("time_shift", 0.1, "Largest shift of a clip in training, s.", 0.0, 0.5, flag_values=FLAGS)
flags.DEFINE_boolean("spec_augment", True, "Mask features in training (SpecAugment).", flag_values=FLAGS)
flags.DEFINE_float("gain", 1.0, "BN weight.", 0.0, 50, flag_values=FLAGS)
flags.DEFINE_enum("readout", "mean", ["mean", "li", "softmax"], "x", flag_values=FLAGS)
flags.DEFINE_float("smooth", 0.0, "Label smoothing.", 0.0, 50, flag_values=FLAGS)


class Between(nn.Module):
    """``low (high / low)^sigmoid(x)``: a learned number that stays between two bounds, on a scale of ratios."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.ratio = low, high / low

    def forward(self, x: Tensor) -> Tensor:
        return self.low * self.ratio ** x.sigmoid()

    def right_inverse(self, y: Tensor) -> Tensor:
        return ((y / self.low).log() / torch.tensor(self.ratio).log()).logit(1e-4)


def neurons(count: int) -> LSNNRecurrent:
    """A recurrent layer whose neurons are given their currents, with time constants spread over the bounds."""

    def rate(bounds: tuple[float, float]) -> tuple[float, float, Tensor]:
        slow, fast = 1.0 / bounds[1], 1.0 / bounds[0]
        return slow, fast, slow * (fast / slow) ** torch.rand(count)

    beta = 0.0 if FLAGS.model == "lif" else FLAGS.beta
    spread = {"tau_mem_inv": rate(MEMBRANE)}
    if beta:
        spread |= {"tau_adapt_inv": rate(ADAPTATION), "beta": (0.05 * beta, 20 * beta, torch.full((count,), beta))}
    learned = {name: nn.Parameter(value) if FLAGS.learn_taus else value for name, (*_, value) in spread.items()}
    p = LSNNParameters(tau_syn_inv=1.0 / FLAGS.dt, beta=beta, method=FLAGS.method, alpha=FLAGS.alpha)
    layer = LSNNRecurrent(None, count, p._replace(**learned), FLAGS.dt, backend=FLAGS.backend)
    with torch.no_grad():
        nn.init.orthogonal_(layer.recurrent_weights)
    if FLAGS.learn_taus:
        for name, (low, high, _) in spread.items():
            register_parametrization(layer, name, Between(low, high))
    return layer


def network(classes: int) -> SequentialState:
    if FLAGS.model == "lstm":
        lstm = nn.LSTM(BANDS, FLAGS.hidden_size, FLAGS.layers, dropout=FLAGS.dropout if FLAGS.layers > 1 else 0.0)
        return SequentialState(lstm, nn.Dropout(FLAGS.dropout), nn.Linear(FLAGS.hidden_size, classes), return_hidden=True)
    layers: list[nn.Module] = []
    inputs = BANDS
    for _ in range(FLAGS.layers):
        norm = nn.BatchNorm1d(FLAGS.hidden_size)
        nn.init.constant_(norm.weight, FLAGS.gain)
        layers += [
            nn.Linear(inputs, FLAGS.hidden_size, bias=False),
            norm,
            neurons(FLAGS.hidden_size),
            nn.Dropout(FLAGS.dropout),
        ]
        inputs = FLAGS.hidden_size
    layers += [nn.Linear(inputs, classes)]
    if FLAGS.readout != "mean":
        layers += [LI(LIParameters(1/FLAGS.dt, 5.0), FLAGS.dt)]
    return SequentialState(*layers, return_hidden=True)


class Classifier(pl.LightningModule):
    """The net, its loss and its figures."""

    def __init__(self, data: Speech) -> None:
        super().__init__()
        self.data = data
        classes = len(data.labels)
        self.features = LogMel(RATE, FLAGS.dt, BANDS)
        self.net = share_batch_norms(network(classes))
        self.valid_accuracy = MulticlassAccuracy(classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(classes, average="micro")

    def setup(self, stage: str) -> None:
        self.data = self.data.to(self.device)
        self.features.fit(self.data.x_train)

    def forward(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        hidden, _ = self.net(features.transpose(0, 1))
        if FLAGS.readout == "softmax":
            return torch.log(hidden[-1].softmax(-1).mean(0)), hidden
        return hidden[-1].mean(0), hidden

    def training_step(self, index: Tensor) -> dict[str, Any]:
        clips, labels = self.data.draw(index)
        x = random_shift(clips / 32768.0, round(FLAGS.time_shift * RATE))
        x = self.features(add_noise(x, self.data.noise, FLAGS.noise))
        if FLAGS.spec_augment:
            x = mask_spectrogram(x, round(0.15 / FLAGS.dt), BANDS // 5)
        loss = cross_entropy(self(x)[0], labels, label_smoothing=FLAGS.smooth)
        return {"loss": loss, "examples": len(labels)}

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self._count("valid_accuracy", *batch)

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        hidden = self._count("test_accuracy", *batch)
        spikes = [x for x, made in zip(hidden, self.net, strict=True) if isinstance(made, LSNNRecurrent)]
        for x in spikes:
            print("rate", float(x.mean())/FLAGS.dt)
        if spikes:
            rate = sum(float(x.mean()) for x in spikes) / len(spikes) / FLAGS.dt
            self.log("spike_rate_hz", rate, on_step=False, on_epoch=True, batch_size=len(batch[1]))

    def _count(self, name: str, clips: Tensor, labels: Tensor) -> list[Tensor]:
        logits, hidden = self(self.features(clips))
        metric = getattr(self, name)
        metric(logits, labels)
        self.log(name, metric, on_step=False, on_epoch=True)
        return hidden

    def configure_optimizers(self) -> Any:
        optim = _run.optimizer(FLAGS, self.net)
        rate = _run.schedule(optim, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optim, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


def batches(module: Classifier, part: str) -> Batches:
    def fetch(index: Tensor) -> tuple[Tensor, Tensor]:
        x, y = getattr(module.data, f"x_{part}"), getattr(module.data, f"y_{part}")
        return x[index.to(x.device)], y[index.to(y.device)]

    if part == "train":
        data = module.data
        return Batches(lambda i: i, data.train_count, FLAGS.batch_size, FLAGS.seed, FLAGS.limit_train_batches)
    return Batches(fetch, len(getattr(module.data, f"y_{part}")), 250)


def load() -> Speech:
    if FLAGS.fast:
        return generated_speech(int(FLAGS.classes))
    return load_speech(FLAGS.dataset, FLAGS.data_dir, int(FLAGS.classes))


def train(run: _run.Run) -> dict[str, Any]:
    data = load()
    module = Classifier(data)
    parts = [batches(module, part) for part in ("train", "valid", "test")]
    figures = fit(trainer(run, "valid_accuracy"), module, *parts)
    largest = int(data.y_test.bincount().max())
    return {
        "dataset": "generated" if FLAGS.fast else FLAGS.dataset,
        "model": FLAGS.model,
        **figures,
        "chance": round(largest / len(data.y_test), 4),
        "parameters": sum(p.numel() for p in module.net.parameters()),
    }


def defaults(values: flags.FlagValues) -> None:
    if values.hidden_size is None:
        values["hidden_size"].value = 128 if values.model == "lstm" else 256


def main() -> None:
    _run.launch(FLAGS, "speech_commands", train, __doc__, prepare=defaults)


if __name__ == "__main__":
    main()
