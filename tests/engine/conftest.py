"""What tests of the engine share."""

import pytest
import torch


@pytest.fixture
def poisoned_memory():
    """``torch.empty`` is full of NaN, so that nothing unwritten passes for a result."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
