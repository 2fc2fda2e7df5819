"""The one door of the engine: values over time against a loop, for every shape, layout and cut."""

import itertools
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import snnlib
from snnlib import LIFFeedForwardState, LIFParameters, LIFState, lif_feed_forward_step
from snnlib.engine import scan
from snnlib.engine.step import recurrent_state_type
from tests.engine.cases import DT, LIF, SOME, case, weights_for
from tests.engine.equality import FUSED_BACKENDS, device_of, moved
from tests.neurons import NEURONS, draw_input, draw_state, generator, loop, name_of, same


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


def test_the_input_is_left_alone():
    p, state, x = case(LIF, 11)
    before = x.clone(), type(state)(*(value.clone() for value in state))
    scan(LIF.step, x, state, p, recurrent_weights=None)
    same((x, state), before)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("method", ["super", "adjoint"])
@pytest.mark.parametrize("recurrent", [False, True], ids=["", "recurrent"])
def test_a_state_may_have_numbers(backend: str, method: str, recurrent: bool):
    """As ``LIFFeedForwardState.initial(p)`` has."""
    device = device_of(backend)
    x = 3 * torch.rand(12, 2, 40, generator=generator(3)).to(device)
    weights = torch.full((40, 40), 0.02, device=device) if recurrent else None
    kind = LIFState if recurrent else LIFFeedForwardState
    given = kind(*[0.0] * recurrent, v=torch.full((2, 40), 0.1, device=device), i=0.2)
    whole = kind(*(torch.as_tensor(value).to(x).expand(2, 40) for value in given))
    p = LIFParameters(method=method)
    results = []
    for state in (given, whole):
        leaf = x.clone().requires_grad_()
        z, last = scan(lif_feed_forward_step, leaf, state, p, recurrent_weights=weights, backend=backend)
        assert [value.shape for value in last] == [(2, 40)] * len(kind._fields)
        results.append((z, *last, *torch.autograd.grad(z.sum(), leaf)))
    assert results[0][0].sum() > 10
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


def test_a_state_that_was_returned_is_nobody_elses():
    """Though neurons at rest share one number's memory, to which torch lets ``fill_`` write."""
    layer = snnlib.LIF(backend="reference")
    _, state = layer(torch.randn(0, 2, 3))
    state.v.fill_(0.5)
    assert not snnlib.LIF()(torch.zeros(0, 4, 4))[1].v.any()


class Rested(NamedTuple):
    v: Tensor

    @classmethod
    def initial(cls, p: Any) -> "Rested":
        return cls(p.rest)


class Rest(NamedTuple):
    rest: float | Tensor = 0.0
    method: str = "super"
    alpha: float | None = None


def by_mask(v: Tensor, input: Tensor) -> None:
    v[input > 0.5] = -65.0


WRITERS = {
    "mask": by_mask,
    "masked_fill_": lambda v, input: v.masked_fill_(input > 0.5, -65.0),
    "fill_": lambda v, input: v.fill_(-65.0),
    "sub_": lambda v, input: v.sub_(65.0 * (input > 0.5)),
}


@pytest.mark.parametrize("method", ["super", "adjoint"])
@pytest.mark.parametrize("rest", ["number", "parameter", "given", "cell", "cell given", "cell parameter"])
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.filterwarnings("ignore")
def test_a_step_may_write_to_its_state_and_nobody_else_sees_it(writer: str, rest: str, method: str):
    """At rest it is one number's memory for all neurons, or a parameter's, and else it is the caller's."""

    def writing_step(input: Tensor, state: Rested, p: Rest = Rest(), dt: float = 0.001):
        WRITERS[writer](state.v, input)
        v = state.v + input
        return snnlib.spike(v - 1.0, p.method, p.alpha), Rested(v)

    held = torch.zeros(2, 3)
    p = Rest(held if "parameter" in rest else 0.0, "super" if "cell" in rest else method)
    if (writer, p.method) == ("fill_", "adjoint"):
        pytest.skip("the adjoint refuses a step that moves without time and input")
    state = {"given": Rested(held), "cell given": Rested(torch.zeros(()))}.get(rest)
    if "cell" in rest:
        _, last = snnlib.Cell(writing_step, p)(torch.ones(2, 3), state)
    else:
        _, last = scan(writing_step, torch.ones(1, 2, 3), state, p)
    assert torch.equal(last.v, torch.full((2, 3), -64.0))
    assert not held.any()
    assert not snnlib.LI()(torch.zeros(1, 2, 3))[0].any()


class Handed(NamedTuple):
    v: Tensor
    last: Tensor
    again: Tensor
    number: Tensor


def handing_step(input: Tensor, state: Handed, p: Any = None, dt: float = 0.001):
    """What it returns is the caller's, or one tensor twice, or no tensor; and it reads all of it as tensors."""
    return state.v + input + state.number.abs(), Handed(state.v, input, input, 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("recurrent", [False, True], ids=["", "recurrent"])
def test_a_state_shares_no_memory_and_is_in_tensors(backend: str, recurrent: bool):
    for name in ("reference", backend):
        x, first = torch.ones(3, 1, 2, device=device_of(name)), torch.ones(1, 2, device=device_of(name))
        weights = torch.eye(2, device=x.device) if recurrent else None
        kind = recurrent_state_type(handing_step) if recurrent else Handed
        state = kind(*[first.clone() for _ in kind._fields])
        output, last = scan(handing_step, x, state, recurrent_weights=weights, backend=name)
        assert [value.shape for value in last] == [(1, 2)] * len(kind._fields)
        assert last.number.tolist() == [[0.5, 0.5]]
        tensors = [x, *state, output, *last]
        assert len({value.untyped_storage().data_ptr() for value in tensors}) == len(tensors)


@pytest.mark.parametrize("method", ["super", "adjoint"])
def test_no_step_has_a_graph_too(backend: str, method: str):
    for name in ("reference", backend):
        x = torch.randn(0, 2, 3, device=device_of(name), requires_grad=True)
        z, _ = scan(lif_feed_forward_step, x, p=LIFParameters(method=method), backend=name)
        z.sum().backward()
        assert x.grad.shape == (0, 2, 3)
