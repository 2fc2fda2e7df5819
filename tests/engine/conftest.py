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


@pytest.fixture
def fresh_compiler():
    """torch.compile has seen nothing yet: it compiles one function for eight kinds of arguments at most."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
