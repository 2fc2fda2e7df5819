"""The room for what is packed for spikes alone is large enough."""

import pytest
import torch

from snnlib import lif_feed_forward_step
from snnlib.engine import scan
from snnlib.engine.loops.packed import _plan
from snnlib.engine.sizes import LANES, LONG
from tests.engine.cases import EXACT


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("neurons", [1, 5, 17, 300, 5000])
def test_each_part_of_it(neurons: int, count: int, size: int):
    """In bytes: all events of all steps, those of each step filled up to whole vectors, and one step behind."""
    steps, block = 7, 2048
    plan = _plan(count, steps, neurons, block, size)
    filled = sum(-(-min(block, neurons - k) // LANES) * LANES for k in range(0, neurons, block)) * steps
    assert plan.begin > plan.end
    assert (plan.behind - plan.begin) * 8 >= (count * filled + LONG) * size
    assert (plan.size - plan.behind) * 8 >= count * (min(block, neurons) + LONG) * size + 64


@pytest.mark.parametrize("neurons", [1, 5, 17, 65, 300])
def test_all_neurons_may_spike_in_every_step(neurons: int):
    x = torch.full((200, 1, neurons), 1000.0, requires_grad=True)
    gradients = []
    for backend in ("cpu", "reference"):
        output, _ = scan(lif_feed_forward_step, x, p=EXACT, backend=backend)
        assert output.all()
        gradients += torch.autograd.grad(output.cumsum(0).sum(), x)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)
