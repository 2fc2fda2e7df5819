"""Colour images: a spiking convolutional or residual network on CIFAR-10, CIFAR-100, or your own images.

    python -m snnlib.task.cifar10 --dataset=cifar10 --data_dir=data
    python -m snnlib.task.cifar10 --dataset=my_images.npz --width=32
    python -m snnlib.task.cifar10 --model=resnet --precision=bf16-mixed
    python -m snnlib.task.cifar10 --neuron_model=relu

An image is the input current of the first convolution at every time step, and so that convolution runs once.
After every epoch the validation images choose; the test images are looked at once, at the end, with the best
weights. --neuron_model=relu is the control: the same net without spikes and without time.
Without --epochs and --seq_length they are 20 and 2, for --model=resnet 100 and 4; relu needs one step.
"""

from typing import Any

from absl import flags
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from snnlib.dataset.augment import cutout, random_crop, random_flip
from snnlib.dataset.error import DataError
from snnlib.dataset.images import NAMES, Images, check_name, generated_images, load_images
from snnlib.functional.li import LIParameters
from snnlib.functional.lif import LIFParameters
from snnlib.module.convnet import ConvNet
from snnlib.module.lif import LIF
from snnlib.module.resnet import JOINS, ResNet
from snnlib.task import _run, _train
from snnlib.task._batches import refuse_single_images
from snnlib.task._classifier import ImageClassifier, fit_images
from snnlib.task._flags import LIGHTNING, at_least, between, define, fill, one_of, refuse_beside, shared
from snnlib.task._launch import launch

__all__ = ["FLAGS", "Classifier", "load", "network", "prepare", "train"]

NEEDS = ("pytorch_lightning", "torchvision", "tensorboard", "matplotlib")

# fmt: off
FLAGS = shared(
    **LIGHTNING, seed=0, epochs=None, batch_size=128, learning_rate=4e-3, weight_decay=0.05, clip_grad=0.0,
    optimizer="adamw", seq_length=None, dt=0.001, tau_syn_inv=1000.0, tau_mem_inv=500.0, method="arctan",
    alpha=None, backend="auto", channels_last=True, data_dir="data", output_dir="runs", resume=None,
    save_every=0, plot=True, fast=False,
)
define(FLAGS, {
    "dataset": ("cifar10", "cifar10, cifar100, or the path of an .npz with x_train, y_train, x_test, y_test."),
    "model": ("conv", "Four convolutions, or residual blocks.", one_of("conv", "resnet")),
    "residual": ("spikes",
        "What a block of the residual net adds its input to: the current of its last neurons, or their spikes.",
        one_of(*JOINS)),
    "width": (None,
        "Channels of the first convolution; later ones have up to four times as many. Without it 64 (conv) or "
        "128 (resnet).", at_least(1)),
    "neuron_model": ("lif", "Spiking neurons, or their control, which needs no time.", one_of("lif", "relu")),
    "dropout": (0.0, "Share of the readout's inputs dropped in training.", between(0.0, 0.95)),
    "label_smoothing": (0.1, "Share of a label that is spread over all classes.", between(0.0, 0.95)),
    "augment": (True, "Move training images by up to 4 pixels and mirror half of them."),
    "cutout": (8, "Side of a square blacked out in training images, pixels; 0: none.", at_least(0)),
    "ema_decay": (0.0,
        "Evaluate a moving average of the weights that keeps this share of itself in a step; 0: the weights.",
        between(0.0, 0.99999)),
})
# fmt: on


def prepare(values: flags.FlagValues) -> None:
    """Fill in the flags whose default depends on others."""
    if not values.fast:
        check_name(values.dataset)
    conv, resnet = {"epochs": 20, "width": 64, "seq_length": 2}, {"epochs": 100, "width": 128, "seq_length": 4}
    usual = resnet if values.model == "resnet" else conv
    if values.neuron_model == "relu":  # what does not spike has no use for time: every step would be the same
        usual["seq_length"] = 1
        refuse_beside("--neuron_model=relu", values, "method", "alpha")
    if values.model == "conv":
        refuse_beside("--model=conv", values, "residual")
    fill(values, usual, fast={"epochs": 2, "width": 4})
    if values.model == "conv":
        refuse_single_images(values)


