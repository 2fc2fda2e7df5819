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


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=str)
def test_a_shared_norm_of_half_precision_is_computed_in_float32(
    monkeypatch: pytest.MonkeyPatch, weights: torch.dtype
):
    """Under Lightning's bf16-mixed and bf16-true; both processes have the same half, far from 0."""
    x = (20 + torch.randn(300, 3)).bfloat16()
    monkeypatch.setattr(_processes, "place", lambda: (0, 2))
    monkeypatch.setattr(_processes, "summed", lambda part: 2 * part)
    norm, whole = share_batch_norms(nn.BatchNorm1d(3).to(weights)), nn.BatchNorm1d(3)
    out, expected = norm(x), whole(torch.cat([x, x]).float())[:300]
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected.bfloat16())
    torch.testing.assert_close(norm.running_mean, whole.running_mean.to(weights))
    torch.testing.assert_close(norm.running_var, whole.running_var.to(weights), rtol=1e-2, atol=1e-2)
