"""The one door of the engine: values and gradients over time against a loop, shapes, dtypes, errors."""

import itertools
import math
import re
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from snnlib.engine import scan
from snnlib.engine.step import recurrent_state_type
from snnlib.functional import (
    LIFFeedForwardState,
    LIFParameters,
    LIFState,
    LIParameters,
    LIState,
    li_feed_forward_step,
    lif_feed_forward_step,
)
from tests.engine.equality import FUSED_BACKENDS, device_of, moved
from tests.neurons import (
    NEURONS,
    draw_input,
    draw_parameters,
    draw_state,
    generator,
    loop,
    name_of,
    recurrent_loop,
    same,
)

# one time step for most tests, not the default: a backend may compile anew for each
DT = 0.0011
LIF = next(neuron for neuron in NEURONS if neuron.name == "lif")
SOME = [neuron for neuron in NEURONS if neuron.name in ("li", "lif_refrac", "lsnn", "izhikevich")]
"""For what the engine does around a step, whatever that computes."""


class Pair(NamedTuple):
    """A state of one's own, without ``initial``."""

    fast: Tensor
    slow: Tensor


class Rested(NamedTuple):
    """A state of one's own that starts at a parameter."""

    v: Tensor

    @classmethod
    def initial(cls, p: "MyParameters") -> "Rested":
        return cls(v=p.rest)  # type: ignore[arg-type]


class MyParameters(NamedTuple):
    gain: float | Tensor = 2.0
    rest: float | Tensor = 0.25


def pair_step(input: Tensor, state: Pair, p: MyParameters = MyParameters(), dt: float = 0.001):
    fast = 0.5 * state.fast + p.gain * input
    slow = state.slow + dt * fast
    return fast - slow, Pair(fast, slow)


def rested_step(input: Tensor, state: Rested, p: MyParameters = MyParameters(), dt: float = 0.001):
    v = state.v + torch.tanh(p.gain * input)
    return v, Rested(v)


def no_annotation(input, state, p=MyParameters(), dt=0.001):
    return input, state


def case(neuron, seed, steps=20, shape=(4, 3), parameters=(), dtype=torch.float64):
    source = generator(seed)
    p = draw_parameters(neuron, source, parameters, dtype)
    return p, draw_state(neuron, source, shape, dtype), draw_input(neuron, source, (steps, *shape), dtype)


def weights_for(neuron, size, seed=17, dtype=torch.float64):
    scale = (neuron.input[0] + neuron.input[1]) / size**0.5
    return (scale * torch.randn(size, size, generator=generator(seed), dtype=torch.float64)).to(dtype)


# -- values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 13])
@pytest.mark.parametrize("shape", [(4, 3), (1, 1), (2, 3, 2, 5), (6,)], ids=str)
@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_scan_is_a_loop(neuron, shape, steps):
    p, state, x = case(neuron, 1, steps, shape)
    # a backend has its own exp
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if "delta_T" in neuron.ranges else {}
    same(scan(neuron.step, x, state, p, dt=DT), loop(neuron.step, x, state, p, DT), **tolerance)


