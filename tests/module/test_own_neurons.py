"""Modules of a step of one's own, and a surrogate of one's own."""

import pickle
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import snnlib
from snnlib import LIF, Cell, Layer, LIFParameters, RecurrentCell, RecurrentLayer, scan
from snnlib.engine import source
from tests.module.kinds import B, M, N, every_kind, over_time
from tests.neurons import generator, same

pytestmark = pytest.mark.usefixtures("seeded")


class MyState(NamedTuple):
    v: Tensor


class MyParameters(NamedTuple):
    keep: float | Tensor = 0.5


class MethodOnly(NamedTuple):
    method: str = "super"


def my_step(input: Tensor, state: MyState, p: MyParameters = MyParameters(), dt: float = 0.001):
    v = p.keep * state.v + input
    return v, MyState(v)


def step_with_method(input: Tensor, state: MyState, p: MethodOnly = MethodOnly(), dt: float = 0.001):
    return snnlib.spike(input, p.method), state


def test_a_layer_of_ones_own():
    x = torch.randn(6, B, N, generator=generator(0))
    output, state = Layer(my_step, MyParameters(0.25))(x)
    v = torch.zeros(B, N)
    for t in range(6):
        v = v / 4 + x[t]
        torch.testing.assert_close(output[t], v)
    assert isinstance(state, MyState)
    same(Layer(my_step)(x), Layer(my_step, MyParameters(0.5), 0.001)(x))
    same(over_time(Cell(my_step, MyParameters(0.25)), x), (output, state))


def test_a_recurrent_layer_of_ones_own():
    layer = RecurrentLayer(my_step, M, N)
    cell = RecurrentCell(my_step, M, N)
    cell.load_state_dict(layer.state_dict())
    x = torch.randn(6, B, M)
    output, state = layer(x)
    z = torch.zeros(B, N)
    v = torch.zeros(B, N)
    for t in range(6):
        v = v / 2 + x[t] @ layer.input_weights.T + z @ layer.recurrent_weights.T
        z = v
        torch.testing.assert_close(output[t], z)
    assert state._fields == ("z", "v")
    same(over_time(cell, x), (output, state), rtol=1e-5, atol=1e-5)


def step_with_gain(input: Tensor, state: MyState, p: None = None, dt: float = 0.001, *, gain: float = 1.0):
    return my_step(gain * input, state)


def test_a_recurrent_layer_of_a_step_with_bound_arguments_is_pickled():
    layer = RecurrentLayer(partial(step_with_gain, gain=2.0), M, N)
    x = torch.randn(6, B, M)
    output, state = layer(x)
    again, kept = pickle.loads(pickle.dumps((layer, state)))
    same(again(x), (output, state))
    assert type(kept) is type(state)


def test_a_parameter_of_ones_own_learns():
    layer = Layer(my_step, MyParameters(nn.Parameter(torch.tensor(0.5))))
    assert [name for name, _ in layer.named_parameters()] == ["keep"]
    output, _ = layer(torch.ones(3, 1, 1))
    output[-1].sum().backward()
    assert layer.keep.grad.item() == pytest.approx(1 + 2 * 0.5)  # of keep^2 + keep + 1


class Optional(NamedTuple):
    rest: float | Tensor | None = 0.25


def step_of_rest(input: Tensor, state: MyState, p: Optional = Optional(), dt: float = 0.001):
    return input - (0.0 if p.rest is None else p.rest), state


def test_none_for_a_number_is_for_a_step_of_ones_own_to_read():
    """A text or an array for a number is none."""
    x = torch.rand(6, B, N)
    same(Layer(step_of_rest, Optional(None))(x)[0], x)
    same(scan(step_of_rest, x, p=Optional(None))[0], x)
    same(Layer(step_of_rest)(x)[0], x - 0.25)
    for wrong in ("1", [1.0], {}, np.ones(3)):
        with pytest.raises(ValueError, match=r"p\.rest must be a number or a tensor, got"):
            Layer(step_of_rest, Optional(wrong))


def step_of_one(input: Tensor, state: MyState, p: MyParameters = MyParameters(), dt: float = 1.0):
    return dt * input, MyState(p.keep * state.v + dt * input)


def test_the_time_step_is_the_steps_own_unless_given():
    x = torch.rand(6, B, M)
    for module in (Layer(step_of_one), RecurrentLayer(step_of_one, M, N), Cell(step_of_one)):
        assert module.dt == 1.0
    assert RecurrentCell(step_of_one, M, N).dt == 1.0
    assert torch.equal(Layer(step_of_one)(x)[0], x)
    assert torch.equal(scan(step_of_one, x, backend="reference")[0], x)
    assert torch.equal(scan(step_of_one, x, dt=0.5)[0], Layer(step_of_one, dt=0.5)(x)[0])
    assert source(step_of_one) == source(Layer(step_of_one)) == source(step_of_one, dt=1.0)
    assert source(Layer(step_of_one, dt=0.25)) == source(step_of_one, dt=0.25) != source(step_of_one)

    def without(input: Tensor, state: MyState, p: MyParameters, dt: float):
        return step_of_one(input, state, p, dt)

    assert Layer(without, MyParameters()).dt == 0.001


