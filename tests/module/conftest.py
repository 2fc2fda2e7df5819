"""What tests of modules share."""

import pytest
import torch


@pytest.fixture
def seeded():
    """Modules draw their weights from the global generator."""
    torch.manual_seed(0)