@pytest.mark.parametrize("backend", ["auto", "reference", *FUSED_BACKENDS])
def test_every_backend_by_its_name(backend):
    p, state, x = case(LIF, 2, dtype=torch.float32)
    wanted = loop(LIF.step, x, state, p, DT)
    given = (moved(values, device_of(backend)) for values in (x, state, p))
    output, final = scan(LIF.step, *given, dt=DT, backend=backend)
    same(output.cpu(), wanted[0])
    same(tuple(value.cpu() for value in final), tuple(wanted[1]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_without_a_state_it_starts_at_rest(neuron):
    p, _, x = case(neuron, 3)
    rest = neuron.state(
        *(torch.as_tensor(v, dtype=torch.float64).expand(4, 3) for v in neuron.state.initial(p))
    )
    same(scan(neuron.step, x, None, p, dt=DT), scan(neuron.step, x, rest, p, dt=DT))


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_without_parameters_it_takes_those_of_the_step(neuron):
    _, _, x = case(neuron, 3)
    same(scan(neuron.step, x), scan(neuron.step, x, None, neuron.parameters(), dt=0.001))


def test_dt_counts():
    x = case(LIF, 3)[2]
    assert not torch.equal(scan(LIF.step, x, dt=0.002)[1].v, scan(LIF.step, x)[1].v)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("cuts", [(0, 7, 20), (0, 1, 2, 20), (0, 0, 20, 20)], ids=str)
@pytest.mark.parametrize("neuron", SOME, ids=name_of)
def test_chunks_handed_on_equal_the_whole(neuron, cuts, recurrent):
    """A state that is handed on continues exactly, also after a chunk of no steps."""
    p, _, x = case(neuron, 4)
    options = {"recurrent_weights": weights_for(neuron, 3) if recurrent else None, "dt": DT}
    whole, final = scan(neuron.step, x, None, p, **options)
    state, parts = None, []
    for start, end in itertools.pairwise(cuts):
        part, state = scan(neuron.step, x[start:end], state, p, **options)
        parts.append(part)
    same(torch.cat(parts), whole)
    same(state, final)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("neuron", SOME, ids=name_of)
def test_no_steps(neuron, recurrent):
    """T = 0: an empty output, and the state as it came."""
    p, state, x = case(neuron, 5, steps=0)
    weights = None
    if recurrent:
        weights = weights_for(neuron, 3)
        state = recurrent_state_type(neuron.step)(torch.zeros(4, 3, dtype=torch.float64), *state)
    output, final = scan(neuron.step, x, state, p, dt=DT, recurrent_weights=weights)
    assert output.shape == (0, 4, 3)
    assert output.dtype == torch.float64
    same(final, state)
    rest = scan(neuron.step, x, None, p, dt=DT, recurrent_weights=weights)[1]
    assert type(rest) is type(state)
    assert all(value.shape == (4, 3) for value in rest)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("neuron", SOME, ids=name_of)
def test_an_empty_batch(neuron, recurrent):
    """B = 0 goes forward and backward; the gradient of shared parameters is zero."""
    p, _, x = case(neuron, 5, steps=6, shape=(0, 3))
    x.requires_grad_()
    rate = next(iter(neuron.ranges))
    p = p._replace(**{rate: getattr(p, rate).requires_grad_()})
    weights = weights_for(neuron, 3).requires_grad_() if recurrent else None
    output, final = scan(neuron.step, x, None, p, recurrent_weights=weights)
    assert output.shape == (6, 0, 3)
    assert all(value.shape == (0, 3) for value in final)
    (output.sum() + final.v.sum()).backward()
    assert x.grad.shape == x.shape
    if recurrent:
        assert not weights.grad.any()


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 1), (4, 3), (1, 3)], ids=str)
@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_parameters_broadcast(neuron, shape):
    """Tensors of any shape that fits ``[B, N]`` are those values at every sample and neuron."""
    p, state, x = case(neuron, 6, parameters=shape)
    full = p._replace(**{name: getattr(p, name).expand(4, 3).contiguous() for name in neuron.ranges})
    wanted = scan(neuron.step, x, state, full, dt=DT)
    same(scan(neuron.step, x, state, p, dt=DT), wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_parameters_of_a_neuron_are_its_own(neuron):
    """Column n of a layer with one value a neuron is that neuron alone with those numbers."""
    p, state, x = case(neuron, 7, parameters=(3,))
    output, final = scan(neuron.step, x, state, p, dt=DT)
    for n in range(3):
        alone = p._replace(**{name: getattr(p, name)[n] for name in neuron.ranges})
        own = type(state)(*(value[:, n : n + 1] for value in state))
        found, rest = scan(neuron.step, x[..., n : n + 1], own, alone, dt=DT)
        same(found, output[..., n : n + 1], rtol=1e-12, atol=1e-12)
        same(rest, type(final)(*(value[:, n : n + 1] for value in final)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (4, 1)], ids=str)
def test_a_state_broadcasts(shape):
    p, _, x = case(LIF, 8)
    small = draw_state(LIF, generator(8), shape)
    full = type(small)(*(value.expand(4, 3).contiguous() for value in small))
    same(scan(LIF.step, x, small, p, dt=DT), scan(LIF.step, x, full, p, dt=DT))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 3), (4, 1)], ids=str)
