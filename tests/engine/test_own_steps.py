"""Steps of one's own over time."""

import functools
import gc
import weakref
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from snnlib import Cell, Layer, RecurrentLayer
from snnlib.engine import scan
from snnlib.engine.begin import _at_rest
from snnlib.engine.state import _number
from snnlib.functional import LIFFeedForwardState
from tests.engine.equality import FUSED_BACKENDS, device_of
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
    usual: Any = MyParameters(gain=None)  # type: ignore[arg-type]

    def listing_step(input: Tensor, state: Rested, p: MyParameters = usual, dt: float = 0.001):
        return input * p.gain[0], state  # type: ignore[index]

    with pytest.warns(UserWarning, match="plain loop.*cannot be hashed"):
        output, _ = scan(listing_step, torch.ones(3, 1, 1), p=MyParameters(gain=[2.0]))  # type: ignore[arg-type]
    assert output.sum() == 6


def test_equal_parameters_of_another_type_are_others():
    x = torch.randn(5, 2, 3, generator=generator(0), dtype=torch.float64)
    for p, gain in ((MyParameters(3.0, 5.0), 3.0), (Swapped(3.0, 5.0), 5.0), (MyParameters(3.0, 5.0), 3.0)):
        _, state = scan(pair_step, x[:1], p=p)
        torch.testing.assert_close(state.fast, gain * x[0])


class Low(NamedTuple):
    v_leak: float = 0.25
    other: float = 0.5


class High(NamedTuple):
    other: float = 0.25
    v_leak: float = 0.5


def staying_step(input: Tensor, state: LIFFeedForwardState, p: Low | High = Low(), dt: float = 0.001):
    return input, state


def test_equal_parameters_of_another_type_rest_elsewhere():
    for p, rest in ((Low(), 0.25), (High(), 0.5), (Low(), 0.25)):
        _, state = scan(staying_step, torch.ones(2, 2, 3), p=p, backend="reference")
        assert torch.equal(state.v, torch.full((2, 3), rest))


def test_a_rest_at_zero_has_no_sign():
    """Zeros are equal, and what is kept for one is taken for the other, whichever came first."""
    _at_rest.cache_clear()
    _number.cache_clear()
    for zero in (-0.0, 0.0):
        _, state = scan(staying_step, torch.ones(2, 2, 3), p=Low(zero), backend="reference")
        assert not state.v.signbit().any()


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


class Nothing(NamedTuple):
    """The state of a step that keeps nothing."""


def stateless_step(input: Tensor, state: Nothing, p: Any = None, dt: float = 0.001):
    return torch.relu(input), Nothing()


@pytest.mark.parametrize("backend", FUSED_BACKENDS)
def test_a_step_without_a_state(backend: str):
    x = torch.randn(5, 2, 3, generator=generator(0)).to(device_of(backend)).requires_grad_()
    output, state = scan(stateless_step, x, backend=backend)
    assert state == Nothing()
    assert torch.equal(output, x.relu())
    (found,) = torch.autograd.grad(output.sum(), x)
    assert torch.equal(found, (x > 0).to(x))


@pytest.mark.parametrize("backend", ["reference", *FUSED_BACKENDS])
@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (2, 3)], ids=str)
def test_what_is_made_of_parameters_alone_is_that_of_all_samples(shape: tuple[int, ...], backend: str):
    """In the output and in the state, after a step of a cell too; a number as well."""

    def alone_step(input: Tensor, state: Pair, p: MyParameters = MyParameters(), dt: float = 0.001):
        return 2 * p.gain, Pair(state.fast + state.slow, p.gain * p.gain)

    x, device = torch.randn(4, 2, 3, generator=generator(0)), device_of(backend)
    gain = torch.full(shape, 3.0, device=device, requires_grad=True)
    output, state = scan(alone_step, x.to(device), None, MyParameters(gain), backend=backend)
    assert torch.equal(output.cpu(), torch.full((4, 2, 3), 6.0))
    assert torch.equal(state.fast.cpu(), torch.full((2, 3), 27.0))
    assert torch.equal(state.slow.cpu(), torch.full((2, 3), 9.0))
    (found,) = torch.autograd.grad(output.sum() + state.slow.sum() + state.fast.sum(), gain)
    assert torch.equal(found.cpu(), torch.full((2, 3), 2 * 4 + 6.0 + 3 * 6.0).sum_to_size(shape))
    single, state = Cell(alone_step, MyParameters(gain.detach()))(x[0].to(device))
    assert single.shape == state.slow.shape == (2, 3)


