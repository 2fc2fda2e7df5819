"""Steps over time as functions, a step without its synapse, and sums for the loss."""

import functools
import pickle

import pytest
import torch

from snnlib import (
    LIF,
    LIFAdExFeedForwardState,
    LIFFeedForwardState,
    LIFParameters,
    LIFState,
    RegularizationCell,
    li_step,
    lif_adex_current_encoder,
    lif_adex_feed_forward_step,
    lif_box_feed_forward_step,
    lif_current_encoder,
    lif_feed_forward_step,
    lif_step,
    lift,
    regularize_step,
    scan,
    voltage_accumulator,
)
from snnlib.functional import LIFBoxFeedForwardState

P = LIFParameters(v_th=0.3)


@pytest.fixture
def x() -> torch.Tensor:
    return 3 * torch.rand(30, 2, 5, generator=torch.Generator().manual_seed(0))


def test_a_lifted_step_is_scan(x: torch.Tensor):
    expected, last = scan(lif_feed_forward_step, x, p=P, dt=0.002)
    output, state = lift(lif_feed_forward_step, P)(x, dt=0.002)
    assert torch.equal(output, expected)
    assert torch.equal(state.v, last.v)
    assert expected.sum() > 10
    # the parameters of the call win, and the state goes on
    first, state = lift(lif_feed_forward_step, LIFParameters(v_th=0.9))(x[:7], p=P, dt=0.002)
    rest, _ = pickle.loads(pickle.dumps(lift(lif_feed_forward_step)))(x[7:], state=state, p=P, dt=0.002)
    assert torch.equal(torch.cat([first, rest]), expected)


def test_a_lifted_step_with_weights(x: torch.Tensor):
    generator = torch.Generator().manual_seed(1)
    inward, recurrent = torch.randn(4, 5, generator=generator), torch.randn(4, 4, generator=generator)
    zeros = torch.zeros(2, 4)
    start = LIFState(z=zeros, v=zeros, i=zeros)
    output, _ = lift(lif_step, P)(x, state=start, input_weights=inward, recurrent_weights=recurrent)
    expected, _ = scan(
        lif_feed_forward_step,
        x,
        start,
        P,
        recurrent_weights=recurrent,
        input_weights=inward,
        backend="reference",
    )
    assert torch.equal(output, expected)
    assert 10 < output.sum() < output.numel()


def test_a_current_encoder_is_the_neuron_without_its_synapse(x: torch.Tensor):
    voltage, state = torch.zeros(2, 5), LIFBoxFeedForwardState(v=torch.zeros(2, 5))
    spikes = 0.0
    for current in x:
        z, voltage = lif_current_encoder(current, voltage, P)
        expected, state = lif_box_feed_forward_step(current, state, P)
        assert torch.equal(z, expected)
        assert torch.equal(voltage, state.v)
        spikes += float(z.sum())
    assert spikes > 10


def test_the_adaptation_of_the_current_encoder_is_that_of_the_step(x: torch.Tensor):
    v, a = x[0] / 3, x[1] / 3
    z, voltage, adaptation = lif_adex_current_encoder(9 * x[2], v, a)
    start = LIFAdExFeedForwardState(v=v, i=torch.zeros_like(v), a=a)
    expected, state = lif_adex_feed_forward_step(9 * x[2], start)
    assert 0 < z.sum() < z.numel()
    assert torch.equal(z, expected)
    assert torch.equal(voltage, state.v)
    assert torch.equal(adaptation, state.a)


def test_sums_for_the_loss(x: torch.Tensor):
    cell, state = RegularizationCell(), LIFFeedForwardState(v=torch.zeros(2, 5), i=torch.zeros(2, 5))
    spikes, voltages, sums = [], [], None
    for current in x:
        z, state = lif_feed_forward_step(current, state, P)
        same, total = cell(z, state)
        assert same is z
        _, sums = regularize_step(z, state, voltage_accumulator, sums)
        spikes.append(z)
        voltages.append(state.v)
    assert total == torch.stack(spikes).sum() > 10
    torch.testing.assert_close(sums, torch.stack(voltages).sum(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.bool])
def test_spikes_of_any_dtype_are_counted_in_full(dtype: torch.dtype):
    cell, z = RegularizationCell(), torch.ones(4, 2500, dtype=dtype)
    for _ in range(9):
        _, total = cell(z, None)
    assert total.item() == 90_000


def test_sums_over_a_sequence(x: torch.Tensor):
    """They are those over its steps, in one part or in two, where the layer gives all of its states."""
    layer, recording = LIF(P), LIF(P, record_states=True)
    over_time = functools.partial(voltage_accumulator, over_time=True)
    z, states = recording(x)
    _, voltages = RegularizationCell(over_time)(z, states)
    torch.testing.assert_close(voltages, states.v.sum(0))
    cell, last = RegularizationCell(over_time), None
    for part in x.split(7):
        _, total = cell(*recording(part, last))
        _, last = layer(part, last)
    torch.testing.assert_close(total, voltages)
    assert RegularizationCell()(*layer(x))[1] == z.sum() > 10


@pytest.mark.parametrize("options", [{}, {"over_time": True}])
def test_a_sum_of_voltages_without_their_states_is_refused(x: torch.Tensor, options: dict[str, bool]):
    with pytest.raises(ValueError, match=r"s.v of shape \[2, 5\] .* record_states=True"):
        voltage_accumulator(*LIF(P)(x), **options)


def test_a_step_with_weights_is_given_its_state(x: torch.Tensor):
    message = r"state must be given to lif_step, as LIFState\(z=0\.0, v=0\.0, i=0\.0\) say, got None"
    weights = torch.ones(4, 5), torch.ones(4, 4)
    with pytest.raises(ValueError, match=message):
        lift(lif_step)(x, input_weights=weights[0], recurrent_weights=weights[1])
    with pytest.raises(ValueError, match=message):
        lif_step(x[0], None, *weights)
    with pytest.raises(ValueError, match=r"state must be given to li_step, as LIState\(v=0\.0, i=0\.0\) say"):
        li_step(x[0], None, weights[0])
