"""The residual network."""

import pytest
import torch
from torch import nn

from snnlib import LIF, LIFParameters, ResNet, SpikeConv2d
from snnlib.module.resnet import Residual

pytestmark = pytest.mark.usefixtures("seeded")

# one step of these moves the membrane by the whole current
QUICK = LIFParameters(tau_mem_inv=1000.0, tau_syn_inv=1000.0, method="arctan")


def lif() -> LIF:
    return LIF(QUICK)


def small(shape=(3, 16, 16), neuron=lif, **options) -> ResNet:
    return ResNet(shape, 5, neuron, **{"width": 4, "blocks": (1, 2), **options})


@pytest.mark.parametrize("neuron", [lif, nn.ReLU])
@pytest.mark.parametrize("join", ["current", "spikes"])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 7, 9)], ids=str)
def test_output_is_log_probabilities_and_the_gradient_reaches_every_parameter(shape, join, neuron):
    net = small(shape, neuron, join=join)
    output = net(torch.rand(3, 6, *shape))
    assert output.shape == (6, 5)
    torch.testing.assert_close(output.exp().sum(1), torch.ones(6))
    assert output.std(0).min() > 0, "it must depend on the image"
    nn.functional.nll_loss(output, torch.tensor([0, 1, 2, 3, 4, 0])).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_constant_image_passes_the_first_convolution_once():
    net = small().eval()
    rows = []
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(net(x.expand(4, *x.shape)), net(x.repeat(4, 1, 1, 1, 1)))
    assert rows == [2, 8]


def test_depth_width_and_strides():
    """The stage and block numbers say how many convolutions of which shape there are."""
    net = ResNet((3, 32, 32), 10, lif, width=8)
    shapes = [tuple(m.weight.shape) for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert shapes[0] == (8, 3, 3, 3)
    assert len([s for s in shapes if s[2] == 3]) == 1 + 2 * (3 + 3 + 2)
    assert [s for s in shapes if s[2] == 1] == [(16, 8, 1, 1), (32, 16, 1, 1)]
    sizes = []
    for module in net.modules():
        if isinstance(module, Residual):
            module.register_forward_hook(lambda module, args, output: sizes.append(tuple(output[0].shape[2:])))
    net(torch.rand(1, 2, 3, 32, 32))
    assert sizes == [(8, 32, 32)] * 3 + [(16, 16, 16)] * 3 + [(32, 8, 8)] * 2


def test_norms_are_taken_over_time_and_batch_and_begin_with_the_gain():
    net = small(gain=3.0)
    norms = {name: m for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    weights = {name: {round(w, 4) for w in norm.weight.tolist()} for name, norm in norms.items()}
    assert weights.pop("layers.0.lifted.1") == {3.0}
    ends = {name for name in weights if "shortcut" in name or "path.2" in name}
    assert len(ends) == 4
    for name, values in weights.items():
        assert values == ({round(3 / 2**0.5, 4)} if name in ends else {3.0}), name
    block = Residual(2, 2, 1, lif)
    seen = []
    block.path[0].register_forward_hook(lambda module, args, output: seen.append(output))
    block(torch.rand(4, 3, 2, 6, 6) * torch.arange(1.0, 5.0).view(4, 1, 1, 1, 1))
    torch.testing.assert_close(seen[0].mean((0, 1, 3, 4)), torch.zeros(2), atol=1e-5, rtol=0)
    assert seen[0].mean((1, 3, 4)).abs().max() > 0.01, "no step alone has a mean of zero"


def test_a_gain_of_one_threshold_a_step_lets_every_layer_spike():
    rates = []
    net = ResNet((3, 16, 16), 10, lif, width=8, gain=1.0)
    for module in net.modules():
        if isinstance(module, LIF):
            module.register_forward_hook(lambda module, args, output: rates.append(output[0].mean().item()))
    net(torch.rand(4, 4, 3, 16, 16))
    assert len(rates) == 17
    assert all(0.05 < rate < 0.5 for rate in rates), rates


def test_a_block_adds_what_comes_in_to_its_own_current():
    """With a second norm of zero the neurons at the end see the input alone."""
    block = Residual(3, 3, 1, lif)
    nn.init.zeros_(block.path[2].lifted[1].weight)
    x = 2.0 * torch.rand(5, 2, 3, 4, 4)
    torch.testing.assert_close(block(x)[0], lif()(x)[0])


def test_spikes_are_added_to_spikes():
    """A block whose inner neurons are silent is the identity; others give whole numbers up to 2."""
    block = Residual(3, 3, 1, lif, join="spikes")
    x = (torch.rand(5, 2, 3, 4, 4) < 0.3).float()
    output, _ = block(x)
    assert set(output.unique().tolist()) == {0.0, 1.0, 2.0}
    nn.init.zeros_(block.path[2].lifted[1].weight)
    assert torch.equal(block(x)[0], x)
    assert sum(isinstance(m, LIF) for m in Residual(3, 6, 2, lif, join="spikes").modules()) == 3


@pytest.mark.parametrize("size", [8, 7])
def test_the_way_around_is_a_convolution_with_stride(size: int):
    """Pixels are picked first, see the source; with a stride the output and gradients are the same."""
    picked, convolution, _ = Residual(3, 6, 2, lif).double().shortcut[0].lifted
    weight = convolution.weight.detach().clone().requires_grad_()
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    output, expected = convolution(picked(x)), nn.functional.conv2d(x, weight, stride=2)
    torch.testing.assert_close(output, expected)
    for value in (output, expected):
        value.square().sum().backward()
    torch.testing.assert_close(convolution.weight.grad, weight.grad)


def test_with_a_stride_alone_too_the_way_around_is_a_convolution():
    block = Residual(3, 3, 2, lif)
    assert len(block.shortcut) == 1
    assert block(torch.rand(2, 1, 3, 8, 8))[0].shape == (2, 1, 3, 4, 4)


def test_another_join_is_refused():
    with pytest.raises(ValueError, match=r"join must be one of .* got 'voltage'"):
        Residual(3, 3, 1, lif, join="voltage")


@pytest.mark.parametrize("join", ["current", "spikes"])
def test_its_state_goes_on(join: str):
    """Two halves of a sequence are the whole; in evaluation, where norms do not look at the batch."""
    slow = LIFParameters(tau_mem_inv=300.0, tau_syn_inv=300.0)
    block = Residual(3, 6, 2, lambda: LIF(slow), gain=4.0, join=join).eval()
    x = torch.randn(6, 2, 3, 8, 8)
    whole, _ = block(x)
    first, state = block(x[:3])
    second, _ = block(x[3:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    alone, _ = block(x[3:])
    assert not torch.equal(alone, second)


def test_output_is_the_mean_over_time():
    net = small().eval()
    x = torch.rand(4, 2, 3, 16, 16)
    voltage, _ = net.layers(x)
    assert voltage.shape == (4, 2, 5)
    torch.testing.assert_close(net(x), voltage.mean(0).log_softmax(-1))


def test_dropout_is_before_the_readout():
    net = small(neuron=nn.ReLU, dropout=0.5)
    x = torch.rand(1, 4, 3, 16, 16)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_the_reference_has_torchs_convolutions(backend):
    net = small(backend=backend)
    assert {module.backend for module in net.modules() if isinstance(module, SpikeConv2d)} == {backend}
