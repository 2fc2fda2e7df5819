"""Chains of modules: state over time and step by step, what they hand on, hooks, what they refuse."""

import copy
import warnings
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from snnlib import (
    LI,
    LIF,
    LSNN,
    ConstantCurrentLIFEncoder,
    ConvNet,
    Layer,
    LICell,
    LIFCell,
    LIFRecurrent,
    LIFRecurrentCell,
    Lift,
    LSNNCell,
    LSNNParameters,
    PoissonEncoder,
    RegularizationCell,
    SequentialState,
    SpikeLatencyEncoder,
    SpikesToTimesDecoder,
)
from tests.module.chains import B, Calls, T, close, conv_net, easy, images
from tests.module.kinds import over_time
from tests.neurons import same

pytestmark = pytest.mark.usefixtures("seeded")


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


@pytest.mark.parametrize("name", PAIRS)
def test_over_time_is_step_by_step(name):
    """A network of layers over a sequence is that of cells with the same weights; so are the gradients."""
    layers, cells = (make() for make in pairs()[name])
    cells.load_state_dict(layers.state_dict())
    x = torch.randn(T, B, 4) * 2
    results = []
    for output, state in (layers(x), over_time(cells, x), Lift(cells)(x)):
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


def test_hooks_see_a_module_once_that_stands_in_the_chain_twice():
    neuron, seen = LIF(), []
    net = SequentialState(neuron, nn.Linear(3, 3), neuron)
    net.register_forward_state_hooks(lambda module, args, output: seen.append(module))
    net(torch.rand(T, B, 3))
    assert seen == [neuron, neuron]


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


@pytest.mark.parametrize("module", [SpikeLatencyEncoder(), SpikesToTimesDecoder(2)], ids=["latency", "times"])
def test_what_needs_to_see_time_is_given_the_sequence(module):
    """In a chain it does what it does alone, and the modules beside it run over ``[T*B, ...]`` as ever."""
    layer, linear = LIF(easy()), nn.Linear(4, 3)
    x = torch.rand(T, B, 4)
    spikes, _ = layer(x)
    assert 1 < spikes.sum(0).max() < T
    output, state = SequentialState(layer, module, nn.Flatten())(x)
    same(output, module(spikes))
    assert [entry is None for entry in state] == [False, True, True]
    same(SequentialState(SequentialState(module))(spikes)[0], module(spikes))
    calls = Calls(linear)
    SequentialState(linear, module)(x)
    assert calls.rows == [T * B]


def test_what_needs_to_see_time_is_refused_where_it_cannot():
    with pytest.raises(ValueError, match=r"\['0'\] take single steps"):
        SequentialState(LIFCell(), SpikeLatencyEncoder())
    with pytest.raises(ValueError, match="SpikeLatencyEncoder takes sequences already"):
        Lift(SpikeLatencyEncoder())
    for made in (lambda module: SequentialState(LIF(), module), Lift):
        with pytest.raises(ValueError, match="the SpikeLatencyEncoder inside it needs to see time"):
            made(nn.Sequential(nn.ReLU(), SpikeLatencyEncoder()))


def test_different_time_steps_are_warned_of_once_where_the_chain_is_made(recwarn):
    SequentialState(nn.Linear(4, 4), nn.ReLU())
    SequentialState(nn.Linear(4, 4), LIF(dt=0.002), SpikesToTimesDecoder(dt=0.002))
    assert not recwarn
    layers = [LIF(easy(), dt=0.002), nn.Linear(4, 3), SequentialState(LI(), nn.ReLU())]
    with pytest.warns(UserWarning, match=r"different time steps: dt=\[0\.001, 0\.002\] s") as seen:
        net = SequentialState(*layers)
    assert [warning.filename for warning in seen] == [__file__]
    recwarn.clear()
    net(torch.rand(T, B, 4))
    copy.deepcopy(net)(torch.rand(T, B, 4))
    assert not recwarn


