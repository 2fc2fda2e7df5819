"""Containers: state over time and step by step, one call for what has no state, Lift, errors, editing."""

import copy
import pickle
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from snnlib import (
    LI,
    LIF,
    LSNN,
    Layer,
    LConv2d,
    LICell,
    LIFCell,
    LIFParameters,
    LIFRecurrent,
    LIFRecurrentCell,
    Lift,
    LSNNCell,
    LSNNParameters,
    RecurrentSequential,
    SequentialState,
    SpikesToTimesDecoder,
)
from tests.neurons import same

T, B = 6, 3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Calls:
    """Counts the calls of a module and their batch sizes, by a forward hook."""

    def __init__(self, module: nn.Module) -> None:
        self.rows: list[int] = []
        module.register_forward_hook(lambda module, args, output: self.rows.append(len(args[0])))


def easy(**options) -> LIFParameters:
    """A low threshold, so that a small network spikes at every layer."""
    return LIFParameters(v_th=0.1, **options)


def conv_net() -> SequentialState:
    return SequentialState(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        LIF(easy()),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 5),
        LI(),
    )


def images(steps: int = T) -> Tensor:
    return torch.rand(steps, B, 1, 6, 6)


def pairs():
    """Networks of layers beside the same of cells; made in the test, so that the seed counts."""
    low = LSNNParameters(v_th=0.02)
    return {
        "dense": (
            lambda: SequentialState(nn.Linear(4, 5), LIF(easy()), nn.Linear(5, 2), LI()),
            lambda: SequentialState(nn.Linear(4, 5), LIFCell(easy()), nn.Linear(5, 2), LICell()),
        ),
        "recurrent": (
            lambda: SequentialState(LIFRecurrent(4, 5, easy()), nn.Linear(5, 3), LSNN(low)),
            lambda: SequentialState(LIFRecurrentCell(4, 5, easy()), nn.Linear(5, 3), LSNNCell(low)),
        ),
        "nested": (
            lambda: SequentialState(SequentialState(nn.Linear(4, 5), LIF(easy())), nn.ReLU(), LI()),
            lambda: SequentialState(SequentialState(nn.Linear(4, 5), LIFCell(easy())), nn.ReLU(), LICell()),
        ),
    }


PAIRS = list(pairs())


def by_steps(net, x, state=None):
    outputs = []
    for row in x:
        y, state = net(row, state)
        outputs.append(y)
    return torch.stack(outputs), state


def close(one, other):
    same(one, other, rtol=1e-5, atol=1e-5)


# -- values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRS)
def test_over_time_is_step_by_step(name):
    """A network of layers over a sequence is that of cells with the same weights; so are the gradients."""
    layers, cells = (make() for make in pairs()[name])
    cells.load_state_dict(layers.state_dict())
    x = torch.randn(T, B, 4) * 2
    results = []
    for output, state in (layers(x), by_steps(cells, x), Lift(cells)(x)):
        net = layers if not results else cells
        gradients = torch.autograd.grad(output.square().sum(), list(net.parameters()), allow_unused=True)
        results.append((output, state, gradients))
    assert results[0][0].abs().sum() > 0
    assert results[0][2][0].abs().max() > 0
    close(results[1], results[0])
    close(results[2], results[0])


def test_a_convolutional_network_by_hand():
    """Each module over all T*B rows, each neuron over time."""
    net = conv_net().eval()
    x = images()
    output, state = net(x)
    current = net[1](net[0](x.reshape(T * B, 1, 6, 6))).reshape(T, B, 4, 4, 4)
    spikes, first = net[2](current)
    assert 0 < spikes.mean() < 1
    rows = net[5](net[3](spikes.reshape(T * B, 4, 4, 4)).reshape(T * B, 16)).reshape(T, B, 5)
    voltage, last = net[6](rows)
    close((output, state[2], state[6]), (voltage, first, last))
    assert [entry is None for entry in state] == [True, True, False, True, True, True, False]