@every_kind
def test_modules_of_ones_own_pickle(kind):
    made = {"cell": Cell, "layer": Layer, "recurrent_cell": RecurrentCell, "recurrent_layer": RecurrentLayer}[
        kind
    ]
    module = made(my_step, M, N) if kind.startswith("recurrent") else made(my_step)
    x = torch.randn(3, B, M) if kind.endswith("layer") else torch.randn(B, M)
    same(pickle.loads(pickle.dumps(module))(x), module(x))


def test_parameters_of_ones_own_may_name_a_method_alone():
    """``method`` without ``alpha``: nothing says that the two must come together."""
    output, _ = Layer(step_with_method)(torch.tensor([[[-1.0, 2.0]]]))
    assert output.tolist() == [[[0.0, 1.0]]]


def test_a_function_as_method():
    p = LIFParameters(method=lambda x, alpha: torch.sigmoid(x), v_th=0.0)
    output, _ = LIF(p)(torch.zeros(1, 1, 1))
    assert output.item() == 0.5
    assert "method" in repr(LIF(p))


class Taken(NamedTuple):
    """Parameters whose names a module has too."""

    step: float | Tensor = 1.0
    state: float | Tensor = 1.0
    training: float | Tensor = 1.0
    backend: float | Tensor = 1.0
    checkpoint_every: float | Tensor = 1.0
    record_states: float | Tensor = 1.0
    hidden_size: float | Tensor = 1.0
    input_weights: float | Tensor = 1.0


ALWAYS, OVER_TIME, RECURRENT = set(Taken._fields[:3]), set(Taken._fields[3:6]), set(Taken._fields[6:])


def summing_step(input: Tensor, state: MyState, p: Taken = Taken(), dt: float = 0.001):
    return input * sum(p), MyState(state.v)


@pytest.mark.parametrize(
    ("made", "own"),
    [
        (Cell, ALWAYS),
        (partial(Layer, backend="reference"), ALWAYS | OVER_TIME),
        (lambda step, p: RecurrentCell(step, None, N, p), ALWAYS | RECURRENT),
        (lambda step, p: RecurrentLayer(step, None, N, p), ALWAYS | OVER_TIME | RECURRENT),
    ],
)
def test_a_number_may_have_any_name_and_a_tensor_one_that_is_free(made, own):
    module = made(summing_step, Taken(backend=3.0))
    x = torch.ones(1, B, N) if module.over_time else torch.ones(B, N)
    assert (module(x)[0] == 10).all()
    module.p = module.p._replace(step=4.0)
    assert (module(x)[0] == 13).all()
    for name in Taken._fields:
        message = f"p.{name} cannot be a tensor, for the module has a {name} of its own"
        for value in (torch.full((N,), 2.0), nn.Parameter(torch.full((N,), 2.0))):
            if name not in own:
                assert (made(summing_step, Taken(**{name: value}))(x)[0] == 9).all()
                continue
            with pytest.raises(ValueError, match=message):
                made(summing_step, Taken(**{name: value}))
            with pytest.raises(ValueError, match=message):
                module.p = module.p._replace(**{name: value})


class Heard(NamedTuple):
    v: Tensor
    z: Tensor


class Late(NamedTuple):
    v: Tensor
    later: Tensor


def step_with_z(input: Tensor, state: Heard, p: MethodOnly = MethodOnly(), dt: float = 0.001):
    return input, Heard(state.v, input)


def step_with_later(input: Tensor, state: Late, p: LIFParameters = LIFParameters(), dt: float = 0.001):
    z = snnlib.spike(state.v + input - p.v_th, p.method, p.alpha)
    return z, Late(state.v + input, state.later)


def test_a_field_of_the_state_that_the_engine_has_too_is_refused_where_it_has_it():
    x = torch.rand(5, B, N)
    for made in (RecurrentCell, RecurrentLayer):
        with pytest.raises(ValueError, match=r"Heard has a field z, and with recurrent weights .*_with_z"):
            made(step_with_z, None, N)
    with pytest.raises(ValueError, match="Heard has a field z"):
        snnlib.scan(step_with_z, x, recurrent_weights=torch.ones(N, N))
    same(Layer(step_with_z, backend="reference")(x)[1].z, x[-1])
    for backend in ("auto", "reference"):
        with pytest.raises(ValueError, match="Late has a field later, and method='adjoint' keeps its own"):
            Layer(step_with_later, LIFParameters(method="adjoint"), backend=backend)(x)
        Layer(step_with_later, backend=backend)(x)
