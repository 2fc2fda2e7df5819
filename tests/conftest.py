"""What all tests share."""

import os
from pathlib import Path

# before torch starts its threads: several test processes share a few cores, and so do the processes they start
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def mnist_dir() -> Path:
    """Where the original files of MNIST are, on machines that have them."""
    if not (REAL_DATA / "MNIST" / "raw").is_dir():
        pytest.skip(f"needs the files of MNIST in {REAL_DATA}/MNIST/raw")
    return REAL_DATA
