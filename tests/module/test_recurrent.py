"""Recurrent cells and layers: steps behind two matrices, autapses, weights and currents that are given."""

import copy
import math
import pickle

import pytest
import torch

from snnlib import LIFRecurrent, LIFRecurrentCell
from tests.module.kinds import DT, LONG_TAILS, B, M, N, build, every_neuron, over_time, sample
from tests.neurons import draw_parameters, generator, recurrent_loop, same

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("autapses", [False, True])
@every_neuron
def test_recurrent_layer_is_its_cell_step_by_step(neuron, autapses):
    """With the same weights; and both are the step behind the two matrices, by hand."""
    p = draw_parameters(neuron, generator(2), (N,), torch.float64)
    layer = neuron.recurrent_layer(M, N, p, 0.0011, autapses=autapses).double()
    cell = neuron.recurrent_cell(M, N, p, 0.0011, autapses=autapses).double()
    with torch.no_grad():
        layer.input_weights.abs_()
        cell.load_state_dict(layer.state_dict())
    x = sample(neuron, "recurrent_layer", 20, torch.float64)
    output, state = layer(x)
    same(over_time(cell, x), (output, state), rtol=1e-9, atol=1e-9)
    weights = layer.recurrent_weights * (1.0 if autapses else 1.0 - torch.eye(N, dtype=torch.float64))
    current = torch.stack([row @ layer.input_weights.T for row in x])
    rest = layer.resting(current[0])
    inner = neuron.state(*rest[1:])
    wanted, z, final = recurrent_loop(neuron.step, current, rest.z, inner, weights, p, 0.0011)
    same(output, wanted, rtol=1e-9, atol=1e-9)
    same(tuple(state), (z, *final), rtol=1e-9, atol=1e-9)
    if neuron.spikes:
        assert 0 < output.sum() < output.numel()
    # and the two matter: without recurrence it is another sequence
    with torch.no_grad():
        layer.recurrent_weights.zero_()
    changed, after = layer(x)
    assert not (torch.equal(changed, output) and torch.equal(after.v, state.v))


