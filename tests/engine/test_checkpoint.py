"""Sequences of which only some states are kept: the same numbers, in the memory that was promised."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

from snnlib import (
    LIF,
    LSNN,
    LIFCell,
    LIFParameters,
    LIFRecurrent,
    Lift,
    LSNNParameters,
    SequentialState,
    SpikeLatencyEncoder,
    lif_feed_forward_step,
    lsnn_feed_forward_step,
)
from snnlib.engine import scan
from tests.neurons import generator

T, B, N = 23, 2, 5


def gradients(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, last states, and the gradients of input and parameters."""
    torch.manual_seed(0)
    x = x.clone().requires_grad_()
    layer.zero_grad()
    output, state = layer(x)
    states = [value for value in tree_leaves(state) if isinstance(value, Tensor)]
    weights = [torch.randn(v.shape, generator=generator(3)) for v in (output, *states)]
    sum((v * w).sum() for v, w in zip((output, *states), weights, strict=True)).backward()
    assert float(output.detach().sum()) > 0
    return [output, *states, x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("every", [1, 4, T - 1, T, T + 9])
@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("kind", ["layer", "recurrent", "chain"])
@pytest.mark.parametrize("method", ["arctan", "adjoint"])
def test_equal_to_the_whole(method: str, kind: str, backend: str, every: int):
    def make(**options: Any) -> nn.Module:
        torch.manual_seed(1)
        p = LSNNParameters(method=method, tau_mem_inv=nn.Parameter(torch.full((N,), 120.0)))
        if kind == "layer":
            return LSNN(p, backend=backend, **options)
        if kind == "recurrent":
            return LIFRecurrent(N, N, LIFParameters(method=method), backend=backend, **options)
        layers = [
            nn.Linear(N, 9),
            LIF(LIFParameters(method=method), backend=backend),
            nn.Dropout(0.0),
            nn.Linear(9, N),
            LSNN(p, backend=backend),
        ]
        return SequentialState(*layers, **options)

    x = 3 * torch.rand(T, B, N, generator=generator(0))
    whole, parts = gradients(make(), x), gradients(make(checkpoint_every=every), x)
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"chunk_size": 1}, {"chunk_size": 4}, {"chunk_size": 2, "checkpoint_every": 7}]
)
@pytest.mark.parametrize("method", ["arctan", "adjoint"])
def test_a_chain_a_few_steps_at_a_time(method: str, options: dict[str, int]):
    def made(**options: int) -> SequentialState:
        torch.manual_seed(1)
        neurons = LIF(LIFParameters(method=method)), LIFRecurrent(7, N, LIFParameters(method=method))
        return SequentialState(nn.Linear(N, 7), neurons[0], neurons[1], **options)

    x = 3 * torch.rand(T, B, N, generator=generator(0))
    seen: list[int] = []
    net = made(**options)
    net[1].register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    whole, parts = gradients(made(), x), gradients(net, x)
    assert max(seen) == options["chunk_size"]
    assert sum(seen) == (2 if "checkpoint_every" in options else 1) * T
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-6)
    with torch.no_grad():
        seen.clear()
        torch.testing.assert_close(net(x)[0], made()(x)[0])
        assert max(seen) == options["chunk_size"]


@pytest.mark.parametrize("option", ["checkpoint_every", "chunk_size"])
def test_hidden_outputs(option: str):
    x = 3 * torch.rand(T, B, N, generator=generator(0))
    layers = [nn.Linear(N, N), LIF(LIFParameters(method="arctan"))]
    plain, parts = (SequentialState(*layers, return_hidden=True, **{option: k})(x)[0] for k in (None, 5))
    torch.testing.assert_close(plain, parts)


def test_a_slice_takes_its_options_along():
    net = SequentialState(nn.Linear(N, N), LIF(), return_hidden=True, checkpoint_every=6, chunk_size=2)
    for other in (net[:1], net + net, 2 * net):
        assert (other.return_hidden, other.checkpoint_every, other.chunk_size) == (True, 6, 2)


