"""Batch norms over several processes."""

from typing import Any

import pytest
import torch
from torch import nn

from snnlib.task import _processes
from snnlib.task._processes import share_batch_norms


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4, 5)])
def test_a_shared_norm_is_that_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]):
    # two halves of one batch in one process: what a sum over processes gives is computed beforehand
    x = torch.randn(shape, dtype=torch.float64)
    kind: Any = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    whole = kind(3).double()
    expected = whole(x)

    halves = [x[:2], x[2:]]
    over = [d for d in range(x.dim()) if d != 1]
    totals = iter(())
    monkeypatch.setattr(_processes, "place", lambda: (0, 2))
    monkeypatch.setattr(_processes, "summed", lambda _: next(totals))
    norm = share_batch_norms(kind(3).double())
    n = torch.tensor(float(x.numel() // 3), dtype=torch.float64)
    mean = x.sum(over) / n
    view = [1, 3, *[1] * (x.dim() - 2)]
    for half, out in zip(halves, expected.split([2, 4]), strict=True):
        totals = iter([n, x.sum(over), (x - mean.view(view)).square().sum(over)])
        torch.testing.assert_close(norm(half), out)
    assert norm.num_batches_tracked == 2
    again = kind(3).double()
    again(x)
    again(x)
    torch.testing.assert_close(norm.running_mean, again.running_mean)
    torch.testing.assert_close(norm.running_var, again.running_var)
