"""What follows from a step: its types, where it rests, its recurrent form, the checks of its parameters."""

import contextlib
import copy
import math
import pickle
import re
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from snnlib.engine import initial_state, recurrent_step
from snnlib.engine.check import NaNInputError, check_parameters
from snnlib.engine.state import integration_dtype
from snnlib.engine.step import default_parameters, recurrent_state_type, state_type
from snnlib.engine.step import name_of as step_name
from snnlib.engine.watched import is_concrete
from tests.neurons import (
    NEURONS,
    draw_input,
    draw_parameters,
    draw_state,
    generator,
    name_of,
    same,
)


class Trace(NamedTuple):
    """A state of one's own, without ``initial``."""

    low: Tensor
    high: Tensor


class TraceParameters(NamedTuple):
    keep: float = 0.5


class Offset(NamedTuple):
    """A state of one's own that rests somewhere else than zero."""

    v: Tensor

    @classmethod
    def initial(cls, p: "TraceParameters") -> "Offset":
        return cls(v=10 * p.keep)  # type: ignore[arg-type]


def trace(input: Tensor, state: Trace, p: TraceParameters = TraceParameters(), dt: float = 0.001):
    low = p.keep * state.low + input
    return low, Trace(low, torch.maximum(state.high, low))


def offset(input, state: Offset, p: TraceParameters = TraceParameters(), dt=0.001):
    v = state.v + dt * input
    return v, Offset(v)


def gained(input: Tensor, state: Trace, p: None = None, dt: float = 0.001, *, gain: float = 1.0):
    return gain * input, state


class Tracer:
    """A step that is an object."""

    def __call__(self, input: Tensor, state: Trace, p: TraceParameters = TraceParameters(), dt: float = 0.001):
        return trace(input, state, p, dt)


Kind = TypeVar("Kind")


class Any(NamedTuple, Generic[Kind]):
    v: Kind


def step_of_any(input: Tensor, state: Any[Tensor], p=TraceParameters(), dt=0.001):
    return input, state


def not_annotated(input, state, p=TraceParameters(), dt=0.001):
    return input, state


def annotated_as_tuple(input, state: tuple, p=TraceParameters(), dt=0.001):
    return input, state


def annotated_as_instance(input, state: Trace(0.0, 0.0), p=TraceParameters(), dt=0.001):  # type: ignore
    return input, state


def without_parameters(input, state: Trace):
    return input, state


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_types_are_read_from_the_signature(neuron):
    assert state_type(neuron.step) is neuron.state
    assert default_parameters(neuron.step) == neuron.parameters()
    assert type(default_parameters(neuron.step)) is neuron.parameters


def test_types_of_a_step_of_ones_own():
    assert state_type(trace) is Trace
    assert default_parameters(trace) == TraceParameters()
    assert default_parameters(without_parameters) is None
    assert state_type(step_of_any) is Any
    assert recurrent_state_type(step_of_any)._fields == ("z", "v")


@pytest.mark.parametrize("step", [not_annotated, annotated_as_tuple, annotated_as_instance])
def test_a_step_whose_state_is_not_annotated_is_refused_by_name(step):
    for call in (state_type, recurrent_state_type):
        with pytest.raises(TypeError, match=rf"state of {step.__name__} must be annotated with a NamedTuple"):
            call(step)


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_recurrent_state_has_z_before_the_fields(neuron):
    kind = recurrent_state_type(neuron.step)
    assert kind._fields == ("z", *neuron.state._fields)
    assert recurrent_state_type(neuron.step) is kind
    assert issubclass(kind, tuple)


STEPS = [trace, partial(gained, gain=2.0), Tracer(), *(neuron.step for neuron in NEURONS)]


