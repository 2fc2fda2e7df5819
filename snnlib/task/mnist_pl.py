"""Images, trained by Lightning: the net of the mnist task on one process, several GPUs or several machines.

    python -m snnlib.task.mnist_pl --dataset=digits
    python -m snnlib.task.mnist_pl --dataset=digits --strategy=ddp --accelerator=cpu --devices=2
    python -m snnlib.task.mnist_pl --dataset=digits --find_learning_rate --patience=10

Experiment and flags are those of mnist; what Lightning's trainer does comes on top. After every epoch the
validation images choose; the test images are looked at once, at the end, with the best weights.
"""

import contextlib
import io
import sys
from typing import Any

from absl import flags
from torch import Tensor
from torch.nn.functional import nll_loss

from snnlib.dataset.augment import random_affine
from snnlib.dataset.images import Images
from snnlib.task import _flags, _run
from snnlib.task._lightning import Batches, MeanMetric, fit, pl, share_batch_norms, trainer
from snnlib.task.mnist import defaults, encode, image_flags, load, network

NEEDS = ("pytorch_lightning", "torchvision", "sklearn", "tensorboard", "matplotlib")

FLAGS = image_flags(**_flags.LIGHTNING)
flags.DEFINE_boolean(
    "find_learning_rate",
    False,
    "Before training, try rates from small to large for some batches and take the one at which the loss falls "
    "fastest.",
    flag_values=FLAGS,
)


_RATES = 60
"""Rates that --find_learning_rate tries, one a batch."""


class Classifier(pl.LightningModule):
    """The net, its loss and its figures."""

    def __init__(self, data: Images) -> None:
        super().__init__()
        self.data = data
        self.learning_rate = FLAGS.learning_rate
        self.net = share_batch_norms(network(FLAGS, data))
        self.valid_accuracy = MeanMetric()
        self.test_accuracy = MeanMetric()

    def setup(self, stage: str) -> None:
        self.data = self.data.to(self.device)

    def forward(self, images: Tensor, augment: bool = False) -> Tensor:
        x = self.data.scaled(images).to(self.dtype)
        return self.net(encode(FLAGS, random_affine(x) if augment else x))  # type: ignore[no-any-return]

    def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        images, labels = batch
        loss = nll_loss(self(images, FLAGS.augment), labels)
        return {"loss": loss, "examples": len(labels)}

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self._count("valid_accuracy", *batch)

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self._count("test_accuracy", *batch)

    def _count(self, name: str, images: Tensor, labels: Tensor) -> None:
        metric = getattr(self, name)
        metric.update((self(images).argmax(1) == labels).float())
        self.log(name, metric, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> Any:
        optim = _run.optimizer(FLAGS, self.net)
        for group in optim.param_groups:
            group["lr"] = self.learning_rate
        rate = _run.schedule(optim, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optim, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


def batches(module: Classifier, part: str) -> Batches:
    """The images of a part of the data, fetched on the device that holds them."""

    def fetch(index: Tensor) -> tuple[Tensor, Tensor]:
        x, y = getattr(module.data, f"x_{part}"), getattr(module.data, f"y_{part}")
        return x[index.to(x.device)], y[index.to(y.device)]

    count = len(getattr(module.data, f"y_{part}"))
    if part == "train":
        return Batches(fetch, count, FLAGS.batch_size, FLAGS.seed, FLAGS.limit_train_batches)
    return Batches(fetch, count, 500)


def find_learning_rate(run: _run.Run, module: Classifier) -> None:
    """Set the learning rate by a range test (Smith 2017), and keep it among the run's flags."""
    from pytorch_lightning.tuner.tuning import Tuner

    tuner = Tuner(trainer(run, "valid_accuracy", max_epochs=_RATES))
    with contextlib.ExitStack() as stack:
        if not sys.stderr.isatty():  # its progress bar is drawn in any case
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        tried = tuner.lr_find(module, batches(module, "train"), num_training=_RATES)
    rate = tried.suggestion() if tried else None
    if rate is None:
        raise _run.RunError("--find_learning_rate: the loss fell at no rate; give one with --learning_rate")
    FLAGS["learning_rate"].value = module.learning_rate = rate
    run.write_flags()
    if run.chief:
        print(f"learning_rate {rate:.4g}", flush=True)


def train(run: _run.Run) -> dict[str, Any]:
    data = load(FLAGS)
    module = Classifier(data)
    if FLAGS.find_learning_rate and not run.resumed:
        find_learning_rate(run, module)
    parts = [batches(module, part) for part in ("train", "valid", "test")]
    figures = fit(trainer(run, "valid_accuracy"), module, *parts)
    if FLAGS.plot and run.chief and not FLAGS.fast_dev_run:
        report(run, module)
    return {
        "dataset": "generated" if FLAGS.fast else FLAGS.dataset,
        **figures,
        "chance": round(1 / data.classes, 4),
        "learning_rate": module.learning_rate,
    }


def report(run: _run.Run, module: Classifier) -> None:
    from snnlib.task import _plot

    _plot.curves(run.folder / "curve.png", run.metrics(), "epoch", ("valid_accuracy",))
    image = module.data.x_test[:1].cpu()
    sequence = encode(FLAGS, module.data.scaled(image))
    _plot.image_response(run.folder / "sample.png", module.net.cpu(), sequence, image[0], FLAGS.dt)


if __name__ == "__main__":
    _run.launch(FLAGS, "mnist_pl", train, __doc__, prepare=defaults)
