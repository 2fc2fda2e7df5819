"""Spikes in the last bits of what the adjoint keeps on a GPU: who has them, and what they cost in digits."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from snnlib import LIFParameters, lif_feed_forward_step
from snnlib.engine import scan
from snnlib.engine.later import later_step
from snnlib.engine.program import Traced
from snnlib.engine.program.last_bit import with_last_bit
from snnlib.engine.trace import Keep, trace
from snnlib.functional import spike
from snnlib.functional.threshold import reset
from tests.engine.cases import Exact, Membrane
from tests.engine.equality import device_of, moved, needs_triton
from tests.neurons import SPIKING, Neuron, draw_input, draw_state, generator, name_of

BY_NAME = {neuron.name: neuron for neuron in SPIKING}


def traced(step: Any, p: Any, keep: Keep = "last_bit") -> Traced:
    return trace(later_step(step), p, (), (), 0.001, torch.float32, keep)


@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_no_neuron_reads_its_output_again(neuron: Neuron):
    found = traced(neuron.step, neuron.parameters(method="adjoint"))
    assert not found.uses_output
    marked = any(line.operator == "with_last_bit" for line in found.forward.lines)
    # of one the spikes are among other bits, of the other they follow from the numbers
    assert marked == (neuron.name not in ("lif_refrac", "lif_ex"))


def test_what_is_more_than_0_and_1_has_no_room():
    plain = traced(lif_feed_forward_step, LIFParameters(method="adjoint"), "steps")
    assert plain.uses_output
    assert with_last_bit(plain).saved == ("with_z",)
    state = plain.forward.outputs[1]
    other = plain.forward._replace(outputs=(state, *plain.forward.outputs[1:]))
    more = plain._replace(forward=other)
    assert with_last_bit(more) is more


@needs_triton
@pytest.mark.parametrize("name", ["lif", "lif_box", "iaf", "lsnn", "lif_ex", "lif_adex"])
def test_gradients_in_float32_are_as_near_to_float64_as_those_of_the_plain_loop(name: str):
    neuron, source = BY_NAME[name], generator(2)
    x, state = draw_input(neuron, source, (40, 1, 2000)), draw_state(neuron, source, (1, 2000))
    weight = torch.randn(x.shape, generator=source, dtype=x.dtype)

    def gradient(backend: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        leaf, start, to = (moved(v, device_of("gpu")) for v in (x, state, weight))
        leaf = leaf.float().to(dtype).requires_grad_()  # all start from the same numbers
        start = type(start)(*(v.float().to(dtype) for v in start))
        z, _ = scan(neuron.step, leaf, start, neuron.parameters(method="adjoint"), backend=backend)
        (found,) = torch.autograd.grad((z * to.to(dtype)).sum(), leaf)
        return z.detach().double(), found.double()

    spikes, exact = gradient("reference", torch.float64)
    plain, fused = (gradient(backend, torch.float32) for backend in ("reference", "gpu"))
    same = (spikes == plain[0]).all(0)
    assert same.float().mean() > 0.99
    assert torch.equal(plain[0], fused[0])
    lost, lost_plain = ((found - exact)[:, same].norm() for found in (fused[1], plain[1]))
    assert 0 < float(lost) <= 1.5 * float(lost_plain)


def relu_step(input: Tensor, state: Membrane, p: Exact = Exact(), dt: float = 0.001):
    v = state.v + 100 * dt * (input.relu() + 2.0)
    z = spike(v - 1.0, p.method, p.alpha)
    return z, Membrane(reset(v, z, 0.0))


def from_a_tenth_step(input: Tensor, state: Membrane, p: Exact = Exact(), dt: float = 0.001):
    v = state.v + torch.where(input >= 0.1, 2 * input, input)
    z = spike(v - 1.0, p.method, p.alpha)
    return z, Membrane(reset(v, z, 0.0))


@needs_triton
@pytest.mark.parametrize(("step", "high"), [(relu_step, 1.0), (from_a_tenth_step, 0.1)])
def test_an_input_on_the_edge_of_a_condition_stays_there(step: Any, high: float):
    """What is compared again on the way back keeps all its bits."""
    x = high * (torch.rand(40, 2, 20, generator=generator(0)) < 0.5).float().to(device_of("gpu"))
    weight = torch.randn(40, 2, 20, generator=generator(1)).to(x)
    found = {}
    for backend in ("reference", "gpu"):
        leaf = x.clone().requires_grad_()
        z, _ = scan(step, leaf, backend=backend)
        (found[backend],) = torch.autograd.grad((z * weight).sum(), leaf)
        assert z.any()
    torch.testing.assert_close(found["gpu"], found["reference"], rtol=1e-4, atol=1e-5)


class Driven(NamedTuple):
    v: Tensor
    i: Tensor


def kinked_step(input: Tensor, state: Driven, p: Exact = Exact(), dt: float = 0.001):
    """Of its spikes a condition is read from the membrane before, and of other steps nothing."""
    i = state.i + input
    v = state.v + 100 * dt * (i - state.v + 0.5 * (state.v > 0.2).to(i))
    z = spike(v - 1.0, p.method, p.alpha)
    return z, Driven(reset(v, z, 0.25), i - 200 * dt * i)


@needs_triton
@pytest.mark.usefixtures("poisoned_memory")
def test_nothing_spiked_before_the_first_step(monkeypatch: pytest.MonkeyPatch):
    """Where the output is read of the step before, too, what lies before it in memory is not looked at."""
    from snnlib.engine import gpu

    inner = gpu.outputs

    def among_ones(*arguments: Any) -> Any:
        *given, new = arguments
        return inner(*given, lambda size, dtype: new([size[0] + 2, *size[1:]], dtype).fill_(1)[1:-1])

    monkeypatch.setattr(gpu, "outputs", among_ones)
    found = traced(kinked_step, Exact(), "retraced")
    assert (found.uses_output, found.slot) == (True, 0)
    x = 9 * torch.rand(11, 2, 20, generator=generator(0)).to(device_of("gpu"))
    start = Driven(torch.full((2, 20), 0.9).to(x), torch.full((2, 20), 3.0).to(x))
    weight = torch.randn(11, 2, 20, generator=generator(1)).to(x)
    gradients = []
    for backend in ("gpu", "reference"):
        leaf = x.clone().requires_grad_()
        z, _ = scan(kinked_step, leaf, start, backend=backend)
        gradients += torch.autograd.grad((z * weight).sum(), leaf)
        assert z[0].any()
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
