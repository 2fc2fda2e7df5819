"""Gradients over time against a loop, of inputs and gradients as they lie in memory, under torch.func."""

import pytest
import torch

from snnlib.engine import scan
from snnlib.engine.state import _number
from snnlib.engine.step import recurrent_state_type
from tests.engine.cases import DT, LIF, case, weights_for
from tests.neurons import NEURONS, draw_input, generator, name_of, recurrent_loop, same


def test_gradient_of_an_expanded_input_is_summed():
    p, state, _ = case(LIF, 9)
    row = draw_input(LIF, generator(9), (4, 3)).requires_grad_()
    copied = row.detach().repeat(20, 1, 1).requires_grad_()
    for x in (row.expand(20, 4, 3), copied):
        output, final = scan(LIF.step, x, state, p, dt=DT)
        (output.sum() + (final.v * torch.arange(3)).sum()).backward()
    assert row.grad.abs().max() > 0
    torch.testing.assert_close(row.grad, copied.grad.sum(0))


def test_gradients_that_come_back_strided():
    """A gradient that is expanded (of a sum) or transposed is the numbers that it shows."""
    p, state, x = case(LIF, 10)
    x.requires_grad_()
    output, _ = scan(LIF.step, x, state, p, dt=DT)
    for gradient in (
        torch.tensor(1.7, dtype=torch.float64).expand(20, 4, 3),
        torch.randn(3, 4, 20, generator=generator(1), dtype=torch.float64).permute(2, 1, 0),
    ):
        (found,) = torch.autograd.grad(output, x, gradient, retain_graph=True)
        (wanted,) = torch.autograd.grad(output, x, gradient.contiguous(), retain_graph=True)
        assert found.abs().max() > 0
        same(found, wanted)


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_initial_state_gets_its_gradient(neuron):
    """By one step more: the gradient to the state after t steps, handed on, is that of the whole."""
    p, state, x = case(neuron, 13, steps=8)
    first = tuple(value.requires_grad_() for value in state)
    output, final = scan(neuron.step, x, type(state)(*first), p, dt=DT)
    whole = torch.autograd.grad(output[3:].sum() + final.v.square().sum(), first, allow_unused=True)
    _, middle = scan(neuron.step, x[:3], type(state)(*first), p, dt=DT)
    output, final = scan(neuron.step, x[3:], middle, p, dt=DT)
    parts = torch.autograd.grad(output.sum() + final.v.square().sum(), first, allow_unused=True)
    seen = False
    for one, other in zip(parts, whole, strict=True):
        if other is None:
            assert one is None or not one.any()
        else:
            torch.testing.assert_close(one, other)
            seen = seen or bool(other.any())
    assert seen


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_recurrent_scan_is_a_loop_and_so_are_its_gradients(neuron):
    """To the input, the weights, z and the other fields of the initial state, and the parameters."""
    found, wanted = [], []
    for kept, recurrent in ((found, scan), (wanted, None)):
        options = {"method": "arctan", "alpha": 0.5} if neuron.spikes else {}
        p, state, x = case(neuron, 14, parameters=(3,))
        p, weights = p._replace(**options), weights_for(neuron, 3)
        z = (torch.rand(4, 3, generator=generator(3)) < 0.5).double()
        numbers = [getattr(p, name) for name in neuron.ranges]
        leaves = [value.requires_grad_() for value in (x, weights, z, *state, *numbers)]
        if recurrent:
            start = recurrent_state_type(neuron.step)(z, *state)
            options = {"dt": 0.0012, "recurrent_weights": weights, "backend": "reference"}
            output, end = scan(neuron.step, x, start, p, **options)
            assert type(end) is type(start)
            last, final = end.z, tuple(end[1:])
        else:
            output, last, final = recurrent_loop(neuron.step, x, z, state, weights, p, 0.0012)
            final = tuple(final)
        source = generator(44)
        loss = sum(
            (torch.randn(value.shape, generator=source, dtype=value.dtype) * value).sum()
            for value in (output, last, *final)
        )
        kept += [output, last, *final, *torch.autograd.grad(loss, leaves)]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
    if neuron.spikes:
        assert 5 < wanted[0].sum() < wanted[0].numel()
    by_weights = wanted[2 + len(final) + 1]
    assert by_weights.shape == (3, 3)
    assert by_weights.abs().min() > 0


@pytest.mark.parametrize("recurrent", [False, True])
def test_no_grad_and_inference_mode(recurrent):
    """The same numbers, and no graph."""
    p, _, x = case(LIF, 15)
    weights = weights_for(LIF, 3).requires_grad_() if recurrent else None
    x.requires_grad_()
    wanted = scan(LIF.step, x, None, p, recurrent_weights=weights)
    assert wanted[0].requires_grad
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            output, state = scan(LIF.step, x, None, p, recurrent_weights=weights)
            assert not output.requires_grad
            assert not any(value.requires_grad for value in state)
            same((output, state), wanted)


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_torch_func_grad(neuron):
    """Functional transforms see the gradients that autograd sees, per sample with vmap."""
    p, _, x = case(neuron, 16)

    def loss(x):
        output, state = scan(neuron.step, x, None, p, dt=DT)
        return (output * torch.arange(3)).sum() + state.v.sum()

    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(loss(leaf), leaf)
    assert wanted.abs().max() > 0
    torch.testing.assert_close(torch.func.grad(loss)(x), wanted)
    # samples do not hear each other, so the gradient of each alone is its part of the whole
    samples = x.movedim(1, 0).unsqueeze(2)
    each = torch.func.vmap(torch.func.grad(loss))(samples)
    torch.testing.assert_close(each.squeeze(2).movedim(0, 1), wanted)


def test_two_backward_passes_through_two_sequences():
    """State that is handed on after detach starts a new graph."""
    p, _, x = case(LIF, 17)
    state = None
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        output, state = scan(LIF.step, leaf, state, p)
        output.sum().backward()
        assert leaf.grad.abs().max() > 0
        state = type(state)(*(value.detach() for value in state))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_who_begins_in_inference_mode_may_learn_later(backend: str):
    """A net that is evaluated, and then trained: the number of its rest is kept, and is no inference tensor."""
    _number.cache_clear()
    x, weights = torch.rand(5, 2, 3, generator=generator(0)), torch.eye(3, requires_grad=True)
    for context in (torch.inference_mode(), torch.enable_grad()):
        with context:
            _, last = scan(LIF.step, x, recurrent_weights=weights, backend=backend)
    torch.autograd.grad(last.v.sum(), weights)