def test_a_recurrent_state_broadcasts(shape):
    """z too, which goes through the weights."""
    p, _, x = case(LIF, 8)
    weights = weights_for(LIF, 3)
    small = LIFState(torch.ones(shape, dtype=torch.float64), *draw_state(LIF, generator(8), shape))
    full = LIFState(*(value.expand(4, 3).contiguous() for value in small))
    wanted = scan(LIF.step, x, full, p, recurrent_weights=weights)
    same(scan(LIF.step, x, small, p, recurrent_weights=weights), wanted)


@pytest.mark.parametrize("neuron", SOME, ids=name_of)
def test_memory_layout_does_not_matter(neuron):
    """Transposed, strided, reversed-in-memory and expanded inputs are the numbers that they show."""
    p, state, _ = case(neuron, 9)
    base = draw_input(neuron, generator(9), (3, 8, 40))
    for x in (
        base.permute(2, 1, 0)[:20, ::2],
        base.permute(2, 1, 0)[::2, 1:5],
        base[:, :4, 0].T.expand(20, 4, 3),
        base[0, 0, 0].expand(20, 4, 3),
    ):
        assert not x.is_contiguous()
        same(scan(neuron.step, x, state, p, dt=DT), scan(neuron.step, x.contiguous(), state, p, dt=DT))


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


def test_the_input_is_left_alone():
    p, state, x = case(LIF, 11)
    before = x.clone(), type(state)(*(value.clone() for value in state))
    scan(LIF.step, x, state, p, recurrent_weights=None)
    same((x, state), before)


