"""Images: a spiking convolutional network on MNIST, Fashion-MNIST, KMNIST, scikit-learn's digits, or your own.

    python -m snnlib.task.mnist --dataset=digits
    python -m snnlib.task.mnist --dataset=mnist --data_dir=data
    python -m snnlib.task.mnist --dataset=my_images.npz --epochs=20
    python -m snnlib.task.mnist --dataset=nmnist --seq_length=10

After every epoch the validation images choose, which were set aside from the training images; the test images
are looked at once, at the end, with the best weights.
Without --epochs and --batch_size, digits takes 40 and 64, other images 10 and 128. --method=adjoint needs time
in which spikes can move, so it has defaults of its own: more steps, slower neurons, larger weights to begin
with, a larger learning rate, and fewer epochs, 20 for digits and 4 for other images.
"""

import time
from typing import Any

import torch
from absl import flags
from torch import Tensor, nn
from torch.nn.functional import nll_loss
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from snnlib.dataset.augment import random_affine
from snnlib.dataset.error import DataError
from snnlib.dataset.events import load_nmnist
from snnlib.dataset.images import FOLDS, NAMES, Images, check_name, generated_images, load_images
from snnlib.functional.encode import constant_current_lif_encode, poisson_encode, spike_latency_lif_encode
from snnlib.functional.li import LIParameters
from snnlib.functional.lif import LIFParameters
from snnlib.functional.lif_refrac import LIFRefracParameters
from snnlib.module.convnet import ConvNet
from snnlib.module.lif_refrac import LIFRefrac
from snnlib.task import _run, _train
from snnlib.task._batches import batch_sizes, refuse_single_images
from snnlib.task._error import RunError
from snnlib.task._flags import POSITIVE, Bound, at_least, between, define, fill, one_of, shared
from snnlib.task._launch import launch
from snnlib.task._spikes import with_spikes

__all__ = ["FLAGS", "augmented", "encode", "image_flags", "load", "network", "picture", "prepare", "train"]

NEEDS = ("torchvision", "sklearn", "tensorboard", "matplotlib")

DATASETS = (*NAMES, "nmnist")

SIZES = Bound(
    flags.DEFINE_list,
    {},
    lambda names: bool(names) and all(n.isdecimal() and len(n) < 10 and int(n) > 0 for n in names),
    "positive integers with commas between",
)


def image_flags(**trainer: Any) -> flags.FlagValues:
    """The flags of the experiment, and those of ``trainer``, with their defaults."""
    # fmt: off
    values = shared(
        **trainer, seed=0, epochs=None, batch_size=None, learning_rate=2e-3, weight_decay=0.01, clip_grad=0.0,
        optimizer="adamw", seq_length=5, dt=0.001, tau_syn_inv=1000.0, tau_mem_inv=500.0, method="arctan",
        alpha=None, backend="auto", channels_last=True, data_dir="data", output_dir="runs", resume=None,
        save_every=0, plot=True, fast=False,
    )
    define(values, {
        "dataset": ("mnist",
            f"{', '.join(NAMES)}, or the path of an .npz with x_train, y_train, x_test, y_test; or nmnist, the "
            "spikes of an event camera in --seq_length steps, which go without encoder and augmentation."),
        "fold": (0, f"Which of {FOLDS} parts of the training images validates.", between(0, FOLDS - 1)),
        "encoder": ("direct",
            "How an image becomes a sequence: its pixels as a current into the first convolution, spikes of "
            "neurons that the pixels drive, Poisson spikes, or the first spike of those neurons.",
            one_of("direct", "constant_current", "poisson", "latency")),
        "only_first_spike": (False, "The same as --encoder=latency, by Norse's name."),
        "input_scale": (4.0, "Current of a white pixel, in thresholds (constant_current, latency).", POSITIVE),
        "poisson_rate": (500.0, "Rate of a white pixel, Hz (poisson).", POSITIVE),
        "channels": (["32", "64", "64"], "Channels of the convolutions.", SIZES),
        "hidden_size": (256, "Neurons of the hidden layer.", at_least(1)),
        "refrac": (False, "Let a neuron rest for 5 ms after a spike."),
        "train_only_output": (False,
            "Train the readout alone; weights before it stay what they began with, and batch norms go on "
            "counting."),
        "dropout": (0.0, "Share of hidden spikes dropped in training.", between(0.0, 0.95)),
        "augment": (True, "Move, turn and scale training images at random."),
    })
    # fmt: on
    flags.register_multi_flags_validator(
        ["only_first_spike", "encoder"],
        lambda f: not f["only_first_spike"] or f["encoder"] in ("direct", "latency"),
        "another encoder contradicts --only_first_spike",
        values,
    )
    flags.register_multi_flags_validator(
        ["dataset", "encoder", "only_first_spike"],
        lambda f: f["dataset"] != "nmnist" or (f["encoder"] == "direct" and not f["only_first_spike"]),
        "nmnist holds spikes: it goes with --encoder=direct",
        values,
    )
    return values


