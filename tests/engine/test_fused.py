"""The fused backends equal the reference: outputs, states, every gradient; in odd shapes and layouts."""

import pytest
import torch
from torch import Tensor

from snnlib import LIF, LIFParameters, LSNNParameters, lif_feed_forward_step, lsnn_feed_forward_step
from snnlib.engine import fused, scan, source
from snnlib.functional import SURROGATES
from tests.engine.equality import assert_equal, device_of, lif_case, moved, shapes
from tests.neurons import NEURONS, SPIKING, Neuron, draw_input, draw_parameters, draw_state, generator, name_of

pytestmark = pytest.mark.usefixtures("poisoned_memory")

FUSED = [name for name, surrogate in SURROGATES.items() if surrogate.probability is None]
"""Every surrogate but the stochastic one, which runs in the plain loop."""


@shapes(
    cpu=[(17, 3, 5), (1, 2, 7), (30, 1, 1), (9, 2, 3, 4, 5), (5, 3, 1500)],
    gpu=[(17, 3, 5), (1, 2, 7), (3, 2, 3, 4, 11)],
)
@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_every_neuron_with_every_parameter_learned(backend: str, neuron: Neuron, shape: tuple[int, ...]):
    source = generator(len(shape) + shape[0])
    p = draw_parameters(neuron, source, shape[-1:])
    state = draw_state(neuron, source, shape[1:])
    output = assert_equal(backend, neuron, draw_input(neuron, source, shape), state, p)[0]
    if neuron.spikes and shape[0] > 5:
        assert 0 < float(output.detach().mean()) < 1


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_float32_outputs_are_the_same_bits(backend: str, neuron: Neuron):
    """Where a step has an exp its last bit may differ, and a spike at the very threshold with it: none does."""
    source, (steps, batch) = generator(3), (60, 4) if backend == "cpu" else (25, 1)
    p = draw_parameters(neuron, source, dtype=torch.float32)
    p = p._replace(**{k: float(v) for k, v in p._asdict().items() if isinstance(v, Tensor)})
    x = draw_input(neuron, source, (steps, batch, 33), torch.float32).to(device_of(backend))
    state = moved(draw_state(neuron, source, (batch, 33), torch.float32), x.device)
    ours, _ = scan(neuron.step, x, state, p, backend=backend)
    plain, _ = scan(neuron.step, x, state, p, backend="reference")
    if neuron.name == "li":
        torch.testing.assert_close(ours, plain, rtol=0, atol=0)
    flips = int((ours != plain).sum())
    assert flips == 0
    assert_equal(backend, neuron, x, state, p)


@pytest.mark.parametrize(("method", "detach"), [*((name, True) for name in FUSED), ("super", False)])
def test_every_surrogate(backend: str, method: str, detach: bool):
    neuron = next(n for n in SPIKING if n.name == "lif")
    source = generator(5)
    p = draw_parameters(neuron, source, method=method, detach_reset=detach)
    assert_equal(backend, neuron, draw_input(neuron, source, (24, 2, 9)), draw_state(neuron, source, (2, 9)), p)


@pytest.mark.parametrize("where", ["scalar", "per neuron", "per sample"])
def test_parameters_broadcast(backend: str, where: str):
    neuron, x, state = lif_case(backend=backend)
    shape = {"scalar": (), "per neuron": (6,), "per sample": (3, 1)}[where]
    assert_equal(backend, neuron, x, state, draw_parameters(neuron, generator(1), shape))


def test_inputs_of_any_layout(backend: str):
    neuron, x, state = lif_case(backend=backend)
    p = moved(draw_parameters(neuron, generator(1)), x.device)
    wanted, _ = scan(neuron.step, x, state, p, backend="reference")
    for layout in (
        x.transpose(0, 2).contiguous().transpose(0, 2),
        x.repeat(1, 1, 2)[..., :6],
        x.flip(0).flip(0),
    ):
        got, _ = scan(neuron.step, layout, state, p, backend=backend)
        assert torch.equal(got, wanted)


def test_without_gradients_nothing_is_kept(backend: str):
    neuron, x, state = lif_case(backend=backend)
    kept = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value)
        return value

    fused._compiled.cache_clear()  # what is saved while tracing is none of the hooks' business either
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        scan(neuron.step, x, state, backend=backend)
        with torch.no_grad():
            scan(neuron.step, x.requires_grad_(), state, backend=backend)
        assert kept == []
        scan(neuron.step, x, state, backend=backend)
    assert [value.shape for value in kept] == [x.shape]


