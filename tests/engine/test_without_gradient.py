"""Steps of which some results have no gradient: the fused loops say so as the plain loop does."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from snnlib import Layer, RecurrentLayer, lif_feed_forward_step
from snnlib.engine import scan
from snnlib.engine.step import recurrent_state_type
from tests.engine.equality import FUSED_BACKENDS, device_of
from tests.neurons import generator


class State(NamedTuple):
    v: Tensor
    seen: Tensor


def hard_step(input: Tensor, state: State, p: Any = None, dt: float = 1.0):
    """A threshold without a surrogate."""
    v = 0.9 * state.v + input
    z = (v > 1).to(v.dtype)
    return z, State(v - z, (state.seen + v).detach())


def cut_step(input: Tensor, state: State, p: Any = None, dt: float = 1.0):
    z, new = hard_step(input, state)
    return z, State(new.v.detach(), new.seen)


def late_step(input: Tensor, state: State, p: Any = None, dt: float = 1.0):
    """Its output has a gradient by way of the state alone."""
    return state.v, State(0.9 * state.v + input, state.seen)


def have(values: Any) -> list[bool]:
    return [value.requires_grad for value in values]


@pytest.mark.parametrize("backend", [*FUSED_BACKENDS, "reference"])
@pytest.mark.parametrize(
    ("step", "wanted"),
    [(hard_step, [False, True, False]), (cut_step, [False] * 3), (lif_feed_forward_step, None)],
)
def test_results_have_a_gradient_or_none(step: Any, wanted: list[bool] | None, backend: str):
    x = 2 * torch.rand(7, 2, 3, generator=generator(0)).to(device_of(backend))
    output, state = Layer(step, backend=backend)(x.requires_grad_())
    expected, last = Layer(step, backend="reference")(x)
    assert have([output, *state]) == (wanted or have([expected, *last]))
    if wanted is not None:
        with pytest.raises(RuntimeError, match="does not require grad"):
            output.sum().backward()
    else:
        assert output.requires_grad

    torch.manual_seed(0)
    layer = RecurrentLayer(step, 3, 4, backend=backend).to(x.device)
    output, state = layer(x)
    if wanted is not None:
        assert have([output, *state]) == [False, *wanted]
        if state.v.requires_grad:
            state.v.sum().backward()
            assert layer.recurrent_weights.grad.abs().sum() > 0
            assert layer.input_weights.grad.abs().sum() > 0


@pytest.mark.parametrize("backend", [*FUSED_BACKENDS, "reference"])
@pytest.mark.parametrize("recurrent", [False, True], ids=["", "recurrent"])
def test_without_a_step_the_last_state_is_the_first(recurrent: bool, backend: str):
    weights = torch.eye(3, device=device_of(backend)) if recurrent else None
    first = torch.rand(3 if recurrent else 2, 2, 3, device=device_of(backend), requires_grad=True)
    kind: Any = recurrent_state_type(hard_step) if recurrent else State
    state = kind(*first.unbind())
    x = torch.rand(0, 2, 3, device=first.device)
    _, last = scan(hard_step, x, state, dt=1.0, recurrent_weights=weights, backend=backend)
    (found,) = torch.autograd.grad(sum(k * value.sum() for k, value in enumerate(last, 1)), first)
    assert [row.unique().tolist() for row in found] == [[float(k + 1)] for k in range(len(last))]


def test_a_gradient_by_way_of_a_state_is_one():
    x = torch.rand(7, 2, 3, generator=generator(0)).requires_grad_()
    found = [torch.autograd.grad(Layer(late_step, backend=b)(x)[0].sum(), x)[0] for b in ("cpu", "reference")]
    torch.testing.assert_close(*found)
    assert found[0].abs().sum() > 0


@pytest.mark.usefixtures("fresh_compiler")
def test_torch_compile_knows_it_too():
    layer = Layer(hard_step)
    x = torch.rand(7, 2, 3, generator=generator(0)).requires_grad_()
    output, state = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    assert have([output, state.v]) == [False, True]
