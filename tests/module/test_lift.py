"""Lift, and what is lifted: cells, modules without a state, convolutions; over time and inside a chain."""

import pytest
import torch
from torch import nn

from snnlib import (
    LI,
    LIF,
    LConv2d,
    LICell,
    LIFCell,
    LIFRecurrent,
    LIFRecurrentCell,
    Lift,
    RecurrentSequential,
    SequentialState,
)
from tests.module.chains import B, Calls, T, close, easy, images

pytestmark = pytest.mark.usefixtures("seeded")


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


def test_of_no_steps_a_batch_norm_learns_nothing():
    lifted = Lift(SequentialState(nn.BatchNorm1d(4), LIFRecurrentCell(4, 3))).train()
    before = {name: value.clone() for name, value in lifted.state_dict().items()}
    assert lifted(torch.rand(0, B, 4))[0].shape == (0, B, 3)
    assert all(torch.equal(value, before[name]) for name, value in lifted.state_dict().items())
    lifted(torch.rand(1, B, 4))
    assert lifted.lifted[0].num_batches_tracked == 1


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


@pytest.mark.parametrize("cell", [nn.RNNCell(2, 3), nn.GRUCell(2, 3), nn.LSTMCell(2, 3)], ids=repr)
def test_a_cell_of_torchs_would_lose_its_state(cell):
    whole = type(cell).__name__.removesuffix("Cell")
    for make in (Lift, lambda cell: SequentialState(cell, LICell())):
        with pytest.raises(ValueError, match=rf"\({whole}Cell\) would lose its state, .* use nn\.{whole} for"):
            make(cell)


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


@pytest.mark.parametrize("steps", [0, 3])
def test_outputs_may_be_several(steps: int):
    chain = RecurrentSequential(nn.Linear(4, 4), LIFCell(), LICell(), output_modules=[1, 2])
    found, state = Lift(chain)(torch.rand(steps, B, 4))
    assert [tuple(value.shape) for value in found] == [(steps, B, 4)] * 2
    assert (state is None) == (steps == 0)
