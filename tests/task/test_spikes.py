"""The layers of a net, looked at while it runs."""

import pytest
import torch
from torch import nn

from snnlib import LI, LIF, SequentialState
from snnlib.task._spikes import with_spikes


@pytest.mark.parametrize("training", [True, False])
def test_the_spikes_are_those_of_the_layers(training: bool):
    first, second = LIF(), LIF()
    net = SequentialState(first, nn.Dropout(0.9), second, LI()).train(training)
    x = 9.0 * torch.rand(20, 3, 5)
    (output, _), spikes = with_spikes(net, x)
    expected, _ = first(x)
    assert expected.any()
    assert torch.equal(spikes[0], expected)
    assert torch.equal(spikes[1], second(expected)[0])
    assert len(spikes) == 2  # the readout does not spike
    assert torch.equal(output, net.eval()(x)[0])
    assert not output.requires_grad


def test_the_net_is_left_as_it_was():
    net = SequentialState(nn.Linear(5, 4), LIF(), nn.Dropout(0.9)).train()
    _, counts = with_spikes(net, torch.rand(6, 3, 5), lambda spikes: spikes.sum())
    assert [count.shape for count in counts] == [torch.Size()]
    assert all(module.training for module in net.modules())
    net(torch.rand(6, 3, 5))
    assert len(counts) == 1


def test_the_net_is_left_as_it_was_after_an_error_too():
    net = SequentialState(nn.Linear(5, 4), LIF()).train()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        with_spikes(net, torch.rand(6, 3, 9))
    assert all(module.training for module in net.modules())
    assert not net[1]._forward_hooks
