"""What tests of the engine share."""

import pytest
import torch

from tests.engine.equality import FUSED_BACKENDS


@pytest.fixture
def poisoned_memory():
    """``torch.empty`` is full of NaN, so that nothing unwritten passes for a result."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=FUSED_BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param
