"""SpikeConv2d and SpikeLinear: torch's layers, for spikes."""

import copy

import pytest
import torch
from torch import nn

from snnlib import LIF, LConv2d, LIFParameters, SequentialState, SpikeConv2d, SpikeLinear

PAIRS = [
    pytest.param(SpikeConv2d, nn.Conv2d, (3, 40, 3), {"padding": 1}, (4, 3, 7, 7), id="conv"),
    pytest.param(SpikeConv2d, nn.Conv2d, (3, 40, (3, 1)), {"bias": False}, (4, 3, 7, 7), id="no bias"),
    pytest.param(SpikeConv2d, nn.Conv2d, (4, 40, 3), {"groups": 2, "stride": 2}, (4, 4, 7, 7), id="groups"),
    pytest.param(
        SpikeConv2d, nn.Conv2d, (3, 40, 3, 1, 1), {"padding_mode": "circular"}, (4, 3, 7, 7), id="circular"
    ),
    pytest.param(SpikeConv2d, nn.Conv2d, (3, 40, 3, 1, "same"), {}, (4, 3, 7, 7), id="same"),
    pytest.param(SpikeConv2d, nn.Conv2d, (3, 40, 3), {}, (3, 7, 7), id="one image"),
    pytest.param(SpikeConv2d, nn.Conv2d, (3, 40, (7, 6)), {}, (4, 3, 7, 6), id="the whole map"),
    pytest.param(SpikeLinear, nn.Linear, (9, 33), {}, (5, 2, 9), id="linear"),
    pytest.param(SpikeLinear, nn.Linear, (9, 33), {"bias": False}, (9,), id="one row"),
]


@pytest.mark.parametrize("backend", ["auto", "reference", "cpu"])
@pytest.mark.parametrize(("ours", "theirs", "sizes", "options", "shape"), PAIRS)
def test_they_are_torchs_layers(ours, theirs, sizes, options, shape, backend: str):
    torch.manual_seed(0)
    layer, plain = ours(*sizes, **options, backend=backend), theirs(*sizes, **options)
    plain.load_state_dict(layer.state_dict())
    x = (torch.rand(shape) < 0.2).float().requires_grad_()
    outputs = [module(x) for module in (layer, plain)]
    torch.testing.assert_close(*outputs)
    gradients = [
        torch.autograd.grad(o.pow(2).sum(), [x, *m.parameters()])
        for o, m in zip(outputs, (layer, plain), strict=True)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["auto", "reference", "cpu"])
@pytest.mark.parametrize("options", [{"padding": 1}, {"padding_mode": "circular", "padding": 1}, {"stride": 2}])
def test_pooling_is_that_of_torchs_layer(options, backend: str):
    torch.manual_seed(0)
    layer = SpikeConv2d(3, 40, 3, **options, backend=backend, pool=2)
    plain = nn.Sequential(nn.Conv2d(3, 40, 3, **options), nn.MaxPool2d(2))
    plain[0].load_state_dict(layer.state_dict())
    x = (torch.rand(4, 3, 9, 8) < 0.2).float()
    torch.testing.assert_close(layer(x), plain(x))
    assert repr(layer).endswith("pool=2)")


@pytest.mark.parametrize("pool", [0, -1, 1.5, True])
def test_a_window_has_a_pixel(pool: int):
    with pytest.raises(ValueError, match=f"pool must be an integer of at least 1, got pool={pool}"):
        SpikeConv2d(1, 2, 3, pool=pool)


@pytest.mark.parametrize(
    "made", [lambda b: SpikeConv2d(1, 2, 3, backend=b), lambda b: SpikeLinear(1, 2, backend=b)]
)
def test_another_backend_is_refused(made):
    with pytest.raises(ValueError, match=r"backend must be one of .*, got 'gpu'"):
        made("gpu")


@pytest.mark.parametrize("backend", ["auto", "reference", "cpu"])
def test_the_backend_is_the_one_that_was_given(backend: str, monkeypatch: pytest.MonkeyPatch):
    seen = []
    for name, place in (("conv2d", 7), ("linear", 3)):
        monkeypatch.setattr(f"snnlib.module.sparse.{name}", lambda *args, at=place: seen.append(args[at]))
    SpikeConv2d(1, 2, 3, backend=backend)(torch.zeros(1, 1, 3, 3))
    SpikeLinear(1, 2, backend=backend)(torch.zeros(1))
    assert seen == [backend, backend]


def test_a_net_of_them_learns_what_a_net_of_torchs_learns():
    """Spikes are equal, and so are gradients but for rounding."""
    torch.manual_seed(0)
    p = LIFParameters(v_th=0.1)
    net = SequentialState(
        *(SpikeConv2d(2, 32, 3, padding=1, backend="cpu"), LIF(p)),
        *(SpikeConv2d(32, 33, 3, backend="cpu"), LIF(p)),
        *(nn.Flatten(), SpikeLinear(33 * 16, 40, backend="cpu"), LIF(p)),
    )
    plain = copy.deepcopy(net)
    for module in plain:
        if isinstance(module, SpikeConv2d | SpikeLinear):
            module.backend = "reference"
    x = (torch.rand(7, 3, 2, 6, 6) < 0.3).float()
    outputs = [module(x)[0] for module in (net, plain)]
    assert torch.equal(*outputs)
    assert outputs[0].any()
    for output in outputs:
        (output * torch.arange(40)).sum().backward()
    for (name, one), other in zip(net.named_parameters(), plain.parameters(), strict=True):
        assert one.grad.any(), name
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-3, msg=name)


def test_a_convolution_over_a_sequence_is_one_of_spikes():
    assert isinstance(LConv2d(2, 3, 3).lifted, SpikeConv2d)