@pytest.mark.parametrize("step", STEPS, ids=step_name)
def test_recurrent_state_pickles_and_copies(step):
    """It is made at run time, so it has no name to be found by."""
    kind = recurrent_state_type(step)
    state = kind(*(torch.full((2,), float(k)) for k in range(len(kind._fields))))
    for again in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state), copy.copy(state)):
        same(again, state)
    nested = pickle.loads(pickle.dumps([state, {"a": state}]))
    same(nested[1]["a"], state)
    replaced = state._replace(z=torch.zeros(3))
    assert replaced.z.shape == (3,)
    assert type(replaced) is kind
    assert type(pickle.loads(pickle.dumps(step))) is type(step)  # with what is noted on it


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_state_starts_in_float32_at_least(given, wanted):
    assert integration_dtype(given) is wanted
    state = initial_state(Trace, TraceParameters(), torch.ones(2, 3, dtype=given))
    for value in state:
        assert value.dtype is wanted
        assert value.shape == (2, 3)
        assert not value.any()


def test_state_starts_where_its_kind_says():
    state = initial_state(Offset, TraceParameters(keep=0.7), torch.ones(4, 2))
    assert isinstance(state, Offset)
    same(state.v, torch.full((4, 2), 7.0))


def test_state_starts_on_the_device_of_the_input():
    like = torch.empty(3, 2, device="meta")
    for p in (TraceParameters(), TraceParameters(keep=torch.tensor(0.3))):
        assert initial_state(Offset, p, like).v.device.type == "meta"


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1)])
def test_a_tensor_that_the_neuron_rests_at_broadcasts_and_gets_a_gradient(shape):
    source = generator(0)
    keep = torch.rand(shape, generator=source, dtype=torch.float64, requires_grad=True)
    state = initial_state(Offset, TraceParameters(keep=keep), torch.ones(2, 3, dtype=torch.float64))
    same(state.v, 10 * keep.detach().expand(2, 3))
    state.v.sum().backward()
    same(keep.grad, torch.full(shape, 10.0 * 6 / keep.numel(), dtype=torch.float64))


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_recurrent_neurons_start_without_spikes(neuron):
    p = draw_parameters(neuron, generator(1), (3,), torch.float32)
    kind = recurrent_state_type(neuron.step)
    like = torch.ones(2, 3)
    state = initial_state(neuron.state, p, like, kind)
    assert type(state) is kind
    same(state.z, torch.zeros(2, 3))
    same(tuple(state[1:]), tuple(initial_state(neuron.state, p, like)))


def test_initial_states_share_no_memory_between_neurons_or_calls():
    """Somebody may write into the state that came back."""
    one, other = (initial_state(Trace, TraceParameters(), torch.ones(2, 2)) for _ in range(2))
    one.low.fill_(5.0)
    assert not one.high.any()
    assert not other.low.any()


def test_a_shared_initial_state_is_the_same_in_less_memory():
    like = torch.ones(2, 3)
    own, shared = (initial_state(Offset, TraceParameters(), like, shape=shape) for shape in (None, like.shape))
    same(tuple(own), tuple(shared))
    assert [value.untyped_storage().nbytes() for value in (own.v, shared.v)] == [24, 4]


@pytest.mark.parametrize("shape", [(1, 1), (1, 2)], ids=str)
def test_nobody_writes_to_a_shared_initial_state_for_others(shape: tuple[int, ...]):
    def state() -> Offset:
        return initial_state(Offset, TraceParameters(), torch.ones(()), shape=shape)

    before = state().v.clone()
    with contextlib.suppress(RuntimeError):  # several neurons, one number
        state().v.add_(1.0)
    same(state().v, before)


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_recurrent_step_adds_what_returns_through_the_weights(neuron):
    """x[b, n] = current[b, n] + sum_m weights[n, m] z[b, m]: to row from column."""
    source = generator(6)
    p = draw_parameters(neuron, source, (3,))
    state = draw_state(neuron, source, (2, 3))
    current = draw_input(neuron, source, (2, 3))
    weights = torch.randn(3, 3, generator=source, dtype=torch.float64)
    z = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    for kind in (recurrent_state_type(neuron.step), neuron.recurrent_state):
        if "z" not in kind._fields:
            continue
        found_z, found = recurrent_step(neuron.step, current, kind(z, *state), weights, p, 0.0009)
        x = current + torch.from_numpy(np.array([weights.numpy() @ row for row in z.numpy()]))
        wanted_z, wanted = neuron.step(x, state, p, 0.0009)
        assert type(found) is kind
        same(found_z, wanted_z, rtol=1e-12, atol=1e-12)
        same(tuple(found), (wanted_z, *wanted), rtol=1e-12, atol=1e-12)


