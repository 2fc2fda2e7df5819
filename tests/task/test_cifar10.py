"""``python -m snnlib.task.cifar10``: as a process, stopped and gone on with; and what each flag changes."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from absl import flags

pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed")

from snnlib.task import _command, _train, cifar10
from tests.task.command import assert_wrote, clear, inside, metrics, result, run

LONGER = ("--fast", "--epochs=10", "--batch_size=8", "--ema_decay=0.9", "--dropout=0.1", "--cutout=3")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped."""
    root = tmp_path_factory.mktemp("undisturbed")
    figures = result(run("cifar10", *LONGER, cwd=root, fresh=True))
    assert figures["task"] == "cifar10"
    assert figures["chance"] == 0.25
    return root / figures["run"]


def test_a_run_writes_its_folder_and_nothing_else(undisturbed: Path):
    assert_wrote(undisturbed, undisturbed.parents[2], "curve.png", "sample.png")
    assert [line["epoch"] for line in metrics(undisturbed)] == list(range(1, 11))


def test_it_learns(tmp_path: Path):
    flags = ("--fast", "--noplot", "--noaugment", "--cutout=0", "--epochs=6", "--batch_size=8", "--width=8")
    assert inside(cifar10, "cifar10", *flags, cwd=tmp_path)["test_accuracy"] > 0.9


def test_own_colour_images_in_half_precision_through_the_residual_net(tmp_path: Path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 12, 9, 3), dtype=np.uint8), np.arange(60) % 3
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    options = ("--model=resnet", "--width=2", "--epochs=1", "--precision=bf16-mixed")
    figures = result(run("cifar10", "--dataset=own.npz", *options, cwd=tmp_path))
    assert figures["dataset"] == "own.npz"
    assert figures["chance"] == pytest.approx(1 / 3, abs=1e-3)
    assert (tmp_path / figures["run"] / "sample.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model=nonsense"], "model"),
        (["--width=0"], "width"),
        (["--residual=voltage"], "residual"),
        (["--neuron_model=izhikevich"], "neuron_model"),
        (["--dropout=1"], "dropout"),
        (["--label_smoothing=1"], "label_smoothing"),
        (["--cutout=-1"], "cutout"),
        (["--ema_decay=1"], "ema_decay"),
        (["--augment=maybe"], "augment"),
        (["--channels_last=maybe"], "channels_last"),
        (["--seq_length=0"], "seq_length"),
        (["cifar100"], "unexpected argument 'cifar100'"),
    ],
)
def test_a_wrong_flag_ends_in_a_sentence(monkeypatch, capsys, arguments: list[str], says: str):
    monkeypatch.setattr("sys.argv", ["cifar10", *arguments])
    with pytest.raises(SystemExit) as ended:
        _command.parse(copy.deepcopy(cifar10.FLAGS), "")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1


def values_of(*arguments: str) -> flags.FlagValues:
    clear(cifar10)  # of what another test has given
    values = copy.deepcopy(cifar10.FLAGS)
    values(["cifar10", "--fast", "--cutout=3", *arguments])
    cifar10.prepare(values)
    return values


def made(*arguments: str) -> cifar10.Classifier:
    values = values_of(*arguments)
    torch.manual_seed(0)
    return cifar10.Classifier(values, cifar10.load(values))


def trained(*arguments: str, steps: int = 2) -> tuple[list[float], torch.Tensor]:
    """The losses of some steps and what the net then says of an image."""
    module = made(*arguments)
    optim = _train.optimizer(module.values, module.net)
    losses = []
    for _ in range(steps):
        loss = module.loss(module.data.x_train[:32], module.data.y_train[:32])
        optim.zero_grad()
        loss.backward()
        optim.step()
        if module.average is not None:
            module.average.update_parameters(module.net)
        losses.append(float(loss.detach()))
    module.eval()
    return losses, module(module.data.x_test[:1]).detach()


@pytest.fixture(scope="module")
def usual() -> tuple[list[float], torch.Tensor]:
    first, again = trained(), trained()
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])
    return first


@pytest.mark.parametrize(
    "flag",
    [
        "--model=resnet",
        "--width=5",
        "--neuron_model=relu",
        "--seq_length=3",
        "--dropout=0.5",
        "--label_smoothing=0",
        "--noaugment",
        "--cutout=0",
        "--method=super",
        "--tau_mem_inv=300",
    ],
)
def test_a_flag_changes_training(usual: tuple[list[float], torch.Tensor], flag: str):
    assert trained(flag)[0] != usual[0]


def test_blocks_join_as_they_are_told():
    first, second = (trained("--model=resnet", f"--residual={join}")[0] for join in ("current", "spikes"))
    assert first != second


def test_the_moving_average_is_what_is_evaluated(usual: tuple[list[float], torch.Tensor]):
    losses, said = trained("--ema_decay=0.5")
    assert losses == usual[0]
    assert not torch.equal(said, usual[1])
    module = made("--ema_decay=0.5").eval()
    assert module.average is not None
    first = {name: w.clone() for name, w in module.net.state_dict().items()}
    module.average.update_parameters(module.net)  # the first is taken as it is
    for weight in module.net.parameters():
        weight.data.add_(1.0)
    module.average.update_parameters(module.net)
    kept = module.average.module.state_dict()
    for name, _ in module.net.named_parameters():
        torch.testing.assert_close(kept[name], first[name] + 0.5)
    assert not any(weight.requires_grad for weight in module.average.parameters())


def test_channels_last_is_a_matter_of_memory_alone(usual: tuple[list[float], torch.Tensor]):
    module = made()
    weights = [w for w in module.net.parameters() if w.dim() == 4]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    assert not all(w.is_contiguous() for w in weights)
    assert module.sequence(module.data.x_test[:2])[0].is_contiguous(memory_format=torch.channels_last)
    assert all(w.is_contiguous() for w in made("--nochannels_last").net.parameters())
    assert trained("--nochannels_last")[0] == pytest.approx(usual[0], rel=1e-3)


def test_the_dataset_is_the_one_that_is_named():
    with pytest.raises(cifar10.DataError, match="elsewhere"):
        cifar10.load(_set("--dataset=elsewhere.npz"))


def _set(*arguments: str) -> flags.FlagValues:
    clear(cifar10)  # of what another test has given
    values = copy.deepcopy(cifar10.FLAGS)
    values(["cifar10", *arguments])
    return values


@pytest.mark.parametrize(
    ("arguments", "filled"),
    [
        ((), (20, 64, 2)),
        (("--model=resnet",), (100, 128, 4)),
        (("--neuron_model=relu",), (20, 64, 1)),
        (("--model=resnet", "--neuron_model=relu", "--width=3", "--epochs=7"), (7, 3, 1)),
        (("--neuron_model=relu", "--seq_length=6"), (20, 64, 6)),
    ],
)
def test_what_is_not_given_follows_from_the_model(arguments: tuple[str, ...], filled: tuple[int, int, int]):
    values = _set(*arguments)
    cifar10.prepare(values)
    assert (values.epochs, values.width, values.seq_length) == filled


def test_only_training_images_are_augmented():
    module = made("--label_smoothing=0").eval()
    x = module.data.x_test[:4]
    assert torch.equal(module(x), module(x))
    assert not torch.equal(cifar10.augmented(module.values, x), x)
    torch.testing.assert_close(module.sequence(module.data.scaled(x))[0], x / 255.0)
