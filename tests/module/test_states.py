"""States over time, beside a loop over single steps; and cut off from what came before."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from snnlib import (
    LI,
    LIF,
    LIFCell,
    LIFFeedForwardState,
    LIFParameters,
    LIFRecurrent,
    LIFRefrac,
    LIFState,
    LIState,
    LSNNRecurrent,
    LSNNRecurrentCell,
    RecurrentLayer,
    RecurrentSequential,
    RecurrentSequentialState,
    SequentialState,
    detach_state,
    lif_box_feed_forward_step,
    lif_feed_forward_step,
    state_over_time,
)

T, B, N = 7, 2, 3
EXACT = LIFParameters(method="adjoint")


def layers(recurrent: bool) -> tuple[Any, Any]:
    """A layer and the same as a cell."""
    if not recurrent:
        return LIF(backend="reference"), LIFCell()
    layer = LSNNRecurrent(N, N, backend="reference")
    cell = LSNNRecurrentCell(N, N, input_weights=layer.input_weights, recurrent_weights=layer.recurrent_weights)
    return layer, cell


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("every", [1, 3, 7, 9])
def test_states_are_those_of_single_steps(recurrent: bool, every: int):
    torch.manual_seed(0)
    layer, cell = layers(recurrent)
    x = 4 * torch.rand(T, B, N)
    output, states = state_over_time(layer, x, every=every)
    z, kept, state = [], [], None
    for step in range(T):
        one, state = cell(x[step], state)
        z.append(one)
        if (step + 1) % every == 0 or step == T - 1:
            kept.append(state)
    assert 0 < output.mean() < 1
    assert torch.equal(output, torch.stack(z))
    assert type(states) is type(state)
    for name in states._fields:
        torch.testing.assert_close(
            getattr(states, name), torch.stack([getattr(s, name) for s in kept]), rtol=1e-6, atol=1e-6
        )


def test_it_starts_from_a_state_and_has_no_gradient():
    layer = LIF(backend="reference")
    x = torch.rand(T, B, N, requires_grad=True)
    _, whole = state_over_time(layer, x)
    _, state = layer(x[:3])
    _, rest = state_over_time(layer, x[3:], state)
    torch.testing.assert_close(rest.v, whole.v[3:], rtol=0, atol=0)
    assert not whole.v.requires_grad


@pytest.mark.parametrize("every", [0, -2, 1.5, True])
def test_a_number_of_steps_that_is_none_is_named(every: Any):
    with pytest.raises(ValueError, match=f"every must be an integer of at least 1, got every={every}"):
        state_over_time(LIF(), torch.rand(T, B, N), every=every)


def test_no_step_is_refused():
    with pytest.raises(ValueError, match=r"T > 0, got shape \[0, 2, 3\]"):
        state_over_time(LIF(), torch.rand(0, B, N))


@pytest.mark.parametrize(
    "layer",
    [
        *(LIF(), LIFRecurrent(3, 3), LIFRefrac(), RecurrentLayer(lif_box_feed_forward_step, 3, 3)),
        *(LIF(EXACT), LIFRecurrent(3, 3, EXACT), RecurrentLayer(lif_feed_forward_step, 3, 3, EXACT)),
    ],
    ids=lambda layer: f"{type(layer).__name__}-{layer.p.method}",
)
def test_a_state_is_read_by_torch_load_as_it_is(layer, tmp_path):
    """By the adjoint, which hands on more in training, it is one of the neuron's own kind."""
    with torch.no_grad():
        _, rested = layer(torch.rand(5, 2, 3))
    _, state = layer(torch.rand(5, 2, 3, requires_grad=True))
    torch.save({"state": state}, tmp_path / "state.pt")
    again = torch.load(tmp_path / "state.pt")["state"]
    assert type(again) is type(rested)
    assert type(copy.deepcopy(detach_state(state))) is type(copy.copy(state)) is type(rested)
    assert all(map(torch.equal, again, state))


def test_that_of_a_recurrent_chain_too(tmp_path):
    _, state = RecurrentSequential(torch.nn.Linear(3, 3), LIFCell())(torch.rand(2, 3))
    torch.save(state, tmp_path / "state.pt")
    again = torch.load(tmp_path / "state.pt")
    assert type(again) is type(state)
    assert torch.equal(again.state[1].v, state.state[1].v)


def by_hand(state: Any) -> Any:
    """What ``detach_state`` does, for the state of ``deep_net``, entry by entry."""
    linear, lif, (hidden, cell), recurrent, (inner_linear, inner), last = state
    assert linear is inner_linear is None
    return [
        None,
        LIFFeedForwardState(*(value.detach() for value in lif)),
        (hidden.detach(), cell.detach()),
        LIFState(*(value.detach() for value in recurrent)),
        [None, LIFFeedForwardState(*(value.detach() for value in inner))],
        LIState(*(value.detach() for value in last)),
    ]


def deep_net(method: str) -> SequentialState:
    torch.manual_seed(0)
    p = LIFParameters(v_th=0.1, method=method)
    return SequentialState(
        nn.Linear(N, 6),
        LIF(p),
        nn.LSTM(6, 5),
        LIFRecurrent(5, 5, p),
        SequentialState(nn.Linear(5, 4), LIF(p)),
        LI(),
    )


def learned(method: str, hand_on: Callable[[Any], Any]) -> list[torch.Tensor]:
    """Weights after a step of descent for each part of a sequence, and the gradients of the last."""
    net = deep_net(method)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    state = None
    for part in (3 * torch.rand(30, B, N, generator=torch.Generator().manual_seed(0))).split(10):
        voltage, state = net(part, hand_on(state) if state is not None else None)
        optimizer.zero_grad()
        voltage.square().mean().backward()
        optimizer.step()
    return [value for weight in net.parameters() for value in (weight.detach(), weight.grad)]


@pytest.mark.parametrize("method", ["super", "adjoint"])
def test_a_net_learns_over_parts_of_a_sequence(method: str):
    ours, expected = learned(method, detach_state), learned(method, by_hand)
    assert all(map(torch.equal, ours, expected))
    assert all(value.abs().sum() > 0 for value in ours)
    with pytest.raises(RuntimeError, match=r"second time|inplace operation"):
        learned(method, lambda state: state)


def test_a_detached_state_is_of_the_same_kinds():
    x = torch.rand(T, B, N)
    _, state = deep_net("adjoint")(x)
    assert state[1].later.requires_grad
    detached = detach_state(state)
    assert [type(entry) for entry in detached] == [type(entry) for entry in by_hand(state)]
    assert not hasattr(detached[1], "later")
    assert torch.equal(detached[1].v, state[1].v)
    assert state[1].v.requires_grad
    assert not detached[1].v.requires_grad


def test_whatever_a_state_is_made_of_is_detached_or_refused():
    v = torch.rand(2, requires_grad=True)
    state = RecurrentSequentialState(cache=[v, {"a": (v, 1)}], state=[None, 0.5, "b", True])
    detached = detach_state(state)
    assert type(detached) is RecurrentSequentialState
    first, second = detached.cache
    assert not first.requires_grad
    assert not second["a"][0].requires_grad
    assert second["a"][1] == 1
    assert detached.state == [None, 0.5, "b", True]
    assert detach_state(None) is None
    with pytest.raises(TypeError, match="got object"):
        detach_state([None, object()])
