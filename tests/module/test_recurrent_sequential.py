"""Chains that hear their own outputs of the step before."""

import pytest
import torch
from torch import nn

from snnlib import LIF, LICell, LIFCell, Lift, RecurrentSequential
from tests.module.chains import B, T, easy

pytestmark = pytest.mark.usefixtures("seeded")


def test_a_chain_hears_its_last_output():
    first, cell = nn.Linear(3, 3), LIFCell(easy())
    net = RecurrentSequential(first, cell)
    x = 2 * torch.rand(T, B, 3)
    output, last = Lift(net)(x)
    before, state, expected = torch.zeros(B, 3), None, []
    for step in x:
        before, state = cell(first(step + before), state)
        expected.append(before)
    assert torch.equal(output, torch.stack(expected))
    assert torch.equal(last.cache, before)
    assert 0 < output.sum() < output.numel()


def test_a_chain_hears_the_sum_of_several_outputs():
    cell = LICell()
    net = RecurrentSequential(cell, nn.Linear(3, 3), output_modules=[0, 1])
    x = torch.rand(B, 3)
    (a, b), state = net(x)
    (c, _), _ = net(x, state)
    expected, _ = cell(x + a + b, cell(x)[1])
    assert torch.equal(c, expected)


def test_a_chain_of_layers_hears_nothing():
    with pytest.raises(ValueError, match="single steps, LIFCell in the place of LIF say"):
        RecurrentSequential(LIF())
