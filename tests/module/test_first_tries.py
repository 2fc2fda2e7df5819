"""What is tried first and does not work: each is answered by a sentence that says what does."""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from snnlib import (
    LIF,
    Cell,
    Layer,
    LIFCell,
    LIFParameters,
    LIFRecurrent,
    LIFRecurrentCell,
    Lift,
    LILinearCell,
    LSNNCell,
    PoissonEncoder,
    SequentialState,
    SpikeConv2d,
    SpikingPolicy,
    scan,
    spike,
)
from tests.module.kinds import B, M, N, every_kind, every_neuron

pytestmark = pytest.mark.usefixtures("seeded")


class V(NamedTuple):
    v: Tensor


@dataclass
class NoTuple:
    beta: float = 0.9


def with_a_dataclass(input, state: V, p=NoTuple(), dt=0.001):
    return input, V(input)


def test_parameters_of_a_step_that_are_no_namedtuple_are_named():
    says = "p of a step must be a NamedTuple, its default NoTuple is none"
    for made in (lambda: Layer(with_a_dataclass), lambda: Layer(with_a_dataclass, NoTuple())):
        with pytest.raises(ValueError, match=says):
            made()
    with pytest.raises(ValueError, match=says):
        scan(with_a_dataclass, torch.ones(3, B, N))


class OfOne(nn.Module):
    """A surrogate as SpikingJelly has them."""

    def forward(self, x: Tensor) -> Tensor:
        return spike(x, "arctan")


@pytest.mark.parametrize("method", [lambda x: spike(x), OfOne()], ids=["function", "module"])
def test_a_method_of_one_argument_is_refused_when_the_layer_is_made(method):
    p = LIFParameters(method=method)
    for made in (LIF, LIFCell, lambda p: LIFRecurrent(M, N, p)):
        with pytest.raises(ValueError, match=r"method must be a function \(x, alpha\) -> spikes, .* takes \(x"):
            made(p)
    x = 2 * torch.rand(20, B, N)
    wrapped = LIF(LIFParameters(method=lambda x, alpha: method(x)))
    assert torch.equal(wrapped(x)[0], LIF(LIFParameters(method="arctan"))(x)[0])


@every_kind
@every_neuron
def test_a_parameter_by_name_is_answered_with_the_way_to_give_it(neuron, kind):
    made, parameters = getattr(neuron, kind), neuron.parameters.__name__
    if not isinstance(made, type):
        pytest.skip("RecurrentLayer itself, with a step that has no class for it")
    name, recurrent = neuron.parameters._fields[0], kind.startswith("recurrent")
    says = rf"{name}, .* use {made.__name__}\({'..., ' if recurrent else ''}{parameters}\({name}=\.\.\.\)\)"
    with pytest.raises(TypeError, match=says):
        made(*((M, N) if recurrent else ()), **{name: 1.0})
    with pytest.raises(TypeError, match=says):
        made(**{name: 1.0})


def test_a_class_of_ones_own_may_take_a_parameter_by_name():
    class Slow(LIF):
        def __init__(self, tau_mem_inv: float) -> None:
            super().__init__(LIFParameters(tau_mem_inv=tau_mem_inv))

    assert Slow(tau_mem_inv=10.0).p.tau_mem_inv == 10.0
    with pytest.raises(TypeError, match=r"use LILinearCell\(\.\.\., LIParameters"):
        LILinearCell(3, 4, v_leak=1.0)


