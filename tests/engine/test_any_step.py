"""Steps that nobody wrote: drawn of numbers, masks and what torch makes of both, and fused as they come."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snnlib import spike
from tests.engine.equality import FUSED_BACKENDS, device_of, everything
from tests.neurons import generator


class State(NamedTuple):
    v: Tensor
    w: Tensor


class Parameters(NamedTuple):
    a: float | Tensor = 0.5
    method: str = "arctan"


Formula = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of input, v and w."""

_LEAVES: list[Formula] = [
    lambda x, v, w: x,
    lambda x, v, w: v,
    lambda x, v, w: w,
    lambda x, v, w: torch.full_like(x, 0.25),
]
_OF_ONE = [torch.tanh, torch.sigmoid, torch.relu, torch.abs, torch.neg, torch.exp, torch.sin,
           lambda a: a.clamp(-0.3, 0.4), lambda a: a**2, lambda a: 0.3 * a + 0.1, lambda a: 1 - a,
           torch.nn.functional.softplus, torch.nn.functional.leaky_relu]  # fmt: skip
_OF_TWO = [torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum, lambda a, b: a / (1 + b * b)]
_COMPARED = [torch.gt, torch.le, torch.lt, torch.ge]
_JOINED = [torch.logical_and, torch.logical_or, torch.logical_xor, torch.mul, torch.add, torch.eq,
           torch.maximum, torch.gt, lambda a, b: a & b, lambda a, b: ~a | b]  # fmt: skip


def _numbers(
    inner: st.SearchStrategy[Formula], masks: st.SearchStrategy[Formula]
) -> st.SearchStrategy[Formula]:
    def one(f, a):
        return lambda *of: f(a(*of).tanh())

    def two(f, a, b):
        return lambda *of: f(a(*of), b(*of))

    def chosen(mask, a, b):
        return lambda *of: torch.where(mask(*of), a(*of), b(*of))

    def masked(mask, a, by):
        return lambda *of: (mask(*of) * by) * a(*of)

    def counted(mask, other):
        return lambda *of: mask(*of) * 1 + other(*of) * 0.5

    return st.one_of(
        st.builds(one, st.sampled_from(_OF_ONE), inner),
        st.builds(two, st.sampled_from(_OF_TWO), inner, inner),
        st.builds(chosen, masks, inner, inner),
        st.builds(masked, masks, inner, st.sampled_from([1, 1.0, True, 0.5])),
        st.builds(counted, masks, inner),
    )


def _masks(numbers: st.SearchStrategy[Formula]) -> st.SearchStrategy[Formula]:
    def compared(f, a, b):
        return lambda *of: f(a(*of), b(*of) + 0.05)

    def joined(f, a, b):
        return lambda *of: f(a(*of), b(*of))

    single = st.builds(compared, st.sampled_from(_COMPARED), numbers, numbers)
    return st.one_of(single, st.builds(joined, st.sampled_from(_JOINED), single, single))


_FORMULAS = st.recursive(st.sampled_from(_LEAVES), lambda inner: _numbers(inner, _masks(inner)), max_leaves=6)


@pytest.mark.parametrize("backend", FUSED_BACKENDS)
@settings(max_examples=24, deadline=None, derandomize=True)
@given(drive=_FORMULAS, other=_FORMULAS, seed=st.integers(0, 99))
def test_a_step_gives_what_the_plain_loop_gives(backend: str, drive: Formula, other: Formula, seed: int):
    """In float64: with the gradients of input, state and parameters, and without falling back to that loop."""

    def drawn_step(input: Tensor, state: State, p: Parameters = Parameters(), dt: float = 0.001):
        v = p.a * state.v + drive(input, state.v, state.w)
        z = spike(v - 0.5, p.method)
        return z, State(v * (1 - z), torch.tanh(other(input, v, state.w)))

    device, source = device_of(backend), generator(seed)
    x = torch.randn(5, 2, 3, generator=source, dtype=torch.float64).to(device)
    state = State(*torch.rand(2, 2, 3, generator=source, dtype=torch.float64).to(device))
    p = Parameters(a=torch.tensor(0.6, dtype=torch.float64, device=device))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        got = everything(backend, drawn_step, x, state, p)
    for ours, theirs in zip(got, everything("reference", drawn_step, x, state, p), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


class Exact(NamedTuple):
    a: float | Tensor = 0.5
    method: str = "adjoint"
    alpha: float | None = None


@pytest.mark.parametrize("backend", FUSED_BACKENDS)
@settings(max_examples=24, deadline=None, derandomize=True)
@given(drive=_FORMULAS, gain=_FORMULAS, other=_FORMULAS, seed=st.integers(0, 99), learns=st.booleans())
def test_its_adjoint_too(backend: str, drive: Formula, gain: Formula, other: Formula, seed: int, learns: bool):
    def drawn_step(input: Tensor, state: State, p: Exact = Exact(), dt: float = 0.001):
        v = state.v + 300 * dt * (
            p.a * drive(input, state.v, state.w) + gain(input, state.w, state.v) - state.v
        )
        z = spike(v - 0.3, p.method, p.alpha)
        w = state.w + 100 * dt * (other(input, v, state.w).tanh() - state.w)
        return z, State(v * (1 - z), w + 0.2 * z)

    device, source = device_of(backend), generator(seed)
    x = torch.randn(7, 2, 3, generator=source, dtype=torch.float64).to(device)
    state = State(*torch.rand(2, 2, 3, generator=source, dtype=torch.float64).to(device))
    p = Exact(a=torch.tensor(0.9, dtype=torch.float64, device=device) if learns else 0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        got = everything(backend, drawn_step, x, state, p)
    for ours, theirs in zip(got, everything("reference", drawn_step, x, state, p), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
