"""The convolutional network of the image tasks."""

import pytest
import torch
from torch import nn

from snnlib import LIF, ConvNet, LIFParameters, LIParameters, SpikeConv2d

pytestmark = pytest.mark.usefixtures("seeded")

SHAPES = [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 5, 7)]
# spikes at every layer of a network that has not learned yet
EASY = LIFParameters(v_th=0.1)


def small(shape, classes=5, **options):
    return ConvNet(shape, classes, **{"channels": (4, 6), "hidden_size": 16, "p": EASY, **options})


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_is_log_probabilities(shape):
    """``[B, classes]``, and their exponentials add up to one."""
    output = small(shape)(torch.rand(4, 3, *shape))
    assert output.shape == (3, 5)
    assert (output <= 0).all()
    torch.testing.assert_close(output.exp().sum(1), torch.ones(3))
    assert output.std(0).min() > 0, "it must depend on the image"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_reaches_every_parameter(shape):
    net = small(shape)
    output = net(torch.rand(4, 6, *shape))
    torch.nn.functional.nll_loss(output, torch.tensor([0, 1, 2, 3, 4, 0])).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_every_layer_spikes_and_dropout_is_before_the_readout():
    """The hidden layers carry something, or the tests above would say little."""
    net = small((1, 8, 8))
    rates = []
    for module in net.modules():
        if isinstance(module, LIF):
            module.register_forward_hook(lambda module, args, output: rates.append(output[0].mean().item()))
    net(torch.rand(6, 8, 1, 8, 8))
    assert len(rates) == 3
    assert all(0.01 < rate < 0.9 for rate in rates), rates


def test_output_is_the_maximum_over_time_of_the_readout():
    net = small((1, 8, 8)).eval()
    x = torch.rand(6, 3, 1, 8, 8)
    voltage, _ = net.layers(x)
    assert voltage.shape == (6, 3, 5)
    highest = torch.stack([voltage[:, b].max(0).values for b in range(3)])
    torch.testing.assert_close(net(x), torch.log(torch.softmax(highest, 1)))


@pytest.mark.parametrize(
    ("shape", "pools"),
    [
        *(((1, 8, 8), 1), ((3, 32, 32), 2), ((1, 28, 28), 2)),
        *(((2, 5, 7), 0), ((1, 7, 64), 0), ((1, 64, 7), 0)),
    ],
)
def test_small_maps_are_not_pooled(shape, pools):
    """Pooling stops where a side is below 8 pixels."""
    *convolutions, _ = (module for module in small(shape).modules() if isinstance(module, SpikeConv2d))
    assert [module.pool for module in convolutions] == [2] * pools + [1] * (2 - pools)


def test_options_reach_their_modules():
    readout = LIParameters(tau_mem_inv=70.0)
    net = ConvNet(
        (2, 9, 8),
        7,
        channels=(3,),
        hidden_size=11,
        p=EASY,
        readout=readout,
        dt=0.002,
        kernel_size=5,
        dropout=0.4,
    )
    kinds = {type(module).__name__: module for module in net.modules()}
    weights = [module.weight.shape for module in net.modules() if isinstance(module, SpikeConv2d)]
    assert weights == [(3, 2, 5, 5), (11, 3, 4, 4)]
    assert kinds["BatchNorm1d"].num_features == 11
    assert kinds["Dropout"].p == 0.4
    assert kinds["LI"].p == readout
    assert {module.dt for module in net.modules() if hasattr(module, "dt")} == {0.002}
    assert {module.p for module in net.modules() if isinstance(module, LIF)} == {EASY}
    assert net(torch.rand(3, 2, 2, 9, 8)).shape == (2, 7)


def test_a_constant_image_is_convolved_once():
    """An image that is repeated without a copy passes the first convolution once, with the same result."""
    net = small((1, 8, 8)).eval()
    rows = []
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(net(x.expand(6, 3, 1, 8, 8)), net(x.repeat(6, 1, 1, 1, 1)))
    assert rows == [3, 18]


def test_it_learns_two_images():
    """A few steps of descent tell two images apart."""
    net = small((1, 8, 8), classes=2)
    x = torch.rand(2, 1, 8, 8).repeat(8, 1, 1, 1).expand(5, 16, 1, 8, 8)
    y = torch.tensor([0, 1]).repeat(8)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        loss = nn.functional.nll_loss(net(x), y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_other_neurons_take_the_place_of_all_spiking_ones():
    net = small((3, 16, 16), neuron=nn.ReLU, gain=1.5)
    assert not any(isinstance(module, LIF) for module in net.modules())
    assert sum(isinstance(module, nn.ReLU) for module in net.modules()) == 3
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert {w for norm in norms for w in norm.weight.tolist()} == {1.5}
    assert net(torch.rand(1, 4, 3, 16, 16)).shape == (4, 5)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel_size must be odd, got kernel_size=4"):
        small((1, 9, 9), kernel_size=4)


@pytest.mark.parametrize("backend", ["auto", "reference", "cpu"])
def test_the_reference_has_torchs_convolutions(backend):
    net = small((1, 8, 8), backend=backend)
    chosen = {module.backend for module in net.modules() if isinstance(module, SpikeConv2d)}
    assert chosen == {"reference" if backend == "reference" else "auto"}
