"""What modules of neurons refuse: numbers, methods, inputs, weights, states and backends that are none."""

import math
import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch

from snnlib import (
    LI,
    LIF,
    Cell,
    ConvNet,
    Layer,
    LIFCell,
    LIFFeedForwardState,
    LIFParameters,
    LIFRecurrent,
    LIFRecurrentCell,
    LIFRefracParameters,
    Lift,
    LIParameters,
    LSNNParameters,
    RecurrentCell,
    RecurrentLayer,
    ResNet,
    SequentialState,
    SpikingPolicy,
    lif_feed_forward_step,
    scan,
    spike_slopes,
    state_over_time,
)
from snnlib.engine.check import NaNInputError
from snnlib.module.resnet import Residual
from tests.module.kinds import B, M, N, build, every_kind, every_neuron, sample
from tests.neurons import NEURONS, SPIKING, name_of

pytestmark = pytest.mark.usefixtures("seeded")


@every_kind
@every_neuron
def test_a_bad_number_is_refused_when_the_module_is_made(neuron, kind):
    for dt in (0.0, -1.0, math.nan, "1", [0.001], torch.tensor(0.001)):
        with pytest.raises(ValueError, match=rf"dt must be .* got dt={re.escape(repr(dt))}"):
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


@every_kind
@pytest.mark.parametrize("shape", [(B, 7), (B + 1, N)], ids=str)
def test_a_state_of_a_wrong_shape_is_refused(kind, shape):
    (lif,) = (neuron for neuron in NEURONS if neuron.name == "lif")
    module, x = build(lif, kind, LIFParameters()), sample(lif, kind)
    right = module(x)[1]
    with pytest.raises(
        ValueError, match=rf"state\.v must broadcast to \[2, 4\], got shape {re.escape(str(list(shape)))}"
    ):
        module(x, right._replace(v=torch.zeros(shape)))


@pytest.mark.parametrize("made", [LIF, partial(LIFRecurrent, M, N), partial(Layer, lif_feed_forward_step)])
def test_a_bad_backend_is_refused_when_the_layer_is_made(made):
    for backend in ("abacus", "cuda", None):
        with pytest.raises(ValueError, match=rf"backend must be one of \['auto', .*'gpu'\], got {backend!r}"):
            made(backend=backend)


def test_a_cell_names_no_backend():
    """One step has none: a cell that took it would hide that it is not used."""
    with pytest.raises(TypeError):
        LIFCell(backend="reference")
    with pytest.raises(TypeError):
        LIFRecurrentCell(M, N, backend="reference")


@pytest.mark.parametrize(("p", "says"), [
    (64, r"p must be LIFParameters\(\.\.\.\), got 64; there are as many neurons as the input has features"),
    ({"v_th": 1.0}, "p must be LIFParameters"),
    (LIParameters(), "p must have the fields of LIFParameters, LIParameters has no v_th"),
    (LIFRefracParameters(), r"p must be LIFParameters\(...\): LIFRefracParameters has rho_reset too, "),
    (LSNNParameters(), "LSNNParameters has tau_adapt_inv, beta too"),
    (LIFParameters(alpha="a"), "alpha must be a positive number, got alpha='a'"),
    (LIFParameters(v_th="1"), "p.v_th must be a number or a tensor, got '1'"),
    (LIFParameters(v_th=[1.0]), r"p.v_th must be a number or a tensor, got \[1.0\]"),
    (LIFParameters(v_reset=math.nan), "p.v_reset must be a number, got nan"),
])  # fmt: skip
def test_what_are_no_parameters_is_refused(p, says):
    for made in (LIF, LIFCell, partial(LIFRecurrent, 3, 4), partial(LIFRecurrentCell, 3, 4)):
        with pytest.raises(ValueError, match=says):
            made(p)


def test_parameters_of_a_neuron_that_has_more_are_refused_where_they_would_not_be_read():
    for made in (LI, partial(SpikingPolicy, 4, 8, 2)):
        p = LIFParameters() if made is LI else LIFRefracParameters(rho_reset=0.01)
        with pytest.raises(ValueError, match="too, which nothing here would read"):
            made(p)


def test_numbers_of_numpy_are_numbers():
    assert LIF(LIFParameters(v_th=np.float32(0.5))).p.v_th == 0.5


@pytest.mark.parametrize(
    "sizes", [(LIFParameters(), 4), (3, LIFParameters()), (3, None), (3.0, 4), (3, True), (-1, 4)], ids=str
)
def test_what_are_no_sizes_is_refused(sizes):
    with pytest.raises(ValueError, match=r"_size must be an integer of at least 0, got .*_size="):
        LIFRecurrent(*sizes)


def test_sizes_may_be_numpys_and_none_at_all():
    assert LIFRecurrent(np.int64(3), np.int64(N))(torch.ones(2, B, 3))[0].shape == (2, B, N)
    assert LIFRecurrent(0, 0)(torch.ones(2, B, 0))[0].shape == (2, B, 0)


