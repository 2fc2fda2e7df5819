"""What the tasks take from Lightning, or a sentence where it is missing."""

import logging
import warnings

from snnlib.task import _flags

try:
    import pytorch_lightning as pl
    from lightning_fabric.utilities.exceptions import MisconfigurationException
    from pytorch_lightning.callbacks import Checkpoint, EarlyStopping
    from pytorch_lightning.plugins.io import TorchCheckpointIO
    from torchmetrics import MeanMetric
except ImportError as error:
    _flags.needs(error)

__all__ = [
    "Checkpoint",
    "EarlyStopping",
    "MeanMetric",
    "MisconfigurationException",
    "TorchCheckpointIO",
    "pl",
    "quiet",
]


def quiet() -> None:
    """Keep Lightning's advertisements and advice off the screen; errors still come."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric")
