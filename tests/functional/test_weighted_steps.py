"""Steps with weights are weights before the step."""

import numpy as np
import pytest
import torch

from tests.neurons import NEURONS, draw_input, draw_parameters, draw_state, generator, name_of, same


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_weighted_step_is_weights_before_the_step(neuron):
    """x[b, n] = sum_m input_weights[n, m] input[b, m] + sum_k recurrent_weights[n, k] z[b, k]."""
    source = generator(4)
    batch, inputs, size, dt = 3, 4, 5, 0.0008
    p = draw_parameters(neuron, source, (size,))
    state = draw_state(neuron, source, (batch, size))
    scale = neuron.input[0] + neuron.input[1]
    spikes = (torch.rand(batch, inputs, generator=source) < 0.6).double()
    w_in = scale * torch.randn(size, inputs, generator=source, dtype=torch.float64)
    w_rec = scale * torch.randn(size, size, generator=source, dtype=torch.float64)
    z = (torch.rand(batch, size, generator=source) < 0.5).double()
    x = np.einsum("nm,bm->bn", w_in.numpy(), spikes.numpy())
    if neuron.recurrent_state is neuron.state:  # li_step: no recurrence
        found_z, found = neuron.weighted_step(spikes, state, w_in, p, dt)
        before: tuple[str, ...] = ()
    else:
        x = x + np.einsum("nk,bk->bn", w_rec.numpy(), z.numpy())
        start = neuron.recurrent_state(z, *state)
        found_z, found = neuron.weighted_step(spikes, start, w_in, w_rec, p, dt)
        before = ("z",)
    wanted_z, wanted = neuron.step(torch.from_numpy(x), state, p, dt)
    assert type(found) is neuron.recurrent_state
    assert found._fields == (*before, *neuron.state._fields)
    same(found_z, wanted_z, rtol=1e-12, atol=1e-12)
    same(tuple(found), (wanted_z, *wanted) if before else tuple(wanted), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_weighted_step_has_the_defaults_of_the_step(neuron):
    source = generator(4)
    state = draw_state(neuron, source, (2, 3))
    if neuron.recurrent_state is not neuron.state:
        state = neuron.recurrent_state(torch.ones(2, 3, dtype=torch.float64), *state)
    weights = (torch.eye(3, dtype=torch.float64),) * (1 if neuron.recurrent_state is neuron.state else 2)
    x = draw_input(neuron, source, (2, 3))
    same(
        neuron.weighted_step(x, state, *weights),
        neuron.weighted_step(x, state, *weights, neuron.parameters(), 0.001),
    )


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_a_state_may_be_numbers(neuron):
    """As zeros are, with weights and without."""
    source = generator(4)
    x, w_in, w_rec = draw_input(neuron, source, (2, 4)), torch.eye(3, 4).double(), torch.ones(3, 3).double()
    count = len(neuron.state._fields)
    numbers, tensors = ([value] * count for value in (0.25, torch.full((2, 4), 0.25, dtype=torch.float64)))
    same(neuron.step(x, neuron.state(*numbers)), neuron.step(x, neuron.state(*tensors)))
    recurrent = neuron.recurrent_state is not neuron.state
    weights = (w_in, w_rec) if recurrent else (w_in,)
    numbers, tensors = ([*values[:recurrent], *values] for values in (numbers, [v[:, :3] for v in tensors]))
    start, wanted = neuron.recurrent_state(*numbers), neuron.recurrent_state(*tensors)
    same(neuron.weighted_step(x, start, *weights), neuron.weighted_step(x, wanted, *weights))