def test_the_parameters_are_the_callers_though_equal_ones_came_before():
    seen = []

    def noting_step(input: Tensor, state: Pair, p: MyParameters = MyParameters(), dt: float = 0.001):
        seen.append(p)
        return input, state

    pair = MyParameters(0.0), MyParameters(-0.0)
    for p in pair:
        scan(noting_step, torch.ones(1, 2, 3), p=p, backend="reference")
    assert [id(p) for p in seen] == [id(p) for p in pair]


def test_nothing_that_a_step_holds_is_kept():
    held = torch.nn.Linear(3, 3)

    def holding_step(
        input: Tensor, state: Pair, p: Any = None, dt: float = 0.001, held: torch.nn.Module = held
    ):
        return input, Pair(state.fast + input, state.slow)

    scan(holding_step, torch.ones(2, 2, 3), backend="reference")
    alive = weakref.ref(held)
    del held, holding_step
    gc.collect()
    assert alive() is None


def test_what_a_step_does_to_its_first_state_is_seen_by_nobody_else():
    asked = []

    def asking_step(input: Tensor, state: Pair, p: Any = None, dt: float = 0.001):
        asked.append(state.fast.requires_grad)
        state.fast.requires_grad_()
        return input, Pair(state.fast.detach() + input, state.slow)

    for _ in range(2):
        scan(asking_step, torch.ones(1, 2, 3), backend="reference")
    assert asked == [False, False]


def test_a_state_without_a_module():
    """As code that was typed into a program has it."""
    names: dict[str, Any] = {}
    code = """
from typing import NamedTuple
import torch
class Typed(NamedTuple):
    v: torch.Tensor
    @classmethod
    def initial(cls, p):
        return cls(v=0.5)
def typed_step(input, state: Typed, p=None, dt=0.001):
    return input, Typed(state.v + input)
"""
    exec(code, names)
    _, state = scan(names["typed_step"], torch.ones(2, 2, 3))
    assert torch.equal(state.v, torch.full((2, 3), 2.5))


@pytest.mark.parametrize("p", [[1.0, 2.0], {"gain": 1.0}, 5.0, torch.ones(3), "adjoint"], ids=str)
def test_what_is_no_namedtuple_is_refused(p: Any):
    with pytest.raises(ValueError, match=r"p must be MyParameters\(\.\.\.\), got"):
        scan(pair_step, torch.ones(2, 2, 3), p=p)


def scaled_step(gain: float, input: Tensor, state: Pair, p: MyParameters = MyParameters(), dt: float = 0.001):
    return pair_step(gain * input, state, p, dt)


class Scaled:
    """A step that is an object."""

    gain = 3.0

    def __call__(self, input: Tensor, state: Pair, p: MyParameters = MyParameters(), dt: float = 0.001):
        return pair_step(self.gain * input, state, p, dt)


@pytest.mark.parametrize("step", [functools.partial(scaled_step, 3.0), Scaled()])
@pytest.mark.parametrize("backend", ["reference", *FUSED_BACKENDS])
def test_a_step_may_have_bound_arguments_or_be_an_object(step: Any, backend: str):
    x = torch.rand(7, 2, 5, generator=generator(0), device=device_of(backend))
    same(scan(step, x, backend=backend)[0], scan(pair_step, 3.0 * x, backend="reference")[0])
    for layer in (Layer(step, backend=backend), RecurrentLayer(step, 5, 6, backend=backend)):
        assert layer.to(x.device)(x)[0].isfinite().all()


def test_a_bound_parameter_is_no_argument_any_more():
    with pytest.raises(TypeError, match=r"pair_step must take \(input, state, p, dt\) in this order"):
        scan(functools.partial(pair_step, p=MyParameters()), torch.rand(7, 2, 5))