@pytest.mark.parametrize("name", PAIRS)
def test_state_is_handed_on_between_chunks(name):
    """And neither the list that came in nor the network keeps anything."""
    net = pairs()[name][0]()
    x = torch.randn(T, B, 4) * 2
    whole = net(x)
    first, state = net(x[:2])
    kept = list(state)
    second, final = net(x[2:], state)
    close((torch.cat([first, second]), final), whole)
    assert all(one is other for one, other in zip(state, kept, strict=True))
    close(net(x), whole)


def test_initial_state_of_one_module_alone():
    """None in the list is that module's rest."""
    net = SequentialState(LIF(easy()), LI())
    x = torch.rand(T, B, 4)
    start = net[1](torch.ones(2, B, 4))[1]
    spikes, first = net[0](x)
    voltage, last = net[1](spikes, start)
    close(net(x, [None, start]), (voltage, [first, last]))


def test_return_hidden():
    """The outputs of all modules in order, the last of them the usual output."""
    net = conv_net().eval()
    x = images()
    output, state = net(x)
    hidden_net = SequentialState(*net, return_hidden=True).eval()
    hidden, same_state = hidden_net(x)
    assert isinstance(hidden, list)
    assert [tuple(value.shape[2:]) for value in hidden] == [
        (4, 4, 4),
        (4, 4, 4),
        (4, 4, 4),
        (4, 2, 2),
        (16,),
        (5,),
        (5,),
    ]
    assert all(value.shape[:2] == (T, B) for value in hidden)
    same((hidden[-1], same_state), (output, state))
    same(hidden[2], net[:3](x)[0])


def test_modules_by_name():
    net = SequentialState(OrderedDict(fc=nn.Linear(4, 5), lif=LIF(easy())))
    assert set(net.state_dict()) == {"fc.weight", "fc.bias"}
    assert net(torch.rand(T, B, 4))[0].shape == (T, B, 5)
    assert net.over_time is True


def test_an_empty_chain_is_the_identity():
    x = torch.rand(T, B, 4)
    output, state = SequentialState()(x)
    assert output is x
    assert state == []


def test_modules_without_state_alone_run_as_they_are():
    """Nothing says that there is time: a plain nn.Sequential with a list of None beside it."""
    net = SequentialState(nn.Flatten(), nn.Linear(8, 3))
    x = torch.rand(B, 2, 4)
    output, state = net(x)
    close(output, net[1](x.reshape(B, 8)))
    assert state == [None, None]


@pytest.mark.parametrize(("steps", "batch"), [(1, B), (T, 1), (0, B), (T, 0)])
def test_sizes_of_one_and_none(steps, batch):
    net = SequentialState(nn.Linear(4, 5), LIF(easy()), LIFRecurrent(5, 3), nn.Linear(3, 2), LI())
    output, state = net(torch.rand(steps, batch, 4))
    assert output.shape == (steps, batch, 2)
    assert state[-1].v.shape == (batch, 2)


def test_lstm_inside():
    """torch's own recurrent layers are handed their state like any neuron."""
    net = SequentialState(nn.Linear(4, 5), nn.LSTM(5, 6), nn.Linear(6, 3), LIF(easy()), nn.GRU(3, 2))
    x = torch.randn(T, B, 4)
    whole, final = net(x)
    assert whole.shape == (T, B, 2)
    assert [type(entry).__name__ for entry in final] == [
        "NoneType",
        "tuple",
        "NoneType",
        "LIFFeedForwardState",
        "Tensor",
    ]
    hidden, wanted = net[1](net[0](x))
    close(final[1], wanted)
    close(final[3], net[3](net[2](hidden))[1])
    first, state = net(x[:2])
    second, state = net(x[2:], state)
    close((torch.cat([first, second]), state), (whole, final))


def test_lstm_alone_is_over_time():
    net = SequentialState(nn.LSTM(4, 5), nn.Flatten())
    assert net(torch.randn(T, B, 4))[0].shape == (T, B, 5)


