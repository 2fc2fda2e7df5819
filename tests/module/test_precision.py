"""Cells integrate in the precision of layers, whatever they are given: the numbers of both are the same."""

import contextlib
from typing import NamedTuple

import pytest
import torch

from snnlib import Cell, Layer, RecurrentCell, RecurrentLayer
from tests.module.kinds import DT, LONG_TAILS, B, M, N, build, every_neuron, over_time, sample
from tests.neurons import draw_parameters, draw_state, generator, same

pytestmark = pytest.mark.usefixtures("seeded")

HALF, WHOLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64
STEPS = 15


@pytest.mark.parametrize(
    ("given", "held"), [(HALF, HALF), (HALF, DOUBLE), (WHOLE, HALF), (WHOLE, DOUBLE), (DOUBLE, WHOLE)]
)
@every_neuron
def test_a_cell_takes_a_state_of_any_dtype_as_its_layer_does(neuron, given, held):
    p = neuron.parameters(**LONG_TAILS if neuron.spikes else {})
    x = sample(neuron, "layer", STEPS).to(given)
    state = draw_state(neuron, generator(5), (B, N), held)
    expected = build(neuron, "layer", p)(x, state)
    assert {value.dtype for value in expected[1]} == {torch.promote_types(given, WHOLE)}
    same(over_time(build(neuron, "cell", p), x, state), expected)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("held", [HALF, DOUBLE])
@pytest.mark.parametrize("moved", [HALF, torch.float16, WHOLE, DOUBLE])
@every_neuron
def test_a_recurrent_cell_has_the_numbers_of_its_layer(neuron, moved, held, autocast):
    """Of a module in any dtype, from a state in any, under autocast too."""
    p = draw_parameters(neuron, generator(3), (N,), WHOLE, **LONG_TAILS if neuron.spikes else {})
    layer = neuron.recurrent_layer(None, N, p, DT, backend="reference").to(moved)
    cell = neuron.recurrent_cell(None, N, p, DT).to(moved)
    cell.load_state_dict(layer.state_dict())
    x = sample(neuron, "layer", STEPS).to(moved)
    state = layer.recurrent_state(torch.ones(B, N, dtype=held), *draw_state(neuron, generator(5), (B, N), held))
    low = torch.float16 if moved == torch.float16 else HALF  # autocast on a CPU does not mix the two
    with torch.autocast("cpu", low) if autocast else contextlib.nullcontext():
        expected = layer(x, state)
        assert {value.dtype for value in expected[1]} == {torch.promote_types(moved, WHOLE)}
        same(over_time(cell, x, state), expected)


class Weighed(NamedTuple):
    v: torch.Tensor
    i: torch.Tensor


def weigh(input, state: Weighed, p=None, dt=0.001):
    """A step whose numbers would show in which precision the input is."""
    scaled = input * 1.01
    return scaled, Weighed(v=state.v + scaled, i=state.i)


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_step_sees_its_input_in_the_precision_of_the_state(recurrent):
    x = torch.rand(STEPS, B, N).to(HALF)
    if recurrent:
        cell, layer = RecurrentCell(weigh, None, N), RecurrentLayer(weigh, None, N, backend="reference")
        cell.load_state_dict(layer.state_dict())
    else:
        cell, layer = Cell(weigh), Layer(weigh, backend="reference")
    same(over_time(cell, x), layer(x))


def test_the_state_of_a_cell_has_memory_of_its_own():
    """Also where a number stands for all neurons, and the step hands it on."""
    _, state = Cell(weigh, dt=DT)(torch.rand(B, M), Weighed(v=0.0, i=0.5))
    assert state.i.shape == (B, M)
    state.i[0, 0] = 1.0
    assert state.i.sum() == 1.0 + 0.5 * (B * M - 1)
