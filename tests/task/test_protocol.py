"""The protocol of every task: one part trains, another chooses, a third reports, with the best weights."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from snnlib.dataset.images import Images
from snnlib.dataset.log_mel import LogMel
from snnlib.dataset.wave import scaled
from snnlib.task import _run, cartpole, cifar10, correlation, memory, mnist, mnist_pl
from snnlib.task._environment import Environments
from snnlib.task.speech_commands import run as speech_commands
from tests.task.command import checkpoint, same
from tests.task.test_flags import TASKS, here, module_of


def rows(x: Tensor) -> Iterable[bytes]:
    return (row.numpy().tobytes() for row in x)


FLAGS = {
    "cartpole": ("--episodes=12", "--eval_every=1"),
    "speech_commands": ("--epochs=2", "--noise=0", "--time_shift=0"),  # training clips are heard as they are
}
"""Where it is not two epochs."""
# fmt: off
EXAMPLES: dict[str, tuple[Any, str, Callable[..., Iterable[Any]]]] = {
    **dict.fromkeys(("cifar10", "mnist", "mnist_pl"), (Images, "scaled", lambda data, x: rows(x))),
    "cartpole": (Environments, "play", lambda envs, seeds, act: seeds),
    "correlation": (correlation.PlasticNet, "forward", lambda net, drawn, control: rows(drawn.question.mT)),
    "memory": (memory.Memory, "answers", lambda module, trials: rows(trials.spikes.transpose(0, 1))),
    "speech_commands": (LogMel, "_log_mel", lambda features, clips: rows(scaled(clips))),
}
"""What all examples are given to, and what tells them apart."""
ANSWERS: dict[str, tuple[Any, str]] = {
    "cartpole": (cartpole.Agent, "greedy"),
    "cifar10": (cifar10.Classifier, "_count"),
    "correlation": (correlation.PlasticNet, "forward"),
    "memory": (memory.Memory, "_count"),
    "mnist": (mnist, "accuracy"),
    "mnist_pl": (mnist_pl.Classifier, "_count"),
    "speech_commands": (speech_commands.Classifier, "_count"),
}
"""What is called while the net is tested; the net is its first argument."""
# fmt: on


class Watched:
    """A run of a task, whose best weights are halved when they are written: no net that was trained has them.

    Attributes:
        examples: in each stage, one after another; what a task looks at before it trains is left out.
        tested: the weights of the net while it is tested, anew where they have changed.
        data: the data set, of a task that has one.
    """

    def __init__(self, task: str, root: Path) -> None:
        self.task, self.best_is_read = task, False
        self.examples: dict[str, list[Any]] = {"train": [], "valid": [], "test": []}
        self.tested: list[dict[str, Tensor]] = []
        *place, self.told_apart = EXAMPLES[task]
        with pytest.MonkeyPatch.context() as patch:
            for (owner, name), first in (
                (place, self._example),
                (ANSWERS[task], self._answer),
                ((_run.Run, "write_checkpoint"), self._write),
                ((_run.Run, "read_checkpoint"), self._read),
            ):
                patch.setattr(owner, name, preceded(getattr(owner, name), first))
            patch.setattr(mnist, "silent", lambda net, data: 0.0)  # of validation images, after the test
            self.folder = here(task, root, *FLAGS.get(task, ("--epochs=2",)))
        module = module_of(task)
        self.data = module.load(module.FLAGS) if hasattr(module, "load") else None

    def _example(self, *given: Any) -> None:
        learns = torch.is_grad_enabled()
        if self.task == "cartpole":
            learns = getattr(given[-1], "__name__", "") == "drawn"
        stage = "test" if self.best_is_read else "train" if learns else "valid"
        if self.examples["train"] or stage == "train":
            self.examples[stage].extend(self.told_apart(*given))

    def _answer(self, net: Any, *given: Any) -> None:
        now = {name: weight.detach().clone() for name, weight in net.named_parameters()}
        if self.best_is_read and not (self.tested and same(self.tested[-1], now)):
            self.tested.append(now)

    def _write(self, run: _run.Run, name: str, content: dict[str, Any]) -> None:
        if name == "best.pt":
            part = "net" if "net" in content else "state_dict"
            content[part] = {k: w / 2 if w.is_floating_point() else w for k, w in content[part].items()}

    def _read(self, run: _run.Run, name: str) -> None:
        self.best_is_read |= name == "best.pt"

    def weights(self, name: str) -> dict[str, Tensor]:
        found = checkpoint(self.folder, name)
        return found["net"] if "net" in found else found["state_dict"]


def preceded(function: Callable[..., Any], first: Callable[..., None]) -> Callable[..., Any]:
    def both(*given: Any) -> Any:
        first(*given)
        return function(*given)

    return both


@pytest.fixture(scope="module", params=TASKS)
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched(request.param, tmp_path_factory.mktemp(request.param))


def test_what_trains_what_chooses_and_what_reports_have_nothing_in_common(watched: Watched):
    parts = {stage: {*found} for stage, found in watched.examples.items()}
    assert all(parts.values())
    assert sum(map(len, parts.values())) == len(set.union(*parts.values()))
    if watched.data is None:  # every example is drawn anew
        assert len(parts["train"]) == len(watched.examples["train"])
        return
    x_valid, x_test = watched.data.x_valid, watched.data.x_test
    if watched.task == "speech_commands":
        x_valid, x_test = scaled(x_valid), scaled(x_test)
    assert parts["valid"] == {*rows(x_valid)}
    assert sorted(watched.examples["test"]) == sorted(rows(x_test))  # each once


def test_the_best_weights_are_tested(watched: Watched):
    (tested,) = watched.tested
    best, last = (watched.weights(name) for name in ("best.pt", "last.pt"))
    assert [name for name, weight in tested.items() if not torch.equal(weight, best[name])] == []
    assert not all(torch.equal(weight, last[name]) for name, weight in tested.items())


@pytest.mark.parametrize("watched", sorted({*TASKS} - {"cartpole"}), indirect=True)
def test_the_learning_rate_falls_to_zero(watched: Watched):
    last = checkpoint(watched.folder)
    optim = last["optimizer"] if "optimizer" in last else last["optimizer_states"][0]
    assert optim["param_groups"][0]["lr"] == pytest.approx(0.0, abs=1e-12)
