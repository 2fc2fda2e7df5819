"""Every neuron as Cell, Layer, RecurrentCell and RecurrentLayer: what they compute, hold, learn and refuse."""

import copy
import math
import pickle
import re
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import snnlib
import snnlib.module
from snnlib import (
    LIF,
    Cell,
    Layer,
    LICell,
    LIFCell,
    LIFFeedForwardState,
    LIFParameters,
    LIFRecurrent,
    LIFRecurrentCell,
    LILinearCell,
    LIParameters,
    Neuron,
    RecurrentCell,
    RecurrentLayer,
    SequentialState,
    lif_feed_forward_step,
)
from tests.neurons import (
    NEURONS,
    SPIKING,
    draw_input,
    draw_parameters,
    draw_state,
    generator,
    loop,
    name_of,
    recurrent_loop,
    same,
)

# a surrogate that is felt far from the threshold, so that no gradient vanishes for want of a spike
LONG_TAILS = {"method": "arctan", "alpha": 0.5}
KINDS = ["cell", "layer", "recurrent_cell", "recurrent_layer"]
B, M, N = 2, 3, 4
# one time step for most tests, not the default: a backend may compile anew for each
DT = 0.0012


@pytest.fixture(autouse=True)
def _seed():
    """Modules draw their weights from the global generator."""
    torch.manual_seed(0)


every_neuron = pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
every_kind = pytest.mark.parametrize("kind", KINDS)


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


def build(neuron, kind, p, dt=DT, **options):
    """A module; layers run in the plain loop unless told otherwise: to compile each fused one takes seconds."""
    made = getattr(neuron, kind)
    if kind.endswith("layer"):
        options = {"backend": "reference", **options}
    if not kind.startswith("recurrent"):
        return made(p, dt, **options)
    # no input weight is negative, or a sum of both signs could be too small to make the neuron spike
    return made(M, N, p, dt, **{"input_weights": 0.2 + torch.rand(N, M), **options})


def learnable(neuron, shape=(N,), seed=0, dtype=torch.float32, **options):
    """Parameters whose every number learns."""
    options = {**LONG_TAILS, **options} if neuron.spikes else options
    p = draw_parameters(neuron, generator(seed), shape, dtype, **options)
    return p._replace(**{name: nn.Parameter(getattr(p, name)) for name in neuron.ranges})


def sample(neuron, kind, steps=15, dtype=torch.float32, seed=1):
    """An input that fits a module of that kind, big enough to make it spike behind its weights too."""
    width = M if kind.startswith("recurrent") else N
    x = draw_input(neuron, generator(seed), (steps, B, width), dtype)
    return x if kind.endswith("layer") else x[0]


def first_number(neuron):
    return next(iter(neuron.ranges))


def over_time(module, x, state=None):
    """A module of single steps, run by hand."""
    outputs = []
    for row in x:
        z, state = module(row, state)
        outputs.append(z)
    return torch.stack(outputs), state


def run(module, kind, x):
    return module(x) if kind.endswith("layer") else over_time(module, x)


@every_kind
@every_neuron
def test_it_says_whether_it_spikes(neuron, kind):
    assert build(neuron, kind, learnable(neuron)).spiking == neuron.spikes


# -- values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [False, True], ids=["at rest", "given state"])
@every_neuron
def test_layer_is_its_cell_step_by_step(neuron, given):
    """And both are the step: outputs, state, and the gradients to input and parameters."""
    p = learnable(neuron)
    x = sample(neuron, "layer").requires_grad_()
    state = draw_state(neuron, generator(5), (B, N), torch.float32) if given else None
    layer, cell = neuron.layer(p, DT), neuron.cell(p, DT)
    results = []
    start = state or type(cell.resting(x[0]))(*cell.resting(x[0]))
    for output, final in (layer(x, state), over_time(cell, x, state), loop(neuron.step, x, start, p, DT)):
        loss = output.sum() + sum((value * torch.arange(N)).sum() for value in final)
        leaves = [x, *(getattr(p, name) for name in neuron.ranges)]
        results.append((output, final, *torch.autograd.grad(loss, leaves, allow_unused=True)))
    # a backend has its own exp
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if "delta_T" in neuron.ranges else {}
    same(results[1][:2], results[0][:2], **tolerance)
    same(results[2][:2], results[0][:2], **tolerance)
    for other in results[1:]:
        for one, two in zip(other[2:], results[0][2:], strict=True):
            assert (one is None) == (two is None)
            if one is not None:
                torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


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