FLAGS = image_flags(device="auto")

ADJOINT = {"seq_length": 12, "tau_syn_inv": 200.0, "tau_mem_inv": 100.0, "learning_rate": 4e-3}
"""Defaults of ``--method=adjoint``, see docs/gradients.md."""


def prepare(values: flags.FlagValues) -> None:
    """Fill in the flags whose default depends on the data set or on the method."""
    if not values.fast:
        check_name(values.dataset, DATASETS)
    digits, exact = values.dataset == "digits", values.method == "adjoint"
    epochs = (20 if digits else 4) if exact else (40 if digits else 10)
    usual = {"epochs": epochs, "batch_size": 64 if digits else 128, **(ADJOINT if exact else {})}
    fill(values, usual, fast={"epochs": 2, "batch_size": 32})
    refuse_single_images(values)


def load(values: flags.FlagValues) -> Images:
    if values.fast:
        return generated_images()
    try:
        if values.dataset == "nmnist":
            return load_nmnist(values.data_dir, values.seq_length, values.fold)
        return load_images(values.dataset, values.data_dir, values.fold)
    except DataError as error:
        if values.dataset not in DATASETS:
            raise
        way_out = "give a folder that has it with --data_dir, or take --dataset=digits, which is embedded"
        raise DataError(f"{error}\n{way_out}") from error


def network(values: flags.FlagValues, data: Images) -> ConvNet:
    p = LIFParameters(
        tau_syn_inv=values.tau_syn_inv, tau_mem_inv=values.tau_mem_inv, method=values.method, alpha=values.alpha
    )
    readout = LIParameters(tau_syn_inv=values.tau_syn_inv, tau_mem_inv=values.tau_mem_inv)
    channels = [int(n) for n in values.channels]
    # the adjoint moves no spikes where there are none: larger currents to begin with
    gain = 2.0 if values.method == "adjoint" else 1.0
    options = {"dropout": values.dropout, "backend": values.backend, "gain": gain}
    if values.refrac:
        resting = LIFRefracParameters(**p._asdict())
        options["neuron"] = lambda: LIFRefrac(resting, values.dt, backend=values.backend)
    net = ConvNet(data.shape, data.classes, channels, values.hidden_size, p, readout, values.dt, **options)
    if values.train_only_output:
        net.requires_grad_(False).layers[-2].requires_grad_(True)
    return net.to(memory_format=_train.memory_format(values))


def augmented(x: Tensor) -> Tensor:
    """Images moved, turned and scaled at random; spikes ``[B, T, C, H, W]`` as they are."""
    return random_affine(x) if x.dim() == 4 else x


def picture(x: Tensor) -> Tensor:
    """An image to look at; of spikes ``[T, C, H, W]`` the pixels that had one."""
    return x if x.dim() == 3 else x.amax((0, 1))[None]


def encode(values: flags.FlagValues, x: Tensor) -> Tensor:
    """Images between 0 and 1 ``[B, C, H, W]``, or spikes ``[B, T, C, H, W]``, as a sequence, time first."""
    if x.dim() == 5:
        return x.transpose(0, 1)
    steps: int = values.seq_length
    dt: float = values.dt
    encoder = "latency" if values.only_first_spike else values.encoder
    if encoder == "direct":
        return x.expand(steps, *x.shape)
    if encoder == "poisson":
        return poisson_encode(x, steps, values.poisson_rate, dt)
    current, p = values.input_scale * x, LIFParameters(tau_mem_inv=values.tau_mem_inv)
    if encoder == "latency":
        return spike_latency_lif_encode(current, steps, p, dt)
    return constant_current_lif_encode(current, steps, p, dt)


@torch.no_grad()
def accuracy(net: ConvNet, data: Images, x: Tensor, y: Tensor) -> float:
    net.eval()
    right = 0
    for images, labels in zip(x.split(500), y.split(500), strict=True):
        right += int((net(encode(FLAGS, data.scaled(images))).argmax(1) == labels).sum())
    net.train()
    return right / len(y)