class Pair(nn.Module):
    def forward(self, input):
        return input, input


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize(("made", "got"), [
    (lambda: PoissonEncoder(5), r"\[5, {steps}, 4\]"),  # it draws, for each step
    (lambda: ConstantCurrentLIFEncoder(5), r"\[5, {rows}, 4\]"),
    (lambda: nn.Flatten(0), r"\[{all}\]"),
    (Pair, "tuple"),
])  # fmt: skip
def test_what_does_not_keep_the_batch_is_named(made, got, repeated):
    x = torch.rand(1, B, 4).expand(T, B, 4) if repeated else torch.rand(T, B, 4)
    rows = B if repeated else T * B
    got = got.format(rows=rows, all=4 * rows, steps=T * B)
    for net, name in (
        (SequentialState(made(), LIF()), "0"),
        (SequentialState(OrderedDict(a=made(), b=LI())), "a"),
    ):
        with pytest.raises(
            ValueError, match=rf"module {name} \(\w+\) must keep .* got {got}: call it by itself"
        ):
            net(x)
    with pytest.raises(ValueError, match=r"module lifted \(\w+\) must keep the first dimension"):
        Lift(made())(x)


def test_what_takes_more_than_one_tensor_is_refused():
    for made in (lambda module: SequentialState(LIF(), module), Lift):
        with pytest.raises(
            ValueError, match=r"\(RegularizationCell\) takes z and s, a chain hands it one tensor; call"
        ):
            made(RegularizationCell())
    with pytest.raises(ValueError, match=r"module 0 \(Bilinear\) takes input1 and input2"):
        SequentialState(nn.Bilinear(3, 4, 5))


def test_attention_does_not_mix_samples_and_steps():
    """A transformer of torch's takes rows [T*B, E] for one sequence, and [T*B, L, E] for L samples."""
    x = torch.rand(T, B, 4)
    for wrap in (lambda m: m, nn.Sequential, Lift, lambda m: nn.TransformerEncoder(m, 1, None, False)):
        with pytest.raises(ValueError, match=r"would attend over rows \[T\*B, .* all samples and"):
            SequentialState(wrap(nn.TransformerEncoderLayer(4, 2)), LIF())
    rows = nn.TransformerEncoderLayer(4, 2, batch_first=True).eval()
    with pytest.raises(ValueError, match=r"module 1 .* would attend over rows .* set over_time = True"):
        SequentialState(LIF(), rows)(x)
    tokens = torch.rand(T, B, 3, 4)
    close(SequentialState(rows, LIF())(tokens)[0], LIF()(torch.stack([rows(step) for step in tokens]))[0])
    over_time = nn.TransformerEncoderLayer(4, 2).eval()
    over_time.over_time = True
    close(SequentialState(over_time, LIF())(x)[0], LIF()(over_time(x))[0])


class Attends(nn.Module):
    """Within a step: it turns the rows [T*B, tokens, E] round, for attention without ``batch_first``."""

    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.attention.batch_first else x.transpose(0, 1)
        y, _ = self.attention(x, x, x)
        return y if self.attention.batch_first else y.transpose(0, 1)


@pytest.mark.parametrize("wrap", [lambda m: m, nn.Sequential], ids=["bare", "in torch's container"])
def test_attention_in_a_module_of_ones_own_may_turn_the_rows_round(wrap):
    module = wrap(Attends())
    x = torch.rand(T, B, 5, 8)
    with pytest.warns(UserWarning, match=r"module 0 .* has attention without batch_first=True .*over_time"):
        net = SequentialState(module, LI())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        close(net(x)[0], LI()(torch.stack([module(step) for step in x]))[0])
        SequentialState(wrap(Attends(batch_first=True)), LI())


def test_a_net_that_begins_at_rest_is_refused_with_what_does_work():
    net, x = ConvNet((1, 8, 8), 10), torch.rand(T, B, 1, 8, 8)
    with pytest.raises(
        ValueError, match=r"module 1 \(ConvNet\) would drop .*; call it by itself, or let its forward"
    ):
        SequentialState(LIF(), net)
    assert net(LIF()(x)[0]).shape == (B, 10)