# -- dtypes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("neuron", SOME, ids=name_of)
def test_half_precision_is_integrated_in_float32(neuron, dtype, recurrent):
    """As the same numbers in float32, with only the output rounded at the end."""
    p, _, x = case(neuron, 12, dtype=torch.float32)
    weights = weights_for(neuron, 3).to(dtype).float() if recurrent else None
    x = x.to(dtype)
    output, state = scan(neuron.step, x, None, p, dt=DT, recurrent_weights=weights)
    wanted, final = scan(neuron.step, x.float(), None, p, dt=DT, recurrent_weights=weights)
    assert output.dtype == dtype
    same(output, wanted.to(dtype))
    same(state, final)
    assert all(value.dtype == torch.float32 for value in state)
    same(scan(neuron.step, x[:0], None, p, dt=DT)[0], torch.zeros(0, 4, 3, dtype=dtype))


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_state_in_half_precision_is_integrated_in_float32_too(dtype, backend):
    """ "State is integrated in float32 at least", also where the caller's state is not."""
    p, state, x = case(LIF, 12, dtype=torch.float32)
    x, small = x.to(dtype), type(state)(*(value.to(dtype) for value in state))
    output, final = scan(LIF.step, x, small, p, dt=DT, backend=backend)
    wanted = scan(
        LIF.step, x.float(), type(state)(*(value.float() for value in small)), p, dt=DT, backend=backend
    )
    same(final, wanted[1])
    same(output, wanted[0].to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_recurrent_weights_in_half_precision(dtype):
    """Those of a module that was moved with ``.to(dtype)``, beside an input in the same dtype."""
    p, _, x = case(LIF, 12, dtype=torch.float32)
    weights = weights_for(LIF, 3).to(dtype)
    output, final = scan(LIF.step, x.to(dtype), None, p, recurrent_weights=weights)
    wanted = scan(LIF.step, x.to(dtype).float(), None, p, recurrent_weights=weights.float())
    assert output.dtype == dtype
    same(output, wanted[0].to(dtype))
    same(final, wanted[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_gradients_come_back_in_the_dtype_of_the_input(dtype):
    x = torch.ones(5, 2, 3, dtype=dtype, requires_grad=True)
    output, state = scan(lif_feed_forward_step, x)
    (output.sum() + state.v.sum()).backward()
    assert x.grad.dtype == dtype
    assert x.grad.abs().min() > 0


def test_float64_is_integrated_in_float64():
    _, _, x = case(LIF, 12, dtype=torch.float64)
    output, state = scan(LIF.step, x)
    assert output.dtype == torch.float64
    assert all(value.dtype == torch.float64 for value in state)


# -- gradients -----------------------------------------------------------------------------------------------


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


# -- steps of one's own --------------------------------------------------------------------------------------


def test_a_step_of_ones_own():
    """Its own NamedTuples; a state without ``initial`` starts at zero."""
    x = torch.randn(6, 2, 3, generator=generator(0), dtype=torch.float64)
    fast = slow = torch.zeros(2, 3, dtype=torch.float64)
    wanted = []
    for t in range(6):
        fast = fast / 2 + 3 * x[t]
        slow = slow + 0.01 * fast
        wanted.append(fast - slow)
    output, state = scan(pair_step, x, None, MyParameters(gain=3.0), dt=0.01)
    torch.testing.assert_close(output, torch.stack(wanted))
    same(state, Pair(fast, slow), rtol=1e-12, atol=1e-12)


def test_a_step_of_ones_own_with_a_rest():
    gain, rest = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.7, 1.5))
    x = torch.randn(5, 2, 3, generator=generator(0), dtype=torch.float64)
    output, state = scan(rested_step, x, p=MyParameters(gain, rest))
    torch.testing.assert_close(output, 1.5 + torch.tanh(0.7 * x).cumsum(0))
    assert isinstance(state, Rested)
    by_gain, by_rest = torch.autograd.grad(output.sum(), (gain, rest))
    assert by_rest.item() == pytest.approx(output.numel())
    slope = (x / torch.cosh(0.7 * x) ** 2).cumsum(0).sum()
    assert by_gain.item() == pytest.approx(slope.item())


def test_a_recurrent_step_of_ones_own():
    x = torch.randn(6, 2, 3, generator=generator(0), dtype=torch.float64)
    weights = torch.randn(3, 3, generator=generator(1), dtype=torch.float64)
    output, state = scan(pair_step, x, recurrent_weights=weights)
    zero = torch.zeros(2, 3, dtype=torch.float64)
    wanted, z, final = recurrent_loop(pair_step, x, zero, Pair(zero, zero), weights, MyParameters(), 0.001)
    torch.testing.assert_close(output, wanted)
    assert state._fields == ("z", "fast", "slow")
    same(tuple(state), (z, *final), rtol=1e-12, atol=1e-12)


def test_a_step_without_annotation_is_refused():
    with pytest.raises(TypeError, match="state of no_annotation must be annotated with a NamedTuple"):
        scan(no_annotation, torch.ones(3, 1, 1))


# -- errors --------------------------------------------------------------------------------------------------

X = torch.ones(4, 2, 3)


def refused(message, *args, **options):
    with pytest.raises(ValueError, match=message):
        scan(*args, **options)


def test_an_unknown_backend_is_refused():
    refused("backend must be one of .*'auto'.*'reference'.* got 'abacus'", LIF.step, X, backend="abacus")


@pytest.mark.parametrize("dt", [0.0, -1.0, math.nan, math.inf])
def test_a_bad_dt_is_refused(dt):
    refused(f"dt must be .* got dt={dt}", LIF.step, X, dt=dt)


@pytest.mark.parametrize("bad", [-3.0, math.nan, math.inf, torch.tensor([1.0, -3.0, 2.0])])
def test_a_bad_rate_is_refused(bad):
    p = LIParameters(tau_syn_inv=bad)
    refused(rf"tau_syn_inv must be .*tau_syn_inv={re.escape(format(bad))}", li_feed_forward_step, X, p=p)


@pytest.mark.parametrize("shape", [(), (4,)], ids=str)
def test_an_input_without_time_and_batch_is_refused(shape):
    refused(rf"input must be \[T, B.* got shape {re.escape(str(list(shape)))}", LIF.step, torch.ones(shape))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_an_input_of_integers_is_refused(dtype):
    refused(f"input must be floating point, got dtype {dtype}", LIF.step, X.to(dtype))


def test_an_input_of_nan_is_refused_with_its_place():
    x = X.clone()
    x[0, 1, 2] = math.nan
    refused(r"input must not contain NaN.*\[0, 1, 2\]", LIF.step, x)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (2, 2), (3, 3, 3), (4, 4)], ids=str)