# -- how often a module without a state runs -----------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_a_module_without_a_state_runs_once_over_all_rows(training):
    net = conv_net().train(training)
    calls = {index: Calls(net[index]) for index in (0, 1, 3, 4, 5)}
    net(images())
    assert {index: call.rows for index, call in calls.items()} == {index: [T * B] for index in calls}


def test_a_repeated_input_runs_once_over_one_step():
    """Until the first neuron; the result is that of the copied input."""
    net = conv_net().eval()
    x = torch.rand(B, 1, 6, 6)
    wanted = net(x.repeat(T, 1, 1, 1, 1))
    calls = {index: Calls(net[index]) for index in (0, 1, 3, 4, 5)}
    close(net(x.expand(T, -1, -1, -1, -1)), wanted)
    assert {index: call.rows for index, call in calls.items()} == {
        0: [B],
        1: [B],
        3: [T * B],
        4: [T * B],
        5: [T * B],
    }


def test_a_repeated_input_goes_from_module_to_module_as_one_step():
    """Not as a view of a sequence, whose gradient would be a whole one."""
    net = SequentialState(nn.Linear(4, 5), nn.Tanh(), nn.Identity(), LI(), nn.Linear(5, 2), nn.Tanh())
    seen = []
    for index in (1, 2, 5):
        net[index].register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    net(torch.rand(B, 4).expand(T, B, 4))
    (_, first), (second, _), (third, _) = seen
    assert second is first
    assert second.shape == (B, 5)
    assert third.shape == (T * B, 2)


def test_gradient_through_a_repeated_input():
    """That of the copied input, in weights and in the input itself."""
    net = SequentialState(nn.Linear(4, 5), nn.Tanh(), LI())
    gradients = []
    for repeat in (lambda x: x.expand(T, B, 4), lambda x: x.repeat(T, 1, 1)):
        x = torch.linspace(-1, 1, 4 * B).reshape(B, 4).requires_grad_()
        output, _ = net(repeat(x))
        gradients.append(torch.autograd.grad(output.square().sum(), [x, *net.parameters()]))
    assert gradients[0][0].abs().max() > 0
    close(gradients[0], gradients[1])


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_a_repeated_map_lies_in_memory_as_the_map(order: torch.memory_format):
    net = SequentialState(nn.Conv2d(2, 5, 3), nn.Identity(), LI()).to(memory_format=order)
    strides = []
    net[1].register_full_backward_hook(lambda module, inputs, outputs: strides.append(outputs[0].stride()))
    x = torch.rand(B, 2, 6, 6).contiguous(memory_format=order)
    maps = net[0](x)
    output, _ = net(x.expand(T, -1, -1, -1, -1))
    output.square().sum().backward()
    assert strides == [maps.stride()]


def test_batch_norm_of_a_repeated_input():
    """As documented: the same output and running mean, a running variance larger by (n - 1/T) / (n - 1)."""
    x = torch.randn(B, 4, 5, 5)
    once, often = (SequentialState(nn.BatchNorm2d(4, momentum=1.0), LI()) for _ in range(2))
    close(once(x.expand(T, B, 4, 5, 5)), often(x.repeat(T, 1, 1, 1, 1)))
    torch.testing.assert_close(once[0].running_mean, often[0].running_mean)
    n = B * 5 * 5
    ratio = once[0].running_var / often[0].running_var
    torch.testing.assert_close(ratio, torch.full((4,), (n - 1 / T) / (n - 1)))


