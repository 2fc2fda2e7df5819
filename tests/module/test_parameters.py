"""What a module of a neuron holds, learned or not, and how that is moved, copied, loaded and trained."""

import copy
import pickle
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import snnlib
from snnlib import LIF, LIFParameters, LIParameters
from tests.module.kinds import M, N, build, every_kind, every_neuron, first_number, learnable, run, sample
from tests.neurons import draw_parameters, generator, same

pytestmark = pytest.mark.usefixtures("seeded")


@every_kind
@every_neuron
def test_parameters_that_learn_are_registered(neuron, kind):
    """By the names that they have in p: in parameters(), in the state_dict, and they get gradients."""
    module = build(neuron, kind, learnable(neuron))
    weights = {"input_weights", "recurrent_weights"} if kind.startswith("recurrent") else set()
    assert {name for name, _ in module.named_parameters()} == set(neuron.ranges) | weights
    assert set(module.state_dict()) == set(neuron.ranges) | weights
    output, state = run(module, kind, sample(neuron, kind.replace("cell", "layer"), 30))
    (output.sum() + sum(value.sum() for value in state)).backward()
    for name in neuron.ranges:
        gradient = getattr(module, name).grad
        assert gradient is not None, name
        assert gradient.shape == (N,)
        assert gradient.abs().max() > 0, name


@every_kind
@every_neuron
def test_tensors_that_do_not_learn_are_buffers(neuron, kind):
    p = draw_parameters(neuron, generator(0), (N,), torch.float32)
    module = build(neuron, kind, p)
    assert set(neuron.ranges) <= {name for name, _ in module.named_buffers()}
    assert set(neuron.ranges) <= set(module.state_dict())
    assert not set(neuron.ranges) & {name for name, _ in module.named_parameters()}
    assert all(getattr(module.double().p, name).dtype == torch.float64 for name in neuron.ranges)


@every_kind
@every_neuron
def test_numbers_are_not_registered(neuron, kind):
    module = build(neuron, kind, neuron.parameters())
    assert not set(neuron.ranges) & set(module.state_dict())
    assert module.p == neuron.parameters()


@every_kind
@every_neuron
def test_to_moves_what_is_registered(neuron, kind):
    module = build(neuron, kind, learnable(neuron))
    module.to(torch.float64)
    assert all(getattr(module.p, name).dtype == torch.float64 for name in neuron.ranges)
    output, state = module(sample(neuron, kind, dtype=torch.float64))
    assert output.dtype == torch.float64
    module.to("meta")
    assert all(getattr(module.p, name).is_meta for name in neuron.ranges)
    output, state = module(sample(neuron, kind, dtype=torch.float64).to("meta"))
    assert output.is_meta
    assert all(value.is_meta for value in state)


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["copy", "pickle"]
)
@every_kind
@every_neuron
def test_copies_are_independent(neuron, kind, how):
    """A copy gives the same output; training it changes the copy's output, never the first one's."""
    module = build(neuron, kind, learnable(neuron))
    x = sample(neuron, kind.replace("cell", "layer"))
    before = [
        (output.detach(), [value.detach() for value in state]) for output, state in [run(module, kind, x)]
    ]
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    other = how(module)
    assert type(other) is type(module)
    after = run(other, kind, x)
    same((after[0].detach(), [value.detach() for value in after[1]]), before[0])
    optimiser = torch.optim.SGD(other.parameters(), lr=0.1)
    (after[0].sum() + after[1].v.square().sum()).backward()
    optimiser.step()
    changed = run(other, kind, x)
    assert not torch.equal(changed[1].v, before[0][1][list(after[1]._fields).index("v")])
    again = run(module, kind, x)
    same((again[0].detach(), [value.detach() for value in again[1]]), before[0])
    same(list(module.state_dict().values()), list(kept.values()))


@every_kind
@every_neuron
def test_load_state_dict(neuron, kind):
    """Another module with the same shapes becomes the same module; a missing or unknown name is told."""
    first, second = (build(neuron, kind, learnable(neuron, seed=seed)) for seed in (0, 9))
    x = sample(neuron, kind.replace("cell", "layer"))
    one, other = run(first, kind, x), run(second, kind, x)
    assert not torch.equal(one[1].v, other[1].v)
    second.load_state_dict(first.state_dict())
    same(run(second, kind, x), one)
    name = first_number(neuron)
    with pytest.raises(RuntimeError, match=name):
        second.load_state_dict({k: v for k, v in first.state_dict().items() if k != name})