def test_recurrent_weights_of_a_wrong_shape_are_refused(shape):
    message = rf"recurrent_weights must be \[N, N\].* got {re.escape(str(list(shape)))} for \[4, 2, 3\]"
    refused(message, LIF.step, X, recurrent_weights=torch.ones(shape))


def test_recurrent_weights_of_maps_are_refused():
    message = r"recurrent_weights must be .* got \[3, 3\] for \[4, 2, 5, 3\]"
    refused(message, LIF.step, torch.ones(4, 2, 5, 3), recurrent_weights=torch.ones(3, 3))


@pytest.mark.parametrize("shape", [(4,), (3, 3), (2, 4), (1, 2, 3), (5, 2, 3)], ids=str)
@pytest.mark.parametrize("field", ["v", "i"])
def test_a_state_of_a_wrong_shape_is_refused(field, shape):
    state = LIFFeedForwardState(torch.zeros(2, 3), torch.zeros(2, 3))._replace(**{field: torch.zeros(shape)})
    refused(
        rf"state\.{field} must broadcast to \[2, 3\], got shape {re.escape(str(list(shape)))}",
        LIF.step,
        X,
        state,
    )


@pytest.mark.parametrize(
    "state",
    [
        (torch.zeros(2, 3), torch.zeros(2, 3)),
        torch.zeros(2, 3),
        LIState(torch.zeros(2, 3), torch.zeros(2, 3)),
    ],
    ids=["tuple", "tensor", "another neuron's"],
)
def test_a_state_of_another_kind_is_refused(state):
    """A value of a wrong type: the message says which state was wanted."""
    neuron = next(neuron for neuron in NEURONS if neuron.name == "lsnn")
    refused("state", neuron.step, X, state)


def test_a_state_without_z_is_refused_by_recurrent_weights():
    state = LIFFeedForwardState(torch.zeros(2, 3), torch.zeros(2, 3))
    refused("state", LIF.step, X, state, recurrent_weights=torch.ones(3, 3))


@pytest.mark.parametrize("shape", [(4,), (3, 3), (4, 1, 3), (5, 2, 3)], ids=str)
@pytest.mark.parametrize("name", ["tau_mem_inv", "v_th"])
def test_a_parameter_of_a_wrong_shape_is_refused(name, shape):
    """It must broadcast against one step's input, not widen it."""
    p = LIFParameters(**{name: torch.ones(shape)})
    refused(name, LIF.step, X, p=p)


@pytest.mark.parametrize(("field", "bad"), [("method", "nonsense"), ("alpha", -2.0), ("alpha", 0.0)])
def test_a_bad_method_or_alpha_is_refused(field, bad):
    refused(
        rf"{field}.*{field}={re.escape(repr(bad))}", lif_feed_forward_step, X, p=LIFParameters(**{field: bad})
    )