@pytest.mark.parametrize("rate", [2500.0, torch.tensor([100.0, 2500.0])], ids=["number", "tensor"])
def test_a_rate_that_is_too_fast_for_the_step_is_warned_of(rate, recwarn):
    LIF(LIFParameters(tau_mem_inv=2000.0))
    assert not recwarn
    with pytest.warns(UserWarning, match="tau_mem_inv=2500/s is too fast for steps of dt=0.001 s"):
        layer = LIF(LIFParameters(tau_mem_inv=rate, v_th=math.inf))
    _, state = layer(torch.ones(60, 1, 2))
    assert state.v.abs().max() > 1e6


@pytest.mark.parametrize("make", [LIF, LIFCell, partial(LIFRecurrent, 2, 2), partial(LIFRecurrentCell, 2, 2)])
@pytest.mark.parametrize("rates", [(2500.0, 2600.0), (2700.0, 2700.0)])
def test_a_rate_that_becomes_too_fast_in_training_is_warned_of_once(make, rates):
    p = LIFParameters(tau_mem_inv=torch.nn.Parameter(torch.tensor([100.0, 2000.0])))
    layer = make(p=p)
    x = torch.ones(1, 2) if isinstance(layer, LIFCell | LIFRecurrentCell) else torch.ones(3, 1, 2)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        layer(x)
        assert not seen
        for rate in rates:
            with torch.no_grad():
                layer.tau_mem_inv[0] = rate
            layer(x)
    assert [str(w.message)[:66] for w in seen] == [
        "tau_mem_inv is now above 2000/s, too fast for steps of dt=0.001 s:"
    ]
    assert seen[0].filename == __file__


@pytest.mark.parametrize("name", ["input_weights", "recurrent_weights", "v_th"])
@pytest.mark.parametrize("made", [LIFRecurrent, LIFRecurrentCell])
def test_weights_and_parameters_that_became_nan_are_refused(made, name):
    """As is an input behind a Linear whose weights did: such neurons would be silent."""
    layer = made(M, N, LIFParameters(v_th=torch.nn.Parameter(torch.ones(N))))
    x = torch.rand(3, B, M) if made is LIFRecurrent else torch.rand(B, M)
    layer(x)
    with torch.no_grad():
        getattr(layer, name).view(-1)[1] = math.nan
    message = {"v_th": r"p\.v_th .* index \[1\]"}.get(name, rf"{name} .* index \[0, 1\]")
    with pytest.raises(NaNInputError, match=message.replace(" .* ", " must not contain NaN, got nan at ")):
        layer(x)


def test_nan_in_other_parameters_is_refused_when_a_layer_is_made():
    with pytest.raises(NaNInputError, match=r"p\.v_th must not contain NaN"):
        LIF(LIFParameters(v_th=torch.tensor([1.0, math.nan])))


def returns_its_output_alone(input, state: LIFFeedForwardState, p=LIFParameters(), dt=0.001):
    return input


MADE = {"cell": Cell, "layer": Layer, "recurrent_cell": RecurrentCell, "recurrent_layer": RecurrentLayer}


@every_kind
def test_a_step_that_returns_its_output_alone_is_refused(kind):
    module = MADE[kind]
    sizes = (M, N) if kind.startswith("recurrent") else ()
    x = torch.ones(3, B, M) if kind.endswith("layer") else torch.ones(B, M)
    for options in ({"backend": "reference"}, {"p": LIFParameters(method="adjoint")}, {}):
        if "backend" in options and kind.endswith("cell"):
            continue
        with pytest.raises(ValueError, match="must return its output and a LIFFeedForwardState, it returns T"):
            module(returns_its_output_alone, *sizes, **options)(x)


@every_kind
@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_a_step_with_weights_is_refused_with_the_one_to_take(neuron, kind):
    module = MADE[kind]
    step, plain = neuron.weighted_step, neuron.step.__name__
    with pytest.raises(TypeError, match=f"{step.__name__} takes weights; use {plain}: scan and layers have"):
        module(step, M, N) if kind.startswith("recurrent") else module(step)
    with pytest.raises(TypeError, match=f"use {plain}"):
        scan(step, torch.ones(3, B, N))


@pytest.mark.parametrize(
    "made", [lambda: SequentialState(LIF()), lambda: Lift(LIFCell()), LIFCell, lambda: None]
)
def test_what_is_no_layer_has_no_states_and_no_slopes_over_time(made):
    for function in (state_over_time, spike_slopes):
        name = type(made()).__name__
        with pytest.raises(ValueError, match=rf"layer must be one Layer .* or net\[1\], got a {name}"):
            function(made(), torch.rand(3, B, N))


def test_what_does_not_spike_has_no_slopes():
    with pytest.raises(ValueError, match="layer must be neurons that spike, got a LI"):
        spike_slopes(LI(), torch.rand(3, B, N))


@pytest.mark.parametrize("net", [ConvNet, ResNet, lambda *args, neuron: Residual(2, 2, 1, neuron)])
def test_a_layer_where_a_net_makes_several_is_refused(net):
    with pytest.raises(ValueError, match=r"neuron must make a layer, as LIF and .* do, got a LIF that"):
        net((1, 8, 8), 10, neuron=LIF())