def silent(net: ConvNet, data: Images) -> float:
    """The share of spiking neurons that none of the first 500 validation images lets spike."""
    sequence = encode(FLAGS, data.scaled(data.x_valid[:500]))
    _, spiked = with_spikes(net, sequence, lambda spikes: spikes.amax((0, 1)).flatten())
    return float((torch.cat(spiked) == 0).float().mean())


def train_epoch(
    run: _run.Run, at: dict[str, Any], net: ConvNet, data: Images, optim: Optimizer, rate: LRScheduler
) -> None:
    """Train with what is left of the epoch in which the run stands."""
    if at["order"] is None:
        at["order"] = torch.randperm(len(data.y_train))
    batches = at["order"].split(batch_sizes(len(data.y_train), FLAGS.batch_size))
    for batch in run.progress(range(at["batch"], len(batches)), f"epoch {at['epoch'] + 1}"):
        index = batches[batch].to(data.y_train.device)
        x = data.scaled(data.x_train[index])
        loss = nll_loss(net(encode(FLAGS, augmented(x) if FLAGS.augment else x)), data.y_train[index])
        optim.zero_grad()
        loss.backward()
        if FLAGS.clip_grad:
            nn.utils.clip_grad_norm_(net.parameters(), FLAGS.clip_grad)
        optim.step()
        rate.step()
        at["loss"] += _train.finite(loss) * len(index)
        at["batch"] = batch + 1
        run.pause(at["epoch"] * len(batches) + at["batch"], run.due(at["batch"]))


def train(run: _run.Run) -> dict[str, Any]:
    device = _train.device(FLAGS)
    data = load(FLAGS)
    run.keep_to(data)
    data = data.to(device)
    net = network(FLAGS, data).to(device)
    optim = _train.optimizer(FLAGS, net)
    batches = len(batch_sizes(len(data.y_train), FLAGS.batch_size))
    rate = _train.schedule(optim, FLAGS.epochs * batches)
    # where the run stands: saved with every checkpoint, so that a resumed run goes on in the middle of an epoch
    start = {"epoch": 0, "batch": 0, "loss": 0.0, "order": None, "best": -1.0}
    at = run.track(start, net=net, optimizer=optim, schedule=rate)
    check_order(at["order"], len(data.y_train))
    run.watch(net, optim)
    while at["epoch"] < FLAGS.epochs:
        started = time.perf_counter()
        train_epoch(run, at, net, data, optim, rate)
        figures = {
            "train_loss": at["loss"] / len(data.y_train),
            "valid_accuracy": accuracy(net, data, data.x_valid, data.y_valid),
        }
        at |= {"epoch": at["epoch"] + 1, "batch": 0, "loss": 0.0, "order": None}
        step = at["epoch"] * batches
        run.log(step, epoch=at["epoch"], **figures, epoch_seconds=time.perf_counter() - started)
        if figures["valid_accuracy"] >= at["best"]:  # of equals the later, which has learned longer
            at["best"] = figures["valid_accuracy"]
            run.save(step, "best.pt")
        run.save(step)
    run.pause(at["epoch"] * batches)
    return report(run, net, data)


def check_order(order: Tensor | None, count: int) -> None:
    """Refuse the order of a resumed epoch where the images are others than they were."""
    if order is not None and not torch.equal(order.sort().values, torch.arange(count)):
        raise RunError(f"the run stopped within an epoch of {len(order)} images, these are {count}")


def report(run: _run.Run, net: ConvNet, data: Images) -> dict[str, Any]:
    chosen = run.take_best(net, "valid_accuracy")
    figures = {
        "dataset": "generated" if FLAGS.fast else FLAGS.dataset,
        "test_accuracy": accuracy(net, data, data.x_test, data.y_test),
        "valid_accuracy": chosen["valid_accuracy"],
        "chance": round(1 / data.classes, 4),
        "best_epoch": int(chosen["epoch"]),
        "silent_share": round(silent(net, data), 4),
    }
    if FLAGS.plot:  # after the test: an encoder may draw random numbers
        from snnlib.task import _plot

        run.figure("curve", _plot.curves(run, "valid_accuracy"))
        image = data.scaled(data.x_test[:1])
        sequence = encode(FLAGS, image)
        run.figure("sample", _plot.image_response(net, sequence, picture(image[0]), FLAGS.dt))
    return figures


if __name__ == "__main__":
    launch(FLAGS, "mnist", train, __doc__, prepare=prepare)
