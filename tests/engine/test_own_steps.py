"""Steps of one's own over time."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from snnlib.engine import scan
from tests.neurons import generator, recurrent_loop, same


class Pair(NamedTuple):
    """A state of one's own, without ``initial``."""

    fast: Tensor
    slow: Tensor


class Rested(NamedTuple):
    """A state of one's own that starts at a parameter."""

    v: Tensor

    @classmethod
    def initial(cls, p: "MyParameters") -> "Rested":
        return cls(v=p.rest)  # type: ignore[arg-type]


class MyParameters(NamedTuple):
    gain: float | Tensor = 2.0
    rest: float | Tensor = 0.25


def pair_step(input: Tensor, state: Pair, p: MyParameters = MyParameters(), dt: float = 0.001):
    fast = 0.5 * state.fast + p.gain * input
    slow = state.slow + dt * fast
    return fast - slow, Pair(fast, slow)


def rested_step(input: Tensor, state: Rested, p: MyParameters = MyParameters(), dt: float = 0.001):
    v = state.v + torch.tanh(p.gain * input)
    return v, Rested(v)


class Swapped(NamedTuple):
    """Equal to :class:`MyParameters` as a tuple, and something else."""

    rest: float | Tensor = 0.25
    gain: float | Tensor = 2.0


REST = {"v": 0.0}


class Elsewhere(NamedTuple):
    """A state whose rest is not in the parameters."""

    v: Tensor

    @classmethod
    def initial(cls, p: MyParameters) -> "Elsewhere":
        return cls(v=REST["v"])  # type: ignore[arg-type]


def elsewhere_step(input: Tensor, state: Elsewhere, p: MyParameters = MyParameters(), dt: float = 0.001):
    v = state.v + input
    return v, Elsewhere(v)


def no_annotation(input, state, p=MyParameters(), dt=0.001):
    return input, state


def test_a_step_of_ones_own():
    """Its own NamedTuples; a state without ``initial`` starts at zero."""
    x = torch.randn(6, 2, 3, generator=generator(0), dtype=torch.float64)
    fast = slow = torch.zeros(2, 3, dtype=torch.float64)
    wanted = []
    for t in range(6):
        fast = fast / 2 + 3 * x[t]
        slow = slow + 0.01 * fast
        wanted.append(fast - slow)
    output, state = scan(pair_step, x, None, MyParameters(gain=3.0), dt=0.01)
    torch.testing.assert_close(output, torch.stack(wanted))
    same(state, Pair(fast, slow), rtol=1e-12, atol=1e-12)


def test_a_step_of_ones_own_with_a_rest():
    gain, rest = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.7, 1.5))
    x = torch.randn(5, 2, 3, generator=generator(0), dtype=torch.float64)
    output, state = scan(rested_step, x, p=MyParameters(gain, rest))
    torch.testing.assert_close(output, 1.5 + torch.tanh(0.7 * x).cumsum(0))
    assert isinstance(state, Rested)
    by_gain, by_rest = torch.autograd.grad(output.sum(), (gain, rest))
    assert by_rest.item() == pytest.approx(output.numel())
    slope = (x / torch.cosh(0.7 * x) ** 2).cumsum(0).sum()
    assert by_gain.item() == pytest.approx(slope.item())


def test_a_recurrent_step_of_ones_own():
    x = torch.randn(6, 2, 3, generator=generator(0), dtype=torch.float64)
    weights = torch.randn(3, 3, generator=generator(1), dtype=torch.float64)
    output, state = scan(pair_step, x, recurrent_weights=weights)
    zero = torch.zeros(2, 3, dtype=torch.float64)
    wanted, z, final = recurrent_loop(pair_step, x, zero, Pair(zero, zero), weights, MyParameters(), 0.001)
    torch.testing.assert_close(output, wanted)
    assert state._fields == ("z", "fast", "slow")
    same(tuple(state), (z, *final), rtol=1e-12, atol=1e-12)


def test_a_step_without_annotation_is_refused():
    with pytest.raises(TypeError, match="state of no_annotation must be annotated with a NamedTuple"):
        scan(no_annotation, torch.ones(3, 1, 1))


def swapped_step(state: Rested, input: Tensor, p: MyParameters = MyParameters(), dt: float = 0.001):
    return input, state


def short_step(input: Tensor, state: Rested):
    return input, state


@pytest.mark.parametrize("step", [swapped_step, short_step])
def test_a_step_with_other_arguments_is_refused(step):
    with pytest.raises(TypeError, match=rf"{step.__name__} must take \(input, state, p, dt\) in this order"):
        scan(step, torch.ones(3, 1, 1))


def test_a_step_that_returns_a_plain_tuple_is_refused():
    def tuple_step(input: Tensor, state: Rested, p: MyParameters = MyParameters(), dt: float = 0.001):
        return input, (state.v,)

    with pytest.raises(ValueError, match="tuple_step must return its output and a Rested, it returns tuple"):
        scan(tuple_step, torch.ones(3, 1, 1))


def test_a_parameter_that_has_no_hash_is_left_to_the_plain_loop():
    def listing_step(input: Tensor, state: Rested, p: MyParameters = MyParameters(), dt: float = 0.001):
        return input * p.gain[0], state  # type: ignore[index]

    with pytest.warns(UserWarning, match="plain loop.*cannot be hashed"):
        output, _ = scan(listing_step, torch.ones(3, 1, 1), p=MyParameters(gain=[2.0]))  # type: ignore[arg-type]
    assert output.sum() == 6


def test_equal_parameters_of_another_type_are_others():
    x = torch.randn(5, 2, 3, generator=generator(0), dtype=torch.float64)
    for p, gain in ((MyParameters(3.0, 5.0), 3.0), (Swapped(3.0, 5.0), 5.0), (MyParameters(3.0, 5.0), 3.0)):
        _, state = scan(pair_step, x[:1], p=p)
        torch.testing.assert_close(state.fast, gain * x[0])


def test_a_rest_that_changes_is_seen(monkeypatch: pytest.MonkeyPatch):
    x = torch.ones(3, 2, 4)
    for rest in (0.0, 2.0):
        monkeypatch.setitem(REST, "v", rest)
        assert torch.equal(scan(elsewhere_step, x)[1].v, torch.full((2, 4), 3.0 + rest))


def test_each_kind_of_input_begins_at_its_own_rest():
    for _ in range(2):
        for shape, dtype in (((2, 3), torch.float32), ((2, 3), torch.float64), ((4,), torch.float32)):
            output, state = scan(pair_step, torch.ones(2, *shape, dtype=dtype))
            assert output.dtype == state.fast.dtype == dtype
            torch.testing.assert_close(state.fast, torch.full(shape, 3.0, dtype=dtype))
            state.slow.add_(1.0)  # it is the caller's


@pytest.mark.parametrize("dt", [-0.001, 0.0, float("nan"), float("inf")])
def test_a_wrong_time_step_is_refused_after_a_right_one(dt: float):
    x = torch.ones(2, 2, 3)
    scan(pair_step, x, dt=0.001)
    with pytest.raises(ValueError, match="dt must be a positive number of seconds"):
        scan(pair_step, x, dt=dt)