@pytest.mark.parametrize("dropout", [nn.Dropout, nn.Dropout1d, nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_dropout_draws_anew_at_every_step_of_a_repeated_input(dropout):
    """In training; in evaluation one call serves all steps."""
    net = SequentialState(
        nn.Linear(40, 40), nn.Sequential(nn.Identity(), dropout(0.5)), LI(), return_hidden=True
    )
    x = torch.rand(B, 40).expand(T, B, 40)
    calls = Calls(net[0]), Calls(net[1])
    hidden, _ = net(x)
    assert [call.rows for call in calls] == [[B], [T * B]]
    dropped = hidden[1]
    assert any(not torch.equal(dropped[0], dropped[t]) for t in range(1, T))
    net.eval()
    hidden, _ = net(x)
    assert [call.rows for call in calls] == [[B, B], [T * B, B]]
    close(hidden[1], hidden[0])


# -- Lift ----------------------------------------------------------------------------------------------------


def test_lift_of_a_cell():
    cell = LIFCell(easy())
    x = torch.rand(T, B, 4)
    output, state = Lift(cell)(x)
    close((output, state), LIF(easy())(x))
    assert output.sum() > 0
    first, middle = Lift(cell)(x[:2])
    second, final = Lift(cell)(x[2:], middle)
    close((torch.cat([first, second]), final), (output, state))


def test_lift_of_a_module_without_a_state():
    """Once over all rows, and no state comes back."""
    conv = nn.Conv2d(1, 4, 3)
    calls = Calls(conv)
    x = images()
    output = Lift(conv)(x)
    assert calls.rows == [T * B]
    close(output, torch.stack([conv(row) for row in x]))


def test_lift_of_no_steps():
    """T = 0, as layers take it."""
    output, _ = Lift(LIFCell())(torch.rand(0, B, 4))
    assert output.shape == (0, B, 4)
    assert Lift(nn.Linear(4, 2))(torch.rand(0, B, 4)).shape == (0, B, 2)


def test_lifted_modules_inside_a_sequence():
    """Cells and chains of cells stand beside layers."""
    chain = SequentialState(nn.Linear(4, 5), LIFCell(easy()), LICell())
    net = SequentialState(Lift(LIFCell(easy())), Lift(chain), LI())
    plain = SequentialState(LIF(easy()), chain[0], LIF(easy()), LI(), LI())
    x = torch.rand(T, B, 4)
    output, state = net(x)
    wanted, states = plain(x)
    assert output.abs().sum() > 0
    close((output, state), (wanted, [states[0], [None, states[2], states[3]], states[4]]))
    first, middle = net(x[:4])
    second, final = net(x[4:], middle)
    close((torch.cat([first, second]), final), (output, state))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(1, 2, 3), (1, 6, 6)),
        (nn.Flatten(), (1, 6, 6)),
        (nn.Linear(4, 2), (4,)),
        (nn.BatchNorm1d(4), (4,)),
    ],
    ids=["conv", "flatten", "linear", "batch norm"],
)
def test_lift_of_a_module_without_a_state_inside_a_sequence(module, shape):
    """It is the module over ``[T*B, ...]``, as it is without Lift and outside the sequence."""
    x = torch.randn(T, B, *shape)
    output, state = SequentialState(Lift(module), LI())(x)
    close((output, state[1]), LI()(Lift(module)(x)))
    close(output, SequentialState(module, LI())(x)[0])
    calls = Calls(module)
    SequentialState(Lift(module), LI())(x)
    assert calls.rows == [T * B]


@pytest.mark.parametrize(
    "make",
    [
        LIF,
        lambda: LIFRecurrent(2, 3),
        lambda: nn.LSTM(2, 3),
        lambda: SequentialState(LIF()),
        lambda: Lift(LIFCell()),
    ],
    ids=["layer", "recurrent", "lstm", "chain", "lift"],
)
def test_lift_of_what_takes_sequences_is_refused(make):
    module = make()
    with pytest.raises(ValueError, match=f"{type(module).__name__} takes sequences already"):
        Lift(module)


# -- errors --------------------------------------------------------------------------------------------------


def test_cells_and_layers_are_not_mixed():
    """The message names the modules that take single steps and says what to do."""
    with pytest.raises(ValueError, match=r"\['2'\] take single steps.*Lift"):
        SequentialState(nn.Linear(4, 5), LIF(), LIFCell())
    with pytest.raises(ValueError, match=r"\['cell'\] take single steps"):
        SequentialState(OrderedDict(cell=LICell(), lstm=nn.LSTM(4, 5)))
    with pytest.raises(ValueError, match=r"\['0'\] take single steps"):
        SequentialState(SequentialState(LIFCell()), LIF())