def test_what_was_dropped_is_dropped_again():
    """The current is linear in the input: gradient times input gives it back if the mask is the same."""
    x = torch.rand(T, B, N, generator=generator(0)).requires_grad_()
    state = SequentialState(nn.Dropout(0.5), LIF(), checkpoint_every=6)(x)[1][-1]
    gradient = torch.autograd.grad(state.i.sum(), x)[0]
    assert 0.3 < float((gradient != 0).float().mean()) < 0.7
    torch.testing.assert_close((gradient * x).sum(0), state.i)


def held(steps: int, every: int | None, backend: str) -> float:
    """Floats a neuron that forward leaves in torch's memory for backward, beside its output."""
    x = torch.ones(1, 1, 2000).requires_grad_()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        output, _ = scan(
            lsnn_feed_forward_step, x.expand(steps, 1, 2000), backend=backend, checkpoint_every=every
        )
    events = profiler.profiler.kineto_results.events()
    left = sum(event.nbytes() for event in events if event.name() == "[memory]") / 8000
    output.sum().backward()
    return left - steps


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_between_forward_and_backward_only_a_state_in_every_so_many_steps_is_kept(backend: str):
    """LSNN has a state of three numbers; torch keeps the state of its random numbers too, 5 kB a chunk."""
    assert held(400, None, backend) >= 400
    for steps, every in ((400, 20), (1600, 40)):
        assert held(steps, every, backend) <= 6 * steps / every


@pytest.mark.parametrize("every", [0, -3, 2.5, "many", True])
def test_what_is_no_number_of_steps_is_refused_where_it_is_given(every: Any):
    message = f"_every must be an integer of at least 1, got checkpoint_every={every!r}"
    for make in (
        lambda: scan(lif_feed_forward_step, torch.zeros(3, 1, 2), checkpoint_every=every),
        lambda: LIF(checkpoint_every=every),
        lambda: LIFRecurrent(2, 2, checkpoint_every=every),
        lambda: SequentialState(LIFCell(), checkpoint_every=every),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ValueError, match=f"chunk_size must be an integer of .* got chunk_size={every!r}"):
        SequentialState(LIF(), chunk_size=every)
    layer = LIF(backend="reference")
    layer.checkpoint_every = every
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(3, 1, 2))


def test_a_number_of_steps_may_be_numpys():
    x, every = 3 * torch.rand(5, 1, 2), np.int64(2)
    expected = LIF(backend="reference")(x.requires_grad_())[0]
    for net in (
        LIF(backend="reference", checkpoint_every=every),
        SequentialState(LIF(backend="reference"), checkpoint_every=every, chunk_size=every),
    ):
        assert torch.equal(net(x)[0], expected)


@pytest.mark.parametrize("option", ["checkpoint_every", "chunk_size"])
def test_batch_norm_in_training_is_refused(option: str):
    net = SequentialState(nn.BatchNorm1d(N), LIF(), **{option: 4})
    with pytest.raises(ValueError, match="batch norm 0 in training"):
        net(torch.zeros(T, B, N))
    net.eval()
    net(torch.zeros(T, B, N))


@pytest.mark.parametrize("option", ["checkpoint_every", "chunk_size"])
def test_states_of_all_steps_are_refused_in_parts(option: str):
    net = SequentialState(nn.Linear(N, N), LIF(record_states=True), **{option: 3})
    with pytest.raises(ValueError, match="do not go with record_states=True of 1"):
        net(torch.zeros(7, 2, N))


@pytest.mark.parametrize("option", ["checkpoint_every", "chunk_size"])
def test_what_needs_to_see_the_whole_sequence_is_refused_in_parts(option: str):
    net = SequentialState(LIF(), Lift(nn.Linear(N, N)), **{option: 3})
    net(torch.zeros(7, 2, N))
    with pytest.raises(ValueError, match=r"do not go with 2 \(SpikeLatencyEncoder\), which needs"):
        net.append(SpikeLatencyEncoder())(torch.zeros(7, 2, N))
    with pytest.raises(ValueError, match=r"do not go with 1 \(SpikeLatencyEncoder\), which needs"):
        SequentialState(LIF(), SpikeLatencyEncoder(), **{option: 3})
