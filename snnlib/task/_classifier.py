"""What Lightning's image tasks share: figures, optimiser, batches, and the three parts of the data."""

from typing import Any

from absl import flags
from torch import Tensor, nn

from snnlib.dataset.images import Images
from snnlib.task import _run, _train
from snnlib.task._batches import Batches, fetcher
from snnlib.task._lightning import MeanMetric, pl
from snnlib.task._processes import share_batch_norms
from snnlib.task._trainer import fit, scheduled, trainer

__all__ = ["ImageClassifier", "fit_images"]


class ImageClassifier(pl.LightningModule):
    """A net that tells images apart; a task says what its loss is, and as ``forward`` what it makes of images.

    Parameters:
        values: the task's flags.
        data: the images.
        net: what learns.
    """

    def __init__(self, values: flags.FlagValues, data: Images, net: nn.Module) -> None:
        super().__init__()
        self.values, self.data = values, data
        self.learning_rate = values.learning_rate
        self.net = share_batch_norms(net)
        self.valid_accuracy = MeanMetric()
        self.test_accuracy = MeanMetric()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of training images, uint8 or float ``[B, C, H, W]``."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        self.data = self.data.to(self.device)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        return {"loss": self.loss(*batch), "examples": len(batch[1])}

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self._count("valid_accuracy", *batch)

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self._count("test_accuracy", *batch)

    def _count(self, name: str, images: Tensor, labels: Tensor) -> None:
        metric = getattr(self, name)
        metric.update((self(images).argmax(1) == labels).float())
        self.log(name, metric, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> Any:
        optim = _train.optimizer(self.values, self.net)
        for group in optim.param_groups:
            group["lr"] = self.learning_rate
        return scheduled(optim, self.trainer)

    def batches(self, part: str) -> Batches:
        """The images of a part of the data."""
        fetch, count = fetcher(self, part), len(getattr(self.data, f"y_{part}"))
        if part == "train":
            values = self.values
            return Batches(fetch, count, values.batch_size, values.seed, values.limit_train_batches)
        return Batches(fetch, count, 500)


def fit_images(run: _run.Run, module: ImageClassifier) -> dict[str, Any]:
    """Train with the training images, choose the epoch with the validation images, report the test images."""
    parts = [module.batches(part) for part in ("train", "valid", "test")]
    figures = fit(trainer(run, "valid_accuracy"), module, *parts)
    return {**figures, "chance": round(1 / module.data.classes, 4)}