def load(values: flags.FlagValues) -> Images:
    if values.fast:
        return generated_images()
    try:
        return load_images(values.dataset, values.data_dir)
    except DataError as error:
        if values.dataset not in NAMES:
            raise
        raise DataError(
            f"{error}\ngive a folder that has it with --data_dir, or your own images as an .npz"
        ) from error


def network(values: flags.FlagValues, data: Images) -> nn.Module:
    p = LIFParameters(
        tau_syn_inv=values.tau_syn_inv, tau_mem_inv=values.tau_mem_inv, method=values.method, alpha=values.alpha
    )
    relu = values.neuron_model == "relu"

    def neuron() -> nn.Module:
        return nn.ReLU() if relu else LIF(p, values.dt, backend=values.backend)

    # batch norms begin with currents that move a membrane by one threshold in one step, see ResNet
    gain = 1.0 if relu else 1.0 / (values.dt * values.tau_mem_inv)
    shape, classes, width = data.shape, data.classes, values.width
    if values.model == "resnet":
        options = {"gain": gain, "join": values.residual, "dropout": values.dropout, "backend": values.backend}
        return ResNet(shape, classes, neuron, width, **options)
    channels = (width, 2 * width, 4 * width, 4 * width)
    readout = LIParameters(tau_syn_inv=values.tau_syn_inv, tau_mem_inv=values.tau_mem_inv)
    options = {"dropout": values.dropout, "backend": values.backend, "neuron": neuron, "gain": gain}
    return ConvNet(shape, classes, channels, 4 * width, p, readout, values.dt, **options)


def augmented(values: flags.FlagValues, images: Tensor) -> Tensor:
    if values.augment:
        images = random_flip(random_crop(images))
    return cutout(images, values.cutout) if values.cutout else images


class Classifier(ImageClassifier):
    """The net, its moving average, its loss and its figures."""

    def __init__(self, values: flags.FlagValues, data: Images) -> None:
        net = network(values, data)
        self.format = _train.memory_format(values)
        super().__init__(values, data, net.to(memory_format=self.format))
        self.average = None
        if values.ema_decay:
            keep = get_ema_multi_avg_fn(values.ema_decay)
            self.average = AveragedModel(self.net, multi_avg_fn=keep, use_buffers=True).requires_grad_(False)

    def sequence(self, x: Tensor) -> Tensor:
        """The same image, between 0 and 1, at every step, ``[T, B, C, H, W]``."""
        x = x.to(self.dtype).contiguous(memory_format=self.format)
        return x.expand(self.values.seq_length, *x.shape)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        output = self.net(self.sequence(augmented(self.values, self.data.scaled(images))))
        return cross_entropy(output, labels, label_smoothing=self.values.label_smoothing)

    def forward(self, images: Tensor) -> Tensor:
        net = self.average or self.net
        return net(self.sequence(self.data.scaled(images)))  # type: ignore[no-any-return]

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        super().optimizer_step(*arguments, **options)
        if self.average is not None:  # here, because what follows a batch may save it
            self.average.update_parameters(self.net)


def train(run: _run.Run) -> dict[str, Any]:
    data = load(FLAGS)
    run.keep_to(data)
    module = Classifier(FLAGS, data)
    figures = fit_images(run, module)
    if FLAGS.plot and run.chief and not FLAGS.fast_dev_run:
        report(run, module)
    return {
        "dataset": "generated" if FLAGS.fast else FLAGS.dataset,
        "neuron_model": FLAGS.neuron_model,
        **figures,
    }


def report(run: _run.Run, module: Classifier) -> None:
    from snnlib.task import _plot

    run.figure("curve", _plot.curves(run, "valid_accuracy"))
    image = module.data.scaled(module.data.x_test[:1].cpu())
    net = module.average.module if module.average is not None else module.net
    run.figure("sample", _plot.image_response(net.cpu(), module.sequence(image), image[0], FLAGS.dt))


if __name__ == "__main__":
    launch(FLAGS, "cifar10", train, __doc__, prepare=prepare)
