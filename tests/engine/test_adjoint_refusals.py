"""What the adjoint refuses: single steps, steps that it cannot read, torch.func, second gradients."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from snnlib import (
    LIF,
    Layer,
    LIFCell,
    LIFRecurrentCell,
    LSNNParameters,
    SequentialState,
    gate,
    lif_feed_forward_step,
    lsnn_feed_forward_step,
    reset,
    spike,
    spike_slopes,
)
from snnlib.engine import scan
from snnlib.functional import LIFBoxFeedForwardState, LIFBoxParameters
from tests.engine.cases import EXACT, Exact, Membrane
from tests.neurons import generator


@pytest.mark.parametrize("cell", [LIFCell(EXACT), LIFRecurrentCell(2, 2, EXACT)], ids=["cell", "recurrent"])
def test_a_cell_says_that_it_needs_the_sequence(cell: torch.nn.Module):
    with pytest.raises(RuntimeError, match="needs the whole sequence"):
        cell(torch.ones(1, 2, requires_grad=True))
    with torch.no_grad():
        cell(torch.ones(1, 2, requires_grad=True))


def decaying_step(input: Tensor, state: Membrane, p: Exact = Exact(), dt: float = 0.001):
    v = 0.9 * state.v + input
    z = spike(v - 1, p.method, p.alpha)
    return z, Membrane(reset(v, z, 0.0))


def deaf_step(input: Tensor, state: Membrane, p: Exact = Exact(), dt: float = 0.001):
    v = state.v + input
    return (v > 1).to(v.dtype), Membrane(v)


def double_step(input: Tensor, state: Membrane, p: Exact = Exact(), dt: float = 0.001):
    v = state.v + input
    return spike(v - 1, p.method, p.alpha) + spike(v - 2, p.method, p.alpha), Membrane(v)


def louder_step(input: Tensor, state: Membrane, p: Exact = Exact(), dt: float = 0.001):
    z = spike(state.v - 1.0, p.method, p.alpha)
    return 2.0 * z, Membrane(state.v - z)


def voltage_step(input: Tensor, state: Membrane, p: Exact = Exact(), dt: float = 0.001):
    v = state.v * (1.0 - spike(state.v - 1.0, p.method, p.alpha))
    return v, Membrane(v)


class Traced(NamedTuple):
    v: Tensor
    b: Tensor


def recording_step(input: Tensor, state: Traced, p: Exact = Exact(), dt: float = 0.001):
    v = state.v + dt * (input - state.v)
    z = spike(v - 1, p.method, p.alpha)
    return z, Traced(reset(v, z, 0.0), state.b + z * input)


def listening_step(input: Tensor, state: Membrane, p: Exact = Exact(), dt: float = 0.001):
    v = state.v + dt * (input - state.v)
    z = spike(v - 1 - 0.1 * input.relu(), p.method, p.alpha)
    return z, Membrane(reset(v, z, 0.0))


def behind_step(input: Tensor, state: Membrane, p: Exact = Exact(), dt: float = 0.001):
    """A charge arrives at once, and is not in what is compared."""
    z = spike(state.v - 1, p.method, p.alpha)
    return z, Membrane(reset(state.v, z, 0.0) + input)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (decaying_step, "changes v; write a decay as 1 - dt"),
        (deaf_step, "deaf_step does not"),
        (double_step, "one threshold"),
        (louder_step, r"returns 2 with a spike and 0 without"),
        (voltage_step, r"returns 0 with a spike and 0.5 without"),
        (recording_step, "recording_step what a spike does to b reads the input too"),
        (listening_step, "listening_step its threshold reads the input too"),
        (behind_step, "let it read the state after it"),
    ],
)
def test_a_step_that_it_cannot_read_is_refused(step, says: str):
    with pytest.raises(ValueError, match=says):
        scan(step, torch.ones(3, 1, 1, requires_grad=True), None, Exact())


def subtracting_step(input: Tensor, state: Traced, p: Exact = Exact(), dt: float = 0.001):
    v = math.exp(-50 * dt) * state.v + (1 - math.exp(-50 * dt)) * input
    b = state.b - 10 * dt * state.b
    z = spike(v.abs() - 0.1 - b, p.method, p.alpha)
    return z, Traced(v - z * v.sign(), 1.2 * b * z + b * (1 - z) + 0.1 * z)


def waiting_step(input: Tensor, state: Traced, p: Exact = Exact(), dt: float = 0.001):
    free = gate(0.5 * dt - state.b, dt, p.method)
    v = state.v + free * dt * 100 * (input - state.v)
    z = free * spike(v - 0.1, p.method, p.alpha)
    return z, Traced(torch.where(z > 0, 0.1 * v, v), (state.b - dt).relu() * (1 - z) + 0.004 * z)


def early_step(input: Tensor, state: Traced, p: Exact = Exact(), dt: float = 0.001):
    z = spike(state.v - 0.1 - state.b, p.method, p.alpha)
    v = state.v * (1 - z)
    return z, Traced(v + dt * 100 * (input - v), state.b - 10 * dt * state.b + z * state.v)


def choosy_step(input: Tensor, state: Membrane, p: Exact = Exact(), dt: float = 0.001):
    if bool((state.v > 0.9).any()):
        raise RuntimeError("this far it never comes")
    v = state.v + dt * 100 * (input.sqrt() - state.v)
    z = spike(v - 0.1, p.method, p.alpha)
    return z, Membrane(reset(v, z, 0.0))


@pytest.mark.parametrize("step", [subtracting_step, waiting_step, early_step, choosy_step])
def test_a_step_whose_spikes_read_the_state_is_taken(step):
    """Whatever its reset is; and one that has no values where the adjoint looks."""
    x = torch.rand(20, 2, 3, generator=generator(1), dtype=torch.float64).requires_grad_()
    z, _ = scan(step, x, None, Exact(), backend="reference")
    assert 0 < float(z.detach().mean()) < 1
    (found,) = torch.autograd.grad((z * torch.arange(20.0).view(20, 1, 1)).sum(), x)
    assert found.isfinite().all()
    assert found.any()


def test_a_step_that_writes_to_its_state_is_not_refused_for_that():
    def writing_step(input: Tensor, state: Membrane, p: Exact = Exact(), dt: float = 0.001):
        v = state.v
        v += input
        z = spike(v - 1.0, p.method, p.alpha)
        return z, Membrane(reset(v, z, 0.0))

    z, _ = scan(writing_step, torch.full((4, 1, 1), 0.6), p=Exact(), backend="reference")
    assert z.flatten().tolist() == [0.0, 1.0, 0.0, 1.0]


def test_the_slope_of_a_step_that_spikes_first_is_that_of_its_state():
    x = 1 + torch.rand(20, 2, 3, generator=generator(1), dtype=torch.float64)
    layer = Layer(early_step, Exact())
    spikes, _ = layer(x)
    assert 0 < float(spikes.mean()) < 1
    assert torch.equal(spike_slopes(layer, x) > 0, spikes > 0)


def test_torch_func_is_refused():
    net, x = SequentialState(torch.nn.Linear(4, 8), LIF(EXACT)), torch.ones(3, 3, 4)
    weights = {name: value.detach() for name, value in net.named_parameters()}

    def count(x: Tensor, values: dict[str, Tensor] = weights) -> Tensor:
        return torch.func.functional_call(net, values, (x,))[0].sum()

    says = r"adjoint.* under torch.func or .*; loss.backward\(\) does"
    with pytest.raises(RuntimeError, match=says):
        torch.func.grad(lambda x: scan(lif_feed_forward_step, x, None, EXACT)[0].sum())(x)
    for of, transformed in (((x[None],), torch.func.vmap(count)), ((x, weights), torch.func.grad(count, 1))):
        with pytest.raises(RuntimeError, match=says):
            transformed(*of)


def test_a_gradient_of_the_gradient_is_refused():
    x = torch.full((5, 1, 1), 20.0, requires_grad=True)
    for backend in ("reference", "cpu"):
        z, _ = scan(lsnn_feed_forward_step, x, None, LSNNParameters(method="adjoint"), backend=backend)
        with pytest.raises(RuntimeError, match="has no"):
            torch.autograd.grad(torch.autograd.grad((z * x).sum(), x, create_graph=True)[0].sum(), x)


def test_a_step_is_looked_at_without_a_trace_in_the_graph():
    """Also where its first call is in a chunk that is computed again, and it reads a tensor that learns."""
    gain = torch.nn.Parameter(torch.tensor(1.2))

    def step(input: Tensor, state: LIFBoxFeedForwardState, p: LIFBoxParameters = LIFBoxParameters(), dt=0.001):
        v = state.v + dt * 100 * (gain * input - state.v)
        z = spike(v - 0.5, p.method, p.alpha)
        return z, LIFBoxFeedForwardState(reset(v, z, 0.0))

    x = (3 * torch.rand(9, 2, 3)).requires_grad_()
    p = LIFBoxParameters(method="adjoint")
    scan(step, x, p=p, backend="reference", checkpoint_every=3)[0].sum().backward()
    assert x.grad is not None


def test_an_error_of_the_step_itself_is_not_taken_for_another():
    def step(input: Tensor, state: LIFBoxFeedForwardState, p: LIFBoxParameters = LIFBoxParameters(), dt=0.001):
        raise TypeError("my own")

    with pytest.raises(TypeError, match=r"^my own$"):
        scan(step, torch.rand(3, 2, 2), p=LIFBoxParameters(method="adjoint"))