def test_a_constant_input_is_read_as_one_row(backend: str):
    neuron, x, state = lif_case(backend=backend)
    p = moved(draw_parameters(neuron, generator(1)), x.device)
    still = x[0].clone().requires_grad_()
    gradients = []
    for one in (backend, "reference"):
        output, _ = scan(neuron.step, still.expand(20, 3, 6), state, p, backend=one)
        weight = torch.arange(20.0, device=x.device)[:, None, None]
        gradients.append(torch.autograd.grad((output * weight).sum(), still)[0])
    assert float(output.detach().sum()) > 0
    torch.testing.assert_close(*gradients)


def test_gradients_that_are_not_contiguous_or_missing(backend: str):
    neuron, x, state = lif_case(backend=backend)
    p = LIFParameters(method="arctan")
    results = []
    for name in (backend, "reference"):
        inputs = x.clone().requires_grad_()
        output, last = scan(neuron.step, inputs, state, p, backend=name)
        weight = torch.randn(6, 20, 3, generator=generator(0), dtype=x.dtype).permute(1, 2, 0).to(x.device)
        one = torch.autograd.grad(output, inputs, weight, retain_graph=True)[0]
        two = torch.autograd.grad(output.sum(), inputs, retain_graph=True)[0]
        three = torch.autograd.grad(last.i.sum(), inputs)[0]
        results.append((one, two, three))
    for ours, theirs in zip(*results, strict=True):
        assert float(theirs.abs().sum()) > 0
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (4, 2, 0)], ids=str)
def test_nothing_in_nothing_out(backend: str, shape: tuple[int, ...]):
    x = torch.zeros(shape, requires_grad=True, device=device_of(backend))
    output, state = scan(lif_feed_forward_step, x, backend=backend)
    assert output.shape == shape
    assert state.v.shape == shape[1:]
    output.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == shape


def test_chunks_equal_the_whole_and_pass_gradients(backend: str):
    neuron, x, state = lif_case(backend=backend)
    p = LIFParameters(method="arctan")
    x = x.requires_grad_()
    whole, _ = scan(neuron.step, x, state, p, backend=backend)
    first, middle = scan(neuron.step, x[:7], state, p, backend=backend)
    second, _ = scan(neuron.step, x[7:], middle, p, backend=backend)
    assert torch.equal(torch.cat([first, second]), whole)
    torch.testing.assert_close(
        torch.autograd.grad(second[-1].sum(), x)[0], torch.autograd.grad(whole[-1].sum(), x)[0]
    )


def test_nan_and_infinity_travel_as_in_the_reference(backend: str):
    x = torch.randn(12, 2, 6, generator=generator(0))
    x[4, 0, 0], x[5, 1, 2], x[6, 0, 3], x[7, 1, 4] = float("nan"), float("inf"), -float("inf"), 1e30
    x = x.to(device_of(backend))
    for step, p in ((lif_feed_forward_step, LIFParameters()), (lsnn_feed_forward_step, LSNNParameters())):
        ours, plain = (scan(step, x, None, p, backend=one) for one in (backend, "reference"))
        torch.testing.assert_close(ours, plain, rtol=0, atol=0, equal_nan=True)


def test_half_precision_input_is_integrated_in_float32(backend: str):
    x = torch.randn(30, 2, 5, generator=generator(0)).bfloat16().to(device_of(backend)) * 3
    ours, state = scan(lif_feed_forward_step, x, backend=backend)
    plain, _ = scan(lif_feed_forward_step, x, backend="reference")
    assert ours.dtype == torch.bfloat16
    assert state.v.dtype == torch.float32
    assert torch.equal(ours, plain)


@shapes(cpu=[(6, 3, 4, 5, 7), (1, 2, 3, 2, 2)], gpu=[(3, 2, 3, 2, 5)])
def test_channels_last_stays_so_with_the_same_numbers(backend: str, shape: tuple[int, ...]):
    """Maps whose channels lie side by side are neither copied nor turned; learned parameters follow them."""
    neuron, source = next(n for n in NEURONS if n.name == "lsnn"), generator(3)
    p = draw_parameters(neuron, source, (shape[2], 1, 1))
    state, x = draw_state(neuron, source, shape[1:]), draw_input(neuron, source, shape)
    turned = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2])
    plain = assert_equal(backend, neuron, x, state, p)
    ours = assert_equal(backend, neuron, turned, state, p)
    for one, other in zip(plain, ours, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert ours[0].movedim(2, -1).is_contiguous()
    assert not ours[0].is_contiguous()
    repeated = [moved(v[:1].expand(shape), device_of(backend)) for v in (x, turned)]
    assert torch.equal(*(scan(neuron.step, v, backend=backend)[0] for v in repeated))


def test_the_source_of_a_layer_is_that_of_its_step():
    p = LIFParameters(tau_mem_inv=50.0, method="adjoint")
    assert source(LIF) == source(LIF()) == source(lif_feed_forward_step)
    assert source(LIF(p)) == source(LIF, p) == source(lif_feed_forward_step, p) != source(LIF)