@every_kind
@every_neuron
def test_state_handed_on_between_chunks(neuron, kind):
    module = build(neuron, kind, draw_parameters(neuron, generator(3), (), torch.float32))
    x = sample(neuron, kind.replace("cell", "layer"), 12)
    whole = run(module, kind, x)
    state, parts = None, []
    for chunk in (x[:5], x[5:6], x[6:]):
        part, state = module(chunk, state) if kind.endswith("layer") else over_time(module, chunk, state)
        parts.append(part)
    same((torch.cat(parts), state), whole)


@every_neuron
def test_recurrent_states_have_the_public_type(neuron):
    """LIFRecurrent returns a LIFState, and so on; what has no class of its own gets one that is made."""
    for kind in ("recurrent_cell", "recurrent_layer"):
        module = build(neuron, kind, neuron.parameters())
        state = module(sample(neuron, kind))[1]
        assert state._fields == ("z", *neuron.state._fields)
        assert all(value.shape == (B, N) for value in state)
        if isinstance(neuron.recurrent_cell, type):
            assert type(state) is neuron.recurrent_state


@every_kind
@every_neuron
def test_maps_batches_and_times_of_any_size(neuron, kind):
    """T = 0 and 1, B = 0 and 1; and [B, C, H, W] where there are no weights."""
    module = build(neuron, kind, neuron.parameters())
    recurrent = kind.startswith("recurrent")
    for shape in [(0, M), (1, M), (5, M)] if recurrent else [(0, M), (1, M), (5,), (2, 3, 4, 5)]:
        wanted = (shape[0], N) if recurrent else shape
        for steps in (0, 1, 3) if kind.endswith("layer") else (None,):
            x = torch.ones(shape if steps is None else (steps, *shape))
            output, state = module(x)
            assert output.shape == (wanted if steps is None else (steps, *wanted))
            assert all(value.shape == wanted for value in state)


@pytest.mark.parametrize("kind", ["cell", "layer"])
@every_neuron
def test_half_precision(neuron, kind):
    """Output in the dtype of the input, state in float32, the numbers those of float32."""
    module = build(neuron, kind, draw_parameters(neuron, generator(3), (N,), torch.float32))
    x = sample(neuron, kind).bfloat16()
    output, state = module(x)
    wanted, final = module(x.float())
    assert output.dtype == torch.bfloat16
    same(output, wanted.bfloat16())
    same(state, final)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@every_kind
@every_neuron
def test_a_module_that_was_moved_to_another_dtype(neuron, kind, dtype):
    """``module.to(dtype)`` takes and gives values of that dtype, and integrates in float32 at least."""
    module = build(neuron, kind, learnable(neuron)).to(dtype)
    output, state = module(sample(neuron, kind).to(dtype))
    assert output.dtype == dtype
    assert output.isfinite().all()
    assert {value.dtype for value in state} == {torch.promote_types(dtype, torch.float32)}


@every_kind
def test_output_has_the_dtype_of_the_input(kind):
    """Also where a parameter has more digits, in Cell and Layer alike."""
    p = LIFParameters(tau_mem_inv=torch.full((N,), 90.0, dtype=torch.float64))
    neuron = next(neuron for neuron in NEURONS if neuron.name == "lif")
    module = build(neuron, kind, p)
    for dtype in (torch.float32,) if kind.startswith("recurrent") else (torch.float32, torch.bfloat16):
        output, _ = run(module, kind, sample(neuron, kind.replace("cell", "layer")).to(dtype))
        assert output.dtype == dtype