@pytest.mark.parametrize("wrap", [nn.Sequential, lambda m: nn.Sequential(nn.Sequential(nn.ReLU(), m))])
@pytest.mark.parametrize("make", [LIF, LIFCell, lambda: nn.LSTM(4, 5)], ids=["layer", "cell", "lstm"])
def test_a_neuron_in_a_plain_sequential_is_refused(make, wrap):
    """It would lose its state."""
    neuron = make()
    message = rf"module 1 \(Sequential\) would drop the state of the {type(neuron).__name__}"
    with pytest.raises(ValueError, match=message):
        SequentialState(nn.Linear(4, 4), wrap(neuron))


@pytest.mark.parametrize("length", [0, 1, 4])
def test_a_state_of_a_wrong_length_is_refused(length):
    net = SequentialState(nn.Linear(4, 5), LIF(), LI())
    with pytest.raises(ValueError, match=f"one entry for each of 3 modules, got {length}"):
        net(torch.rand(T, B, 4), [None] * length)


def test_a_cell_that_is_appended_to_layers_is_refused():
    net = SequentialState(nn.Linear(4, 5), LIF())
    with pytest.raises(ValueError, match="take single steps"):
        net.append(LICell())(torch.rand(T, B, 4))
    net = SequentialState(nn.Linear(4, 5), LIF())
    with pytest.raises(ValueError, match="take single steps"):
        net[0] = LICell()


# -- editing -------------------------------------------------------------------------------------------------

# how to change [fc, LIF], and what it then holds
EDITS = {
    "append": (lambda net: net.append(LI()), lambda fc, lif: [fc, lif, LI()]),
    "extend": (lambda net: net.extend([nn.ReLU(), LI()]), lambda fc, lif: [fc, lif, nn.ReLU(), LI()]),
    "add in place": (lambda net: net.__iadd__(SequentialState(LI())), lambda fc, lif: [fc, lif, LI()]),
    "insert": (lambda net: net.insert(1, nn.ReLU()), lambda fc, lif: [fc, nn.ReLU(), lif]),
    "insert a neuron": (lambda net: net.insert(0, LI()), lambda fc, lif: [LI(), fc, lif]),
    "set": (lambda net: net.__setitem__(1, LI()), lambda fc, lif: [fc, LI()]),
    "set what has no state": (lambda net: net.__setitem__(1, nn.ReLU()), lambda fc, lif: [fc, nn.ReLU()]),
    "set by name": (lambda net: setattr(net, "0", LI()), lambda fc, lif: [LI(), lif]),
    "delete": (lambda net: net.__delitem__(1), lambda fc, lif: [fc]),
    "delete and append": (
        lambda net: (net.__delitem__(0), net.append(nn.ReLU())),
        lambda fc, lif: [lif, nn.ReLU()],
    ),
    "append and pop": (lambda net: (net.append(LI()), net.pop(0)), lambda fc, lif: [lif, LI()]),
    "pop and append": (lambda net: (net.pop(1), net.append(nn.ReLU())), lambda fc, lif: [fc, nn.ReLU()]),
}


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_chain_is_the_chain_of_what_it_holds(edit, used):
    """Whether or not it has run before."""
    change, wanted = EDITS[edit]
    fc, lif = nn.Linear(4, 4), LIF(easy())
    net = SequentialState(fc, lif)
    x = torch.rand(T, B, 4)
    if used:
        net(x)
    change(net)
    fresh = SequentialState(*wanted(fc, lif))
    assert [type(module) for module in net] == [type(module) for module in fresh]
    close(net(x), fresh(x))


def test_a_slice_is_a_chain_of_the_same_modules():
    net = conv_net().eval()
    x = images()
    head, tail = net[:4], net[4:]
    assert isinstance(head, SequentialState)
    assert head[0] is net[0]
    middle, first = head(x)
    output, second = tail(middle)
    close((output, first + second), net(x))