def test_recurrent_step_reaches_only_the_rows_of_a_column():
    """A spike of neuron 0 arrives where column 0 has a weight."""
    kind = recurrent_state_type(trace)
    state = kind(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2), torch.zeros(1, 2))
    weights = torch.tensor([[0.0, 5.0], [7.0, 0.0]])
    output, _ = recurrent_step(trace, torch.zeros(1, 2), state, weights, TraceParameters(), 0.001)
    assert output.tolist() == [[0.0, 7.0]]


@pytest.mark.parametrize("dt", [0.0, -0.001, math.inf, math.nan])
def test_dt_must_be_positive(dt):
    with pytest.raises(ValueError, match=rf"dt must be .* got dt={re.escape(str(dt))}"):
        check_parameters(TraceParameters(), dt)


def rates():
    for neuron in NEURONS:
        for name in neuron.ranges:
            if name.startswith("tau_"):
                yield pytest.param(neuron, name, id=f"{neuron.name}.{name}")


@pytest.mark.parametrize(
    "bad",
    [
        -1.0,
        math.nan,
        math.inf,
        torch.tensor(-2.0),
        torch.tensor([50.0, math.nan]),
        torch.tensor([math.inf, 50.0]),
    ],
)
@pytest.mark.parametrize(("neuron", "name"), list(rates()))
def test_every_rate_of_every_neuron_is_checked(neuron, name, bad):
    """The message names it and shows its value; zero is a rate that a neuron may have."""
    p = neuron.parameters()
    shown = next(value for value in torch.as_tensor(bad).flatten().tolist() if not 0 <= value < math.inf)
    with pytest.raises(ValueError, match=rf"{name} must be .*{name}={shown}"):
        check_parameters(p._replace(**{name: bad}), 0.001)
    check_parameters(p._replace(**{name: 0.0}), 0.001)
    check_parameters(p._replace(**{name: torch.tensor([0.0, 10.0])}), 0.001)


@pytest.mark.parametrize("count", [3, 5000])
def test_a_parameter_that_is_no_rate_has_no_nan(count):
    """Of which a neuron would make silence, with a loss that falls."""
    keep = torch.linspace(-1, 2, count).requires_grad_()
    check_parameters(TraceParameters(keep=keep), 0.001)
    check_parameters(TraceParameters(keep=keep * math.inf), 0.001)
    with torch.no_grad():
        keep[2] = math.nan
    with pytest.raises(NaNInputError, match=r"p\.keep must not contain NaN, got nan at index \[2\]"):
        check_parameters(TraceParameters(keep=keep), 0.001)


def test_parameters_may_be_anything():
    """None, or fields that are no rates: nothing is known about them."""
    check_parameters(None, 0.001)
    check_parameters(TraceParameters(keep=-3.0), 0.001)


def test_values_are_looked_at_only_where_that_is_free():
    x = torch.ones(2)
    assert is_concrete(x)
    assert not is_concrete(torch.ones(2, device="meta"))
    seen = []
    torch.func.grad(lambda x: (seen.append(is_concrete(x)), x.sum())[1])(x)
    torch.func.vmap(lambda x: (seen.append(is_concrete(x)), x)[1])(x)
    compiled = torch.compile(lambda x: x + is_concrete(x), backend="eager", fullgraph=True)
    seen.append(compiled(x)[0].item() == 2.0)
    assert seen == [False, False, False]