@every_neuron
def test_autocast_around_a_network(neuron):
    """A Linear gives bfloat16 there; the neuron integrates in float32 and stays finite, and learns."""
    net = SequentialState(nn.Linear(N, N), neuron.layer(learnable(neuron), DT), nn.Linear(N, 2))
    x = sample(neuron, "layer")
    with torch.autocast("cpu", torch.bfloat16):
        output, state = net(x)
    assert output.dtype == torch.bfloat16
    assert output.isfinite().all()
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in state[1])
    output.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters() if parameter.grad is not None)
    assert net[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("kind", ["recurrent_cell", "recurrent_layer"])
@every_neuron
def test_autocast_around_a_recurrent_neuron(neuron, kind):
    module = build(neuron, kind, neuron.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        output, state = module(sample(neuron, kind))
        output, state = module(sample(neuron, kind), state)
    assert output.isfinite().all()
    assert all(value.dtype == torch.float32 for value in state[1:])


# -- autapses ------------------------------------------------------------------------------------------------


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


# -- what a module holds -------------------------------------------------------------------------------------


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


# -- compilers -----------------------------------------------------------------------------------------------


# the recurrent cells differ from the cells in one product, the same for all
@pytest.mark.parametrize(
    ("neuron", "kind"),
    [(neuron, "cell") for neuron in NEURONS]
    + [(neuron, "recurrent_cell") for neuron in NEURONS if neuron.name in ("lsnn", "iaf")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_cell_compiles_without_a_graph_break(neuron, kind):
    """At rest and with a state, forward and backward; all equals the module that is not compiled."""
    torch._dynamo.reset()
    name = first_number(neuron)
    value = nn.Parameter(torch.full((N,), getattr(neuron.parameters(), name)))
    module = build(neuron, kind, neuron.parameters(**{name: value}))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = sample(neuron, kind.replace("cell", "layer"), 8)
    results = []
    for each in (module, compiled):
        module.zero_grad()
        output, state = over_time(each, x)
        (output.sum() + sum(value.sum() for value in state)).backward()
        results.append((output, state, [parameter.grad for parameter in module.parameters()]))
    same(results[1], results[0], rtol=1e-5, atol=1e-5)


# -- LILinearCell --------------------------------------------------------------------------------------------


def test_li_linear_cell_is_a_linear_layer_before_the_cell():
    cell, plain = (
        LILinearCell(M, N, LIParameters(tau_mem_inv=80.0), 0.002),
        LICell(LIParameters(tau_mem_inv=80.0), 0.002),
    )
    assert {name: tuple(value.shape) for name, value in cell.named_parameters()} == {"linear.weight": (N, M)}
    x = torch.randn(5, B, M, generator=generator(0))
    output, state = over_time(cell, x)
    assert output.shape == (5, B, N)
    wanted = over_time(plain, torch.einsum("nm,tbm->tbn", cell.linear.weight, x))
    same((output, state), wanted, rtol=1e-5, atol=1e-6)


# -- neurons of one's own ------------------------------------------------------------------------------------


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


def test_a_parameter_of_ones_own_learns():
    layer = Layer(my_step, MyParameters(nn.Parameter(torch.tensor(0.5))))
    assert [name for name, _ in layer.named_parameters()] == ["keep"]
    output, _ = layer(torch.ones(3, 1, 1))
    output[-1].sum().backward()
    assert layer.keep.grad.item() == pytest.approx(1 + 2 * 0.5)  # of keep^2 + keep + 1


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


# -- names ---------------------------------------------------------------------------------------------------


@every_kind
@every_neuron
def test_modules_are_public(neuron, kind):
    made = getattr(neuron, kind)
    if not isinstance(made, type):  # no class of its own: RecurrentCell and RecurrentLayer of its step
        made = made.func
    for home in (snnlib, snnlib.module):
        assert getattr(home, made.__name__) is made
        assert made.__name__ in home.__all__
    assert issubclass(made, Neuron)
    assert made.over_time is kind.endswith("layer")
    assert made.__doc__


# -- errors --------------------------------------------------------------------------------------------------


@every_kind
@every_neuron
def test_a_bad_number_is_refused_when_the_module_is_made(neuron, kind):
    for dt in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"dt={dt}"):
            build(neuron, kind, neuron.parameters(), dt=dt)
    for name in neuron.ranges:
        if name.startswith("tau_"):
            with pytest.raises(ValueError, match=rf"{name}=-5\.0"):
                build(neuron, kind, neuron.parameters(**{name: -5.0}))


@every_kind
@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_a_bad_method_is_refused_when_the_module_is_made(neuron, kind):
    with pytest.raises(ValueError, match="method='nonsense'"):
        build(neuron, kind, neuron.parameters(method="nonsense"))
    with pytest.raises(ValueError, match=r"alpha=-2\.5"):
        build(neuron, kind, neuron.parameters(alpha=-2.5))


@every_kind
@every_neuron
def test_a_bad_input_is_refused(neuron, kind):
    module = build(neuron, kind, neuron.parameters())
    x = sample(neuron, kind)
    with pytest.raises(ValueError, match=r"input must be floating point, got dtype torch\.int64"):
        module(x.long())
    x.view(-1)[0] = math.nan
    place = [0] * x.dim()
    with pytest.raises(
        ValueError, match=rf"input must not contain NaN, got nan at index {re.escape(str(place))}"
    ):
        module(x)


@pytest.mark.parametrize("made", [LIFRecurrent, LIFRecurrentCell])
@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [("input_weights", (M, N), (N, M)), ("recurrent_weights", (N, M), (N, N)), ("input_weights", (N,), (N, M))],
)
def test_weights_of_a_wrong_shape_are_refused(made, name, shape, wanted):
    message = rf"{name} must be {re.escape(str(list(wanted)))}, got shape {re.escape(str(list(shape)))}"
    with pytest.raises(ValueError, match=message):
        made(M, N, **{name: torch.ones(shape)})


def test_an_input_without_a_batch_is_refused_by_a_layer():
    with pytest.raises(ValueError, match=r"input must be \[T, B, \*features\], got shape \[5\]"):
        LIF()(torch.ones(5))


def test_a_state_of_a_wrong_shape_is_refused_by_a_layer():
    state = LIFFeedForwardState(torch.zeros(B, 7), torch.zeros(B, N))
    with pytest.raises(ValueError, match=r"state\.v must broadcast to \[2, 4\], got shape \[2, 7\]"):
        LIF()(torch.ones(3, B, N), state)


def test_a_bad_backend_is_refused():
    with pytest.raises(ValueError, match=r"backend must be .* got 'abacus'"):
        LIF(backend="abacus")(torch.ones(3, B, N))
    with pytest.raises(ValueError, match=r"backend must be .* got 'abacus'"):
        LIFRecurrent(M, N, backend="abacus")(torch.ones(3, B, M))


def test_a_cell_names_no_backend():
    """One step has none: a cell that took it would hide that it is not used."""
    with pytest.raises(TypeError):
        LIFCell(backend="reference")
    with pytest.raises(TypeError):
        LIFRecurrentCell(M, N, backend="reference")


def test_layer_calls_its_step_with_the_state_by_name():
    """A step that is handed over as it is, not copied: it can be found again."""
    layer = Layer(lif_feed_forward_step)
    assert layer.step is lif_feed_forward_step
    assert layer.p == LIFParameters()
    assert layer.state is LIFFeedForwardState


@pytest.mark.parametrize("recurrent", [False, True])
def test_recorded_states_are_those_of_every_step(recurrent: bool):
    """The outputs and their gradients stay; the state of a step is that with which a shorter sequence ends."""
    x = (3 * torch.rand(9, B, M)).requires_grad_()
    p = LIFParameters(v_th=0.3, **LONG_TAILS)
    kind, sizes = (LIFRecurrent, (M, N)) if recurrent else (LIF, ())
    plain, recording = kind(*sizes, p), kind(*sizes, p, record_states=True)
    recording.load_state_dict(plain.state_dict())
    expected, last = plain(x)
    output, states = recording(x)
    same(output, expected)
    assert type(states) is type(last)
    for t in (0, 4, 8):
        for name, value in plain(x[: t + 1])[1]._asdict().items():
            same(getattr(states, name)[t], value)
    weight = torch.rand_like(output)
    gradients = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (output, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    assert gradients[0].abs().sum() > 0
    assert recording(x[:0])[1].v.shape == (0, *last.v.shape)


def test_recorded_steps_of_the_adjoint_have_no_gradients():
    p = LIFParameters(v_th=0.3, method="adjoint")
    x = 3 * torch.rand(9, B, M)
    layer = LIF(p, record_states=True)
    with pytest.raises(RuntimeError, match="record_states=True runs single steps"):
        layer(x)
    with torch.no_grad():
        output, states = layer(x)
        expected, last = LIF(p)(x)
    same(output, expected)
    same(states.v[-1], last.v)