def test_a_slice_returns_what_the_chain_returns():
    """All outputs, where the chain was made to return them."""
    net = SequentialState(nn.Linear(4, 5), LIF(easy()), LI(), return_hidden=True)
    x = torch.rand(T, B, 4)
    hidden, _ = net[:2](x)
    same(hidden, net(x)[0][:2])


@pytest.mark.parametrize("combine", [lambda a, b: a + b, lambda a, b: a * 2], ids=["add", "multiply"])
def test_a_sum_of_chains_is_a_chain(combine):
    """nn.Sequential adds and multiplies; what comes out must thread state too, or refuse."""
    one, other = SequentialState(nn.Linear(4, 4), LIF(easy())), SequentialState(nn.Linear(4, 4), LIF(easy()))
    both = combine(one, other)
    assert isinstance(both, SequentialState)
    output, state = both(torch.rand(T, B, 4))
    assert len(state) == 4
    assert output.shape == (T, B, 4)


# -- nesting and copies --------------------------------------------------------------------------------------


def test_a_nested_chain_is_the_flat_chain():
    """Its state is a list inside the list."""
    inner = SequentialState(nn.Linear(4, 5), LIF(easy()), nn.Linear(5, 3))
    net = SequentialState(inner, LSNN(), nn.ReLU())
    flat = SequentialState(*inner, net[1], net[2])
    x = torch.rand(T, B, 4)
    output, state = net(x)
    wanted, states = flat(x)
    close((output, state), (wanted, [states[:3], states[3], None]))
    assert net.over_time is True


@pytest.mark.parametrize(
    ("modules", "shape"),
    [
        (lambda: [nn.Conv2d(1, 2, 3), nn.ReLU()], (1, 6, 6)),
        (lambda: [nn.Flatten()], (1, 6, 6)),
        (lambda: [nn.BatchNorm1d(4)], (4,)),
        (lambda: [nn.Linear(4, 3)], (4,)),
    ],
    ids=["conv", "flatten", "batch norm", "linear"],
)
def test_a_nested_chain_without_a_state_is_the_flat_chain(modules, shape):
    """Beside neurons that take sequences its modules run over ``[T*B, ...]`` like all others."""
    inner = modules()
    x = torch.randn(T, B, *shape)
    output, state = SequentialState(SequentialState(*inner), LI())(x)
    wanted, states = SequentialState(*inner, LI())(x)
    close(output, wanted)
    close(state[-1], states[-1])


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"]
)
def test_copies_are_independent(how):
    """The same output; training the copy does not touch the first."""
    p = easy(tau_mem_inv=nn.Parameter(torch.tensor(100.0)))
    net = SequentialState(nn.Linear(4, 5), LIF(p), SequentialState(nn.Linear(5, 3), LI()), Lift(LIFCell()))
    x = torch.rand(T, B, 4)
    before = net(x)
    other = how(net)
    close(other(x), before)
    optimiser = torch.optim.SGD(other.parameters(), lr=1.0)
    voltage, _ = other[:3](x)
    voltage.square().sum().backward()
    optimiser.step()
    assert not torch.equal(other[:3](x)[0], net[:3](x)[0])
    same(net(x), before)
    assert net[1].tau_mem_inv.item() == 100.0
    assert other[1].tau_mem_inv.item() != 100.0


def test_parameters_and_modes_reach_every_module():
    p = easy(tau_mem_inv=nn.Parameter(torch.tensor(100.0)))
    net = SequentialState(
        nn.Linear(4, 5), LIF(p), nn.Dropout(), Lift(SequentialState(nn.Linear(5, 2), LICell()))
    )
    assert {name for name, _ in net.named_parameters()} == {
        "0.weight",
        "0.bias",
        "1.tau_mem_inv",
        "3.lifted.0.weight",
        "3.lifted.0.bias",
    }
    net.eval()
    x = torch.rand(T, B, 4)
    same(net(x), net(x))
    net.double()
    assert net(x.double())[0].dtype == torch.float64