@every_neuron
def test_recurrent_states_have_the_public_type(neuron):
    """LIFRecurrent returns a LIFState, and so on; what has no class of its own gets one that is made."""
    for kind in ("recurrent_cell", "recurrent_layer"):
        module = build(neuron, kind, neuron.parameters())
        for same_one in (module, pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
            state = same_one(sample(neuron, kind))[1]
            assert state._fields == ("z", *neuron.state._fields)
            assert all(value.shape == (B, N) for value in state)
            if isinstance(neuron.recurrent_cell, type):
                assert type(state) is neuron.recurrent_state


@pytest.mark.parametrize("kind", ["recurrent_cell", "recurrent_layer"])
@every_neuron
def test_autocast_around_a_recurrent_neuron(neuron, kind):
    module = build(neuron, kind, neuron.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        output, state = module(sample(neuron, kind))
        output, state = module(sample(neuron, kind), state)
    assert output.isfinite().all()
    assert all(value.dtype == torch.float32 for value in state[1:])


@pytest.mark.parametrize("kind", ["recurrent_cell", "recurrent_layer"])
@every_neuron
def test_without_autapses_the_diagonal_is_zero_and_stays_without_effect(neuron, kind):
    """At the start, in the gradient, and in what the neuron hears after somebody wrote into it."""
    module = build(neuron, kind, neuron.parameters(**LONG_TAILS if neuron.spikes else {}))
    assert not module.recurrent_weights.diagonal().any()
    state = module.resting(torch.zeros(B, N))
    state = state._replace(z=torch.ones(B, N))
    x = sample(neuron, kind, 4)
    output, final = module(x, state)
    (output.sum() + final.v.sum()).backward()
    gradient = module.recurrent_weights.grad
    assert not gradient.diagonal().any()
    assert gradient.abs().sum() > 0
    with torch.no_grad():
        module.recurrent_weights.fill_diagonal_(100.0)
    same(module(x, state), (output, final))


@pytest.mark.parametrize("kind", ["recurrent_cell", "recurrent_layer"])
@every_neuron
def test_with_autapses_the_diagonal_counts(neuron, kind):
    p = neuron.parameters(**LONG_TAILS if neuron.spikes else {})
    module = build(neuron, kind, p, autapses=True)
    assert module.recurrent_weights.diagonal().any()
    state = module.resting(torch.zeros(B, N))._replace(z=torch.ones(B, N))
    x = sample(neuron, kind, 2)
    output, final = module(x, state)
    (output.sum() + final.v.sum()).backward()
    assert module.recurrent_weights.grad.diagonal().abs().min() > 0
    with torch.no_grad():
        module.recurrent_weights.fill_diagonal_(-100.0)
    assert not torch.equal(module(x, state)[1].v, final.v)


def test_weights_start_at_a_variance_of_two_by_fan_in():
    layer = LIFRecurrent(200, 300, autapses=True)
    assert layer.input_weights.shape == (300, 200)
    for weights, fan_in in ((layer.input_weights, 200), (layer.recurrent_weights, 300)):
        assert abs(weights.mean().item()) < 0.002
        # the standard error of a variance of n values is about sqrt(2 / n)
        assert weights.var().item() == pytest.approx(2 / fan_in, rel=5 * math.sqrt(2 / weights.numel()))


@pytest.mark.parametrize("autapses", [False, True])
def test_weights_that_are_given_are_copied(autapses):
    """Neither training the module nor writing into the tensor touches the other."""
    w_in, w_rec = torch.randn(N, M), torch.randn(N, N)
    for made in (LIFRecurrent, LIFRecurrentCell):
        module = made(M, N, input_weights=w_in, recurrent_weights=w_rec, autapses=autapses)
        same(module.input_weights.detach(), w_in)
        keep = torch.ones(N, N) if autapses else 1 - torch.eye(N)
        same(module.recurrent_weights.detach(), w_rec * keep, rtol=0.0, atol=0.0)
        before = w_in.clone(), w_rec.clone()
        with torch.no_grad():
            module.input_weights.add_(1.0)
            module.recurrent_weights.add_(1.0)
        same((w_in, w_rec), before)


@pytest.mark.parametrize("kind", ["recurrent_cell", "recurrent_layer"])
@every_neuron
def test_neurons_may_be_given_their_currents(neuron, kind):
    """Without input weights the input is what they would have made of it."""
    p = neuron.parameters(**LONG_TAILS if neuron.spikes else {})
    weighted = build(neuron, kind, p)
    options = {"backend": "reference"} if kind == "recurrent_layer" else {}
    bare = getattr(neuron, kind)(None, N, p, DT, recurrent_weights=weighted.recurrent_weights, **options)
    assert bare.input_weights is None
    assert bare.state_dict().keys() == {"recurrent_weights"}
    x = sample(neuron, kind, 3)
    current = (x @ weighted.input_weights.T).detach().requires_grad_()
    output, state = bare(current)
    same((output, state), weighted(x), rtol=1e-5, atol=1e-5)
    (output.sum() + state.v.sum()).backward()
    assert current.grad.abs().sum() > 0


def test_currents_must_fit_the_neurons():
    with pytest.raises(ValueError, match=r"\[B, 5\], got shape \[2, 4\]"):
        LIFRecurrentCell(None, 5)(torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"got \[5, 5\] for \[3, 2, 4\]"):
        LIFRecurrent(None, 5)(torch.ones(3, 2, 4))
    with pytest.raises(ValueError, match=r"does not go with input_weights"):
        LIFRecurrent(None, 5, input_weights=torch.ones(5, 4))


@pytest.mark.parametrize("assign", [False, True])
def test_weights_arrive_in_a_layer_that_was_made_without_memory(assign: bool):
    layer = LIFRecurrent(5, 6)
    with torch.device("meta"):
        other = LIFRecurrent(5, 6)
    if not assign:
        with torch.no_grad():
            full = [torch.full((36,), 255, dtype=torch.uint8) for _ in range(200)]
        del full  # what is made without a value finds these
        other.to_empty(device="cpu")
    other.load_state_dict(layer.state_dict(), assign=assign)
    x = 3 * torch.rand(20, 2, 5)
    assert torch.equal(other.recurrence(), layer.recurrence())
    assert torch.equal(other(x)[0], layer(x)[0])


@pytest.mark.parametrize("kind", [LIFRecurrent, LIFRecurrentCell])
@pytest.mark.parametrize("autapses", [False, True])
def test_weights_are_drawn_anew_as_they_were_drawn_at_first(kind, autapses: bool):
    torch.manual_seed(3)
    wanted = kind(M, N, autapses=autapses).state_dict()
    with torch.device("meta"):
        empty = kind(M, N, autapses=autapses)
    for module in (kind(M, N, autapses=autapses), empty.to_empty(device="cpu")):
        torch.manual_seed(3)
        module.reset_parameters()
        same(list(module.state_dict().values()), list(wanted.values()), rtol=0, atol=0)
        assert all(value.requires_grad for value in module.parameters())
        assert bool(module.recurrence().diagonal().any()) == autapses
    without = kind(None, N)
    without.reset_parameters()
    assert without.input_weights is None
