"""Optimisers as the flags name them, and their learning rate over a run."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from snnlib.task import _train


@pytest.mark.parametrize(
    ("name", "kind", "others"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.9}),
        ("adam", torch.optim.Adam, {"betas": (0.9, 0.999)}),
        ("adamw", torch.optim.AdamW, {"betas": (0.9, 0.999)}),
    ],
)
def test_an_optimiser_has_the_rate_and_the_decay_of_the_flags(name: str, kind: type, others: dict):
    net = nn.Linear(2, 3)
    flags = SimpleNamespace(optimizer=name, learning_rate=0.03, weight_decay=0.2)
    optim = _train.optimizer(flags, net)
    assert type(optim) is kind
    (group,) = optim.param_groups
    assert {k: group[k] for k in ("lr", "weight_decay", *others)} == {"lr": 0.03, "weight_decay": 0.2, **others}
    assert list(map(id, group["params"])) == list(map(id, net.parameters()))


def test_the_rate_rises_for_a_tenth_of_the_steps_and_falls_by_half_a_cosine():
    optim = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 2.0)
    rate, found = _train.schedule(optim, 40), []
    for _ in range(41):
        found.append(optim.param_groups[0]["lr"])
        optim.step()
        rate.step()
    assert found[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert found[13] == pytest.approx(1 + 0.5**0.5)  # a quarter of the way down: 1 + cos(pi / 4)
    assert found[22] == pytest.approx(1.0)
    assert found[40] == pytest.approx(0.0)