class Counter(NamedTuple):
    seen: Tensor


def count(input: Tensor, state: Counter, p: None = None, dt: float = 0.001):
    seen = state.seen + 1
    return input * seen, Counter(seen)


class Memory(nn.Module):
    """A user's own module with a state: anything whose ``forward`` takes one."""

    def forward(self, input, state=None):
        state = torch.zeros(()) if state is None else state
        return input, state + input.sum()


def test_modules_of_ones_own():
    """A Layer of one's own step, and any module whose forward takes ``state``."""
    net = SequentialState(Layer(count), Memory(), nn.Linear(4, 2))
    x = torch.rand(T, B, 4)
    output, state = net(x)
    scaled = x * torch.arange(1, T + 1)[:, None, None]
    close(output, net[2](scaled))
    close(state[1], scaled.sum())
    same(state[0].seen, torch.full((B, 4), float(T)))
    assert net(x, state)[1][1] > state[1]


def test_a_chain_hears_its_last_output():
    first, cell = nn.Linear(3, 3), LIFCell(easy())
    net = RecurrentSequential(first, cell)
    x = 2 * torch.rand(T, B, 3)
    output, last = Lift(net)(x)
    before, state, expected = torch.zeros(B, 3), None, []
    for step in x:
        before, state = cell(first(step + before), state)
        expected.append(before)
    assert torch.equal(output, torch.stack(expected))
    assert torch.equal(last.cache, before)
    assert 0 < output.sum() < output.numel()


def test_a_chain_hears_the_sum_of_several_outputs():
    cell = LICell()
    net = RecurrentSequential(cell, nn.Linear(3, 3), output_modules=[0, 1])
    x = torch.rand(B, 3)
    (a, b), state = net(x)
    (c, _), _ = net(x, state)
    expected, _ = cell(x + a + b, cell(x)[1])
    assert torch.equal(c, expected)


def test_a_chain_of_layers_hears_nothing():
    with pytest.raises(ValueError, match="single steps; wrap it in Lift"):
        RecurrentSequential(LIF())


def test_hooks_see_the_modules_with_a_state():
    net, seen = SequentialState(nn.Linear(3, 4), LIF(), nn.Linear(4, 2), LI()), []
    net.register_forward_state_hooks(lambda module, args, output: seen.append((module, output[1])))
    x = torch.rand(T, B, 3)
    _, state = net(x)
    assert [module for module, _ in seen] == [net[1], net[3]]
    assert torch.equal(seen[0][1].v, state[1].v)
    with pytest.raises(ValueError, match="hooks already"):
        net.register_forward_state_hooks(print)
    net.remove_forward_state_hooks()
    net(x)
    assert len(seen) == 2
    net.register_forward_state_hooks(print)


def test_lift_takes_a_tuple():
    x, cell = 3 * torch.rand(T, B, 3), Lift(LIFCell(easy()))
    expected, _ = cell(x)
    first, state = cell((x[:2], None))
    rest, _ = cell((x[2:], state))
    assert torch.equal(torch.cat([first, rest]), expected)
    assert expected.sum() > 0


def test_a_convolution_of_every_step():
    conv = LConv2d(2, 4, 3, 1, 1, groups=2)
    x = torch.rand(T, B, 2, 5, 6)
    assert [name for name, _ in conv.named_parameters()] == ["lifted.weight"]
    expected = torch.stack([nn.functional.conv2d(step, conv.weight, padding=1, groups=2) for step in x])
    torch.testing.assert_close(conv(x), expected)
    assert SequentialState(conv, LIF())(x)[0].shape == (T, B, 4, 5, 6)


def test_times_of_spikes_as_a_module():
    spikes = torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]], [[0.0, 1.0]]])
    assert SpikesToTimesDecoder(2, dt=0.5)(spikes).tolist() == [[[0.5, 0.0]], [[torch.inf, 0.5]]]
    assert SpikesToTimesDecoder(convert_indices_to_times=False)(spikes).tolist() == [[[1.0, 0.0]]]
