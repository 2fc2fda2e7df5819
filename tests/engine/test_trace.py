"""A step as arithmetic: what is saved for the backward pass, and what cannot be traced."""

from contextlib import AbstractContextManager
from typing import NamedTuple

import pytest
import torch

from snnlib.engine.later import later_step
from snnlib.engine.step import UntraceableError
from snnlib.engine.trace import trace
from snnlib.functional import LIFParameters, lif_feed_forward_step, spike
from tests.neurons import NEURONS, Neuron, name_of

# floats a neuron and step that the backward pass reads, beside the output: one for what the surrogate needs,
# one more where the membrane enters its own slope (exp, v^2) or the refractory time is a state of its own
SAVED = {"li": 0, "lif": 1, "lif_box": 1, "iaf": 1, "lsnn": 1, "lif_refrac": 2, "lif_ex": 2, "lif_adex": 2}
SAVED |= {"izhikevich": 2, "li_box": 0}
# floats that the adjoint keeps for an event: by how much the membrane rises, and what else its state hangs on
EVENTS = {"iaf": 1, "lif_refrac": 1}


def traced(step, p, learned=()):
    return trace(step, p, learned, learned, 0.001, torch.float32)


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_the_backward_pass_needs_as_few_values_as_possible(neuron: Neuron):
    assert len(traced(neuron.step, neuron.parameters()).saved) == SAVED[neuron.name]


@pytest.mark.parametrize("mode", [torch.inference_mode(), torch.device("meta")], ids=["inference", "device"])
@pytest.mark.parametrize("method", ["super", "adjoint"])
def test_it_is_the_same_in_every_mode_of_the_caller(mode: AbstractContextManager[object], method: str):
    p = LIFParameters(method=method)
    step = lif_feed_forward_step if method == "super" else later_step(lif_feed_forward_step)
    expected = traced(step, p)
    with mode:
        assert traced(step, p) == expected


@pytest.mark.parametrize("detach", [True, False])
def test_lif_saves_one_float_whether_or_not_its_reset_is_attached(detach: bool):
    assert len(traced(lif_feed_forward_step, LIFParameters(detach_reset=detach)).saved) == 1


@pytest.mark.parametrize("neuron", [n for n in NEURONS if n.spikes], ids=name_of)
def test_what_only_events_need_of_the_adjoint_is_not_computed_for_every_step(neuron: Neuron):
    """Forward no more than a surrogate computes, but for the end of a refractory period; backward as well."""
    surrogate = traced(neuron.step, neuron.parameters(method="super"))
    p = neuron.parameters(method="adjoint")
    exact = trace(later_step(neuron.step), p, (), (), 0.001, torch.float32, keep="events")
    assert len(exact.between.lines) >= 3  # the slope is not too small, one over it, less than zero
    assert len(exact.between.inputs) == len(exact.events) == EVENTS.get(neuron.name, 2)
    assert len(exact.forward.lines) <= len(surrogate.forward.lines) + (6 if exact.marked else 1)
    assert len(exact.backward.lines) <= len(surrogate.backward.lines) + (5 if exact.marked else 0)


def test_a_parameter_that_learns_has_a_gradient_among_the_outputs():
    p = LIFParameters()._replace(tau_mem_inv=None)
    without = trace(lif_feed_forward_step, p, ("tau_mem_inv",), (), 0.001, torch.float32)
    learned = trace(lif_feed_forward_step, p, ("tau_mem_inv",), ("tau_mem_inv",), 0.001, torch.float32)
    assert len(learned.backward.outputs) == len(without.backward.outputs) + 1


class State(NamedTuple):
    v: torch.Tensor


def sorting_step(input, state: State, p=None, dt=0.001):
    v = (state.v + input).sort(dim=-1).values
    return spike(v - 1), State(v)


def random_step(input, state: State, p=None, dt=0.001):
    v = state.v + input * torch.rand_like(input)
    return spike(v - 1), State(v)


def branching_step(input, state: State, p=None, dt=0.001):
    v = state.v + input if bool((input > 0).all()) else state.v
    return spike(v - 1), State(v)


def shape_step(input, state: State, p=None, dt=0.001):
    v = state.v + input / input.shape[-1]
    return spike(v - 1), State(v)


def boolean_step(input, state: State, p=None, dt=0.001):
    v = state.v + input
    return v > 1, State(v)


def mixing_step(input, state: State, p=None, dt=0.001):
    v = state.v + input - input.mean()
    return spike(v - 1), State(v)


def writing_step(input, state: State, p=None, dt=0.001):
    v = state.v + input
    with torch.no_grad():
        torch.add(v, 3 * input, out=torch.zeros_like(input))
    return spike(v - 1), State(v)


def shared_step(input, state: State, p=None, dt=0.001):
    v = state.v + input
    seen = v.detach()
    v *= 0.5
    return v + seen, State(v)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (writing_step, "add.out with out="),
        (shared_step, "on a tensor that others see"),
        (shape_step, "depends on the shape"),
        (mixing_step, "mean"),
        (boolean_step, "it returns torch.bool"),
        (sorting_step, "sort"),
        (random_step, "it draws random numbers, aten.rand_like"),
        (branching_step, "value of a tensor"),
    ],
)
def test_what_is_not_elementwise_is_named(step, says: str):
    with pytest.raises(UntraceableError, match=says):
        traced(step, None)
