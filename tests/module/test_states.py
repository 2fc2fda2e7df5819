"""States over time, beside a loop over single steps."""

from typing import Any

import pytest
import torch

from snnlib import (
    LIF,
    LIFCell,
    LIFRecurrent,
    LIFRefrac,
    LSNNRecurrent,
    LSNNRecurrentCell,
    RecurrentLayer,
    RecurrentSequential,
    lif_box_feed_forward_step,
    state_over_time,
)

T, B, N = 7, 2, 3


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


@pytest.mark.parametrize("every", [0, -2, 1.5])
def test_a_number_of_steps_that_is_none_is_named(every: Any):
    with pytest.raises(ValueError, match=f"every must be .*{every}"):
        state_over_time(LIF(), torch.rand(T, B, N), every=every)


def test_no_step_is_refused():
    with pytest.raises(ValueError, match=r"T > 0, got shape \[0, 2, 3\]"):
        state_over_time(LIF(), torch.rand(0, B, N))


@pytest.mark.parametrize(
    "layer",
    [LIF(), LIFRecurrent(3, 3), LIFRefrac(), RecurrentLayer(lif_box_feed_forward_step, 3, 3)],
    ids=lambda layer: type(layer).__name__,
)
def test_a_state_is_read_by_torch_load_as_it_is(layer, tmp_path):
    _, state = layer(torch.rand(5, 2, 3))
    torch.save({"state": state}, tmp_path / "state.pt")
    again = torch.load(tmp_path / "state.pt")["state"]
    assert type(again) is type(state)
    assert all(map(torch.equal, again, state))


def test_that_of_a_recurrent_chain_too(tmp_path):
    _, state = RecurrentSequential(torch.nn.Linear(3, 3), LIFCell())(torch.rand(2, 3))
    torch.save(state, tmp_path / "state.pt")
    again = torch.load(tmp_path / "state.pt")
    assert type(again) is type(state)
    assert torch.equal(again.state[1].v, state.state[1].v)
