"""N-MNIST, the digits of MNIST seen by an event camera, as spikes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnlib.dataset.error import DataError
from snnlib.dataset.images import FOLDS, Images, split, unsplit

__all__ = ["load_nmnist"]


def load_nmnist(data_dir: str | Path, seq_length: int, fold: int = 0) -> Images:
    """Load N-MNIST whole into memory, each recording binned into as many steps of the same length.

    A spike is a pixel of a polarity that saw an event in the step, or several.

    Parameters:
        data_dir: tonic reads ``<data_dir>/NMNIST``: the archives ``train.zip`` and ``test.zip``, and what is in
            them, ``Train/<digit>/*.bin`` and ``Test/<digit>/*.bin``. It downloads what is missing.
        seq_length: steps T of a recording, about 300 ms.
        fold: which twelfth of the training recordings validates, 0 to 11.

    Returns:
        ``x_train`` and its kin are uint8, 0 or 1, ``[N, T, 2, 34, 34]``.

    Raises:
        DataError: the files are missing, or too few.
        ImportError: tonic is missing.

    Source:
        Orchard et al. 2015, Frontiers in Neuroscience 9.
    """
    try:
        import tonic
    except ImportError as error:
        raise ImportError(f"nmnist needs tonic ({error}): pip install 'snnlib[events]'") from error
    (x, y), (x_test, y_test) = (_binned(tonic, Path(data_dir), train, seq_length) for train in (True, False))
    if len(y) < 2 * FOLDS:
        raise DataError(f"{data_dir}/NMNIST: {len(y)} training recordings are too few to set some aside")
    whole = unsplit(x, y, x_test, y_test, high=1.0)
    train, valid = split(y, FOLDS, fold)
    return whole._replace(x_train=x[train], y_train=y[train], x_valid=x[valid], y_valid=y[valid])


def _binned(tonic: Any, data_dir: Path, train: bool, seq_length: int) -> tuple[Tensor, Tensor]:
    kind = tonic.datasets.NMNIST
    frames = tonic.transforms.ToFrame(sensor_size=kind.sensor_size, n_time_bins=seq_length)
    try:
        made = kind(str(data_dir), train=train, transform=frames)
    except Exception as error:  # no network, no permission, a broken mirror: all one to the user
        missing = kind.train_filename if train else kind.test_filename
        folder = data_dir / "NMNIST"
        raise DataError(f"NMNIST: {missing} and its files are not in {folder}, nor to be downloaded") from error
    width, height, polarities = kind.sensor_size
    x = torch.empty(len(made), seq_length, polarities, height, width, dtype=torch.uint8)
    for index in range(len(made)):
        x[index] = torch.from_numpy(made[index][0] > 0)
    return x, torch.tensor(made.targets, dtype=torch.int64)