NO_TENSORS = {
    "sparse": (lambda x: x.to_sparse(), r"torch.sparse_coo; use input.to_dense\(\)"),
    "nested": (
        lambda x: torch.nested.as_nested_tensor(list(x)),
        r"nested one; use input.to_padded_tensor\(0.0\)",
    ),
    "jagged": (
        lambda x: torch.nested.as_nested_tensor(list(x), layout=torch.jagged),
        r"nested one; use input.to_padded_tensor\(0.0\)",
    ),
    "packed": (lambda x: pack_sequence(list(x)), r"PackedSequence; use pad_packed_sequence\(input\)\[0\]"),
    "array": (lambda x: x.numpy(), r"ndarray; use torch.from_numpy\(input\)"),
    "list": (lambda x: x.tolist(), "list$"),
    "none": (lambda x: None, "None$"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", NO_TENSORS)
def test_an_input_that_is_no_dense_tensor_is_refused_with_what_to_make_of_it(kind):
    make, says = NO_TENSORS[kind]
    layers = LIF(), LIFRecurrent(M, N), LIF(record_states=True), SequentialState(nn.Linear(M, N), LIF())
    x = torch.rand(5, B, M)
    for layer in layers:
        with pytest.raises(ValueError, match=f"input must be a dense tensor, got .*{says}"):
            layer(make(x))
    for cell in (LIFCell(), LIFRecurrentCell(M, N)):
        for state in (None, cell(x[0])[1]):
            with pytest.raises(ValueError, match=f"input must be a dense tensor, got .*{says}"):
                cell(make(x[0]), state)
    with pytest.raises(ValueError, match=f"input must be a dense tensor, got .*{says}"):
        scan(LIF().step, make(x))


UNBATCHED = {
    "linear": (lambda: nn.Linear(240, 240), (30, 8)),
    "norm": (lambda: nn.BatchNorm1d(8), (30, 8)),
    "layer_norm": (lambda: nn.LayerNorm(240), (30, 8)),
    "conv": (lambda: nn.Conv2d(60, 3, 3), (30, 2, 8, 8)),
    "spike_conv": (lambda: SpikeConv2d(60, 3, 3), (30, 2, 8, 8)),
}


@pytest.mark.parametrize("kind", UNBATCHED)
def test_a_sequence_without_a_batch_is_refused_before_weights(kind):
    """The weights would take all steps for the features of one sample."""
    make, shape = UNBATCHED[kind]
    says = (
        rf"input must be \[T, B, \*features\] before module \w+ \(\w+\), .* {re.escape(str(list(shape)))}; one"
    )
    for net in (SequentialState(make(), LIF()), Lift(make())):
        with pytest.raises(ValueError, match=f"{says} sequence: x.unsqueeze"):
            net(torch.rand(*shape))


@pytest.mark.parametrize(
    ("module", "x", "shape"),
    [
        (nn.ReLU(), torch.rand(5, 2), [5, 2]),
        (nn.Embedding(3, 4), torch.ones(5, 2, dtype=torch.long), [5, 2, 4]),
        (nn.Unflatten(0, (10, 1)), torch.rand(5, 2), [5, 2, 1]),
        (nn.Linear(4, 3), torch.rand(5, 2, 7, 4), [5, 2, 7, 3]),
        (nn.Conv1d(2, 3, 1), torch.rand(5, 2, 2, 7), [5, 2, 3, 7]),
    ],
)
def test_what_needs_no_features_is_run_without_them(module, x, shape):
    assert list(SequentialState(module, LIF())(x)[0].shape) == shape


def test_an_encoder_in_a_net_is_answered_with_where_to_call_it():
    net = SequentialState(PoissonEncoder(20), nn.Linear(M, N), LIF())
    with pytest.raises(ValueError, match=r"by itself before the net: net\(PoissonEncoder\(\.\.\.\)\(x\)\)$"):
        net(torch.rand(3, B, M))


def test_a_list_of_outputs_inside_a_chain_is_refused():
    def inner() -> SequentialState:
        return SequentialState(nn.Linear(N, N), LIF(), return_hidden=True)

    for first in (inner(), SequentialState(nn.Linear(N, N), inner())):
        with pytest.raises(ValueError, match=r"module 0 returns a list \(return_hidden=True\), 1 behind it"):
            SequentialState(first, LIF())
    hidden, _ = SequentialState(nn.Linear(N, N), inner())(torch.rand(3, B, N))  # at its end nothing takes it
    assert len(hidden) == 2


def test_the_states_of_all_steps_are_no_state_to_begin_with():
    x = torch.rand(5, B, N)
    states = LIF(record_states=True)(x)[1]
    for module, given in ((LIF(), x), (LIFCell(), x[0])):
        with pytest.raises(ValueError, match=r"states of all steps, take the last, state\.v\[-1\]"):
            module(given, states)
        module(given, type(states)(*(value[-1] for value in states)))


def test_of_many_wrong_parameters_the_worst_is_shown():
    rates = torch.full((50, 20), 100.0)
    rates[3, 4], rates[7, 5] = -1.0, -2.5
    with pytest.raises(ValueError, match=r"got tau_mem_inv=-2\.5 at index \[7, 5\]$"):
        LIF(LIFParameters(tau_mem_inv=rates))
    rates[9, 1] = torch.nan
    with pytest.raises(ValueError, match=r"got tau_mem_inv=nan at index \[9, 1\]$"):
        LIF(LIFParameters(tau_mem_inv=rates))
    with pytest.raises(ValueError, match=r"got alpha=0\.0 at index \[2\]$"):
        LIF(LIFParameters(alpha=torch.tensor([3.0, 2.0, 0.0])))
    with pytest.raises(ValueError, match=r"got tau_mem_inv=-5\.0$"):
        LIF(LIFParameters(tau_mem_inv=torch.tensor(-5.0)))


OUTPUTS: dict[str, tuple[Any, str]] = {
    "pair": (lambda x: (x, x), "tuple"),
    "none": (lambda x: None, "NoneType"),
    "number": (lambda x: 0.5, "float"),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_an_output_that_is_no_tensor_is_refused(kind):
    make, name = OUTPUTS[kind]

    def giving(input, state: V, p=None, dt=0.001):
        return make(input), V(input)

    x = torch.rand(3, B, N)
    says = f"the output of giving must be one tensor, it returns {name}"
    for module, given in ((Layer(giving), x), (Layer(giving, backend="reference"), x), (Cell(giving), x[0])):
        with pytest.raises(ValueError, match=says):
            module(given)


def test_a_linear_in_a_step_is_warned_of_with_what_was_tried():
    weights = nn.Linear(8, 8)

    def weighing(input, state: V, p=None, dt=0.001):
        return weights(input), V(input)

    with pytest.warns(
        UserWarning, match=r"shapes cannot be multiplied .* \(it was tried with an input of shape \[3\]"
    ):
        Layer(weighing)(torch.rand(3, B, 8))


def test_an_annotation_that_is_found_in_no_module_is_named():
    code = """from __future__ import annotations
from typing import NamedTuple
import torch
def made():
    class Hidden(NamedTuple):
        v: torch.Tensor
    def my_step(input, state: Hidden, p=None, dt=0.001):
        return input, Hidden(input)
    return my_step
"""
    names: dict[str, Any] = {}
    exec(compile(code, "cell", "exec", dont_inherit=True), names)
    with pytest.raises(
        TypeError, match="annotations of my_step must be found from its module: name 'Hidden' is"
    ):
        Layer(names["made"]())


@pytest.mark.parametrize("held", [nn.Parameter(torch.ones(N)), torch.ones(N)], ids=["parameter", "buffer"])
def test_what_is_registered_for_a_number_of_p_is_refused(held):
    """It would stand in the state_dict and in the optimiser, and nothing would read it."""
    for layer in (LIF(), LIFRecurrent(M, N), LSNNCell()):
        register = layer.register_parameter if isinstance(held, nn.Parameter) else layer.register_buffer
        with pytest.raises(
            AttributeError, match=r"v_th is a number of p: use layer\.p = layer\.p\._replace\(v_th="
        ):
            register("v_th", held)
        layer.p = layer.p._replace(v_th=held)
        register("v_th", 2 * held.detach() if register == layer.register_buffer else nn.Parameter(2 * held))
        assert torch.equal(layer.p.v_th.detach(), torch.full((N,), 2.0))


def test_a_tensor_that_wants_a_gradient_and_is_no_parameter_is_warned_of(recwarn):
    LIF(LIFParameters(v_th=nn.Parameter(torch.ones(N)), v_leak=torch.zeros(N)))
    LIF(LIFParameters(v_th=2 * torch.ones(N, requires_grad=True)))  # others see what it is computed of
    assert not recwarn
    with pytest.warns(UserWarning, match=r"p\.v_th requires a gradient and is no torch\.nn\.Parameter"):
        LIF(LIFParameters(v_th=torch.ones(N, requires_grad=True)))


def test_one_observation_has_the_scores_that_it_has_in_a_batch():
    policy, x = SpikingPolicy(4, 32, 2), torch.randn(4)
    assert policy(x).shape == (2,)
    assert torch.equal(policy(x), policy(x[None])[0])
