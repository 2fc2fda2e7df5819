"""Every neuron as Cell, Layer, RecurrentCell and RecurrentLayer: what they compute."""

import pytest
import torch
from torch import nn

import snnlib
import snnlib.module
from snnlib import (
    LIF,
    Layer,
    LICell,
    LIFFeedForwardState,
    LIFParameters,
    LIFRecurrent,
    LILinearCell,
    LIParameters,
    Neuron,
    SequentialState,
    lif_feed_forward_step,
)
from tests.module.kinds import (
    DT,
    LONG_TAILS,
    B,
    M,
    N,
    build,
    every_kind,
    every_neuron,
    first_number,
    learnable,
    over_time,
    run,
    sample,
)
from tests.neurons import NEURONS, draw_parameters, draw_state, generator, loop, same

pytestmark = pytest.mark.usefixtures("seeded")


@every_kind
@every_neuron
def test_it_says_whether_it_spikes(neuron, kind):
    assert build(neuron, kind, learnable(neuron)).spiking == neuron.spikes


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


@every_kind
@every_neuron
def test_a_state_may_be_numbers(neuron, kind):
    module, x = build(neuron, kind, neuron.parameters()), sample(neuron, kind)
    kept = module(x)[1]
    numbers, tensors = (type(kept)(*[value] * len(kept)) for value in (0.25, torch.full((B, N), 0.25)))
    same(module(x, numbers), module(x, tensors))


@every_kind
@every_neuron
def test_tangents_are_the_gradients_seen_from_the_other_side(neuron, kind):
    """The slope along a change of input, parameters and weights is its product with the gradient."""
    module = build(neuron, kind, learnable(neuron, dtype=torch.float64)).double()
    values = {"x": sample(neuron, kind, dtype=torch.float64), **dict(module.named_parameters())}
    values = {name: value.detach().requires_grad_() for name, value in values.items()}

    def weighted(values):
        weights = {name: value for name, value in values.items() if name != "x"}
        output = torch.func.functional_call(module, weights, (values["x"],))[0]
        return output * torch.linspace(-1, 2, output.numel(), dtype=torch.float64).view_as(output)

    along = {
        name: value.detach() * torch.rand(value.shape, generator=generator(2)) for name, value in values.items()
    }
    gradients = torch.autograd.grad(weighted(values).sum(), list(values.values()), materialize_grads=True)
    wanted = sum((a * g).sum() for a, g in zip(along.values(), gradients, strict=True))
    output, tangent = torch.func.jvp(weighted, (values,), (along,))
    torch.testing.assert_close(output, weighted(values))
    torch.testing.assert_close(tangent.sum(), wanted)
    assert wanted != 0
