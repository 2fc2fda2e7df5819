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

from torch import Tensor
from torch.nn.functional import nll_loss

from snnlib.task import _run
from snnlib.task._classifier import ImageClassifier, fit_images
from snnlib.task._error import RunError
from snnlib.task._flags import LIGHTNING, define
from snnlib.task._launch import launch
from snnlib.task._trainer import trainer
from snnlib.task.mnist import augmented, encode, image_flags, load, network, picture, prepare

__all__ = ["FLAGS", "Classifier", "train"]

NEEDS = ("pytorch_lightning", "torchvision", "sklearn", "tensorboard", "matplotlib")

FLAGS = image_flags(**LIGHTNING)
# fmt: off
define(FLAGS, {
    "find_learning_rate": (False,
        "Before training, try rates from small to large for some batches and take the one at which the loss "
        "falls fastest."),
})
# fmt: on

_RATES = 60
"""Rates that --find_learning_rate tries, one a batch."""


class Classifier(ImageClassifier):
    """The net of the mnist task."""

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return nll_loss(self(images, FLAGS.augment), labels)

    def forward(self, images: Tensor, augment: bool = False) -> Tensor:
        x = self.data.scaled(images).to(self.dtype)
        return self.net(encode(FLAGS, augmented(x) if augment else x))  # type: ignore[no-any-return]


def find_learning_rate(run: _run.Run, module: Classifier) -> None:
    """Set the learning rate by a range test (Smith 2017), and keep it among the run's flags."""
    from pytorch_lightning.tuner.tuning import Tuner

    tuner = Tuner(trainer(run, "valid_accuracy", max_epochs=_RATES))
    with contextlib.ExitStack() as stack:
        if not sys.stderr.isatty():  # its progress bar is drawn in any case
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        tried = tuner.lr_find(module, module.batches("train"), num_training=_RATES)
    rate = tried.suggestion() if tried else None
    if rate is None:
        raise RunError("--find_learning_rate: the loss fell at no rate; give one with --learning_rate")
    FLAGS["learning_rate"].value = module.learning_rate = rate
    run.write_flags()
    if run.chief:
        print(f"learning_rate {rate:.4g}", flush=True)


def train(run: _run.Run) -> dict[str, Any]:
    data = load(FLAGS)
    run.keep_to(data)
    module = Classifier(FLAGS, data, network(FLAGS, data))
    if FLAGS.find_learning_rate and not run.resumed and not FLAGS.fast_dev_run:
        find_learning_rate(run, module)
    figures = fit_images(run, module)
    if FLAGS.plot and run.chief and not FLAGS.fast_dev_run:
        report(run, module)
    return {
        "dataset": "generated" if FLAGS.fast else FLAGS.dataset,
        **figures,
        "learning_rate": module.learning_rate,
    }


def report(run: _run.Run, module: Classifier) -> None:
    from snnlib.task import _plot

    run.figure("curve", _plot.curves(run, "valid_accuracy"))
    image = module.data.scaled(module.data.x_test[:1].cpu())
    sequence = encode(FLAGS, image.to(module.dtype))
    run.figure("sample", _plot.image_response(module.net.cpu(), sequence, picture(image[0]), FLAGS.dt))


if __name__ == "__main__":
    launch(FLAGS, "mnist_pl", train, __doc__, prepare=prepare)
