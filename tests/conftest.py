"""What all tests share."""

import os
from pathlib import Path

# before torch starts its threads: several test processes share a few cores, and so do the processes they start
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

if torch.cuda.is_available():
    # matrix products in an order that does not change, where a test asks for it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
else:
    # Triton looks at it when it is imported: its kernels are interpreted, on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")

torch.set_num_threads(1)

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stops", type=int, default=1, help="how often each task is stopped in each way")
    parser.addoption("--flag_draws", type=int, default=12, help="how many flags of each task are tried")


@pytest.fixture
def mnist_dir() -> Path:
    """Where the original files of MNIST are, on machines that have them."""
    if not (REAL_DATA / "MNIST" / "raw").is_dir():
        pytest.skip(f"needs the files of MNIST in {REAL_DATA}/MNIST/raw")
    return REAL_DATA