def test_training_learns_a_time_constant():
    """Descent on the membrane of a leaky integrator finds the time constant that made the target."""
    x = torch.rand(40, 8, 2)
    target = snnlib.LI(LIParameters(tau_mem_inv=160.0))(x)[0]
    layer = snnlib.LI(LIParameters(tau_mem_inv=nn.Parameter(torch.tensor(80.0))))
    optimiser = torch.optim.Adam(layer.parameters(), lr=4.0)
    for _ in range(120):
        optimiser.zero_grad()
        (layer(x)[0] - target).square().mean().backward()
        optimiser.step()
    assert layer.tau_mem_inv.item() == pytest.approx(160.0, abs=3.0)


@every_kind
@every_neuron
def test_repr_shows_the_parameters(neuron, kind):
    """Numbers as they are, tensors by their shape, and the time step."""
    name = first_number(neuron)
    text = repr(build(neuron, kind, neuron.parameters(**{name: torch.ones(N)}), dt=0.0025))
    assert f"{name}=({N},)" in text
    assert "dt=0.0025" in text
    for other in list(neuron.ranges)[1:]:
        assert f"{other}={getattr(neuron.parameters(), other)}" in text
    if kind.startswith("recurrent"):
        assert f"{M}, {N}" in text
        assert "autapses=False" in text


@every_kind
@every_neuron
def test_functional_call(neuron, kind):
    """Parameters handed in from outside, as torch.func wants them, with their gradients."""
    module = build(neuron, kind, learnable(neuron))
    x = sample(neuron, kind)
    values = {name: value.detach() for name, value in module.named_parameters()}

    def loss(values):
        output, state = torch.func.functional_call(module, values, (x,))
        return output.sum() + state.v.square().sum()

    output, state = module(x)
    (output.sum() + state.v.square().sum()).backward()
    found = torch.func.grad(loss)(values)
    seen = False
    for name, parameter in module.named_parameters():
        wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        # torch.func takes the plain loop, backward the fused one: they sum over neurons in another order
        torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-5)
        seen = seen or bool(wanted.any())
    assert seen


def test_one_value_a_map_is_a_column_of_the_shape():
    """As docs/neurons.md says: [C, 1, 1]; [C] is one value for each column of pixels."""
    th = torch.tensor([0.5, 100.0, 0.5])
    x = 2 * torch.rand(30, 2, 3, 4, 3)
    maps, _ = LIF(LIFParameters(v_th=th[:, None, None]))(x)
    columns, _ = LIF(LIFParameters(v_th=th))(x)
    assert (
        (maps.sum((0, 1, 3, 4)) > 0).tolist() == (columns.sum((0, 1, 2, 3)) > 0).tolist() == [True, False, True]
    )
    with pytest.raises(ValueError, match=r"p\.v_th must broadcast to \[2, 3, 4, 4\], got shape \[3\]"):
        LIF(LIFParameters(v_th=th))(2 * torch.rand(30, 2, 3, 4, 4))


def test_alpha_gets_no_gradient():
    alpha = torch.nn.Parameter(torch.tensor(5.0))
    x = (2 * torch.rand(20, 2, 4)).requires_grad_()
    LIF(LIFParameters(alpha=alpha))(x)[0].sum().backward()
    assert x.grad.any()
    assert alpha.grad is None or not alpha.grad.any()


class Nested(NamedTuple):
    inner: Any = LIParameters()


def nested_step(input: torch.Tensor, state: snnlib.LIBoxState, p: Nested = Nested(), dt: float = 0.001):
    return input, state


def test_a_tensor_within_a_field_is_refused():
    """It would not be registered: neither trained, nor moved, nor saved."""
    tensor = nn.Parameter(torch.tensor(100.0))
    for inner in (LIParameters(tau_mem_inv=tensor), [1.0, tensor], {"a": (tensor,)}):
        message = rf"p\.inner is a {type(inner).__name__} that holds a tensor, .* make the tensor a field of p"
        with pytest.raises(ValueError, match=message):
            snnlib.Layer(nested_step, Nested(inner))
        layer = snnlib.Layer(nested_step)
        with pytest.raises(ValueError, match=message):
            layer.p = Nested(inner)
    assert snnlib.Layer(nested_step, Nested([0.5, LIParameters()])).p.inner[0] == 0.5


def test_no_tensor_is_searched_for_within_numbers_and_text(monkeypatch):
    """Nearly all parameters are these, and to assign them between two calls is to be cheap."""
    monkeypatch.setattr("snnlib.module.parameters.tree_leaves", None)
    layer = LIF(LIFParameters(v_th=torch.ones(3)))
    layer.p = layer.p._replace(v_leak=0.1, method="tanh", alpha=1)
    assert layer.p.method == "tanh"
