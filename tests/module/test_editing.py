"""Chains that are edited, sliced, added, nested and copied."""

import copy
import pickle

import pytest
import torch
from torch import nn

from snnlib import LI, LIF, LSNN, LICell, LIFCell, Lift, SequentialState
from tests.module.chains import B, T, close, conv_net, easy, images
from tests.neurons import same

pytestmark = pytest.mark.usefixtures("seeded")

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
