"""Steps that count with truth values, as PyTorch lets them: masks that multiply, are added, are compared."""

import warnings
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from snnlib.engine import scan
from tests.engine.equality import device_of, everything
from tests.neurons import generator

pytestmark = pytest.mark.usefixtures("poisoned_memory")


class State(NamedTuple):
    v: Tensor
    w: Tensor


class Nothing(NamedTuple):
    unused: float = 0.0


MASKED = {
    "a mask times a number": lambda v, w: (v > 0.2) * w,
    "a number times a mask": lambda v, w: v * (w == 0.25),
    "one less a mask": lambda v, w: (1 - (v > 0.2) * 1.0) * w,
    "a mask as a number": lambda v, w: (v > 0.2).float().to(v.dtype) + (w > 0.2).to(v.dtype),
    "a mask that is counted": lambda v, w: ((v > 0.2) * 1 + (w > 0.1) * 1) * v,
    "a mask as an integer": lambda v, w: (v > 0.2).long() * w + (w > 0.1).int(),
    "a mask behind a division": lambda v, w: v / (1 + (w > 0.1)),
    "a mask under a power": lambda v, w: v ** (1 + (w > 0.1)),
    "masks that multiply": lambda v, w: torch.where((v > 0.1) * (w < 0.6), v, 0.0),
    "masks that are added": lambda v, w: torch.where((v > 0.4) + (w < 0.3), v, w),
    "a mask and True": lambda v, w: torch.where((v > 0.1) & True, v, 0.0),
    "a mask or False": lambda v, w: torch.where((v > 0.1) | False, v, 0.0),
    "a mask that is negated": lambda v, w: ~(v > 0.1) * w + torch.logical_not(v > 0.3) * v,
    "masks that differ": lambda v, w: ((v > 0.1) ^ (w > 0.2)) * v + torch.logical_xor(v > 0.3, w > 0.1) * w,
    "numbers asked for truth": lambda v, w: torch.logical_and(v, w > 0.2) * v + torch.logical_not(w) * w,
    "a number as a mask": lambda v, w: torch.where(torch.floor(v * 4).bool(), v, w),
    "masks that are ordered": lambda v, w: torch.where((v > 0.2) > (w > 0.2), v, w),
    "masks that are ordered the other way": lambda v, w: ((v > 0.2) <= (w > 0.2)) * v,
    "masks that are equal": lambda v, w: ((v > 0.2) == (w > 0.2)) * v + ((v > 0.2) != True) * w,  # noqa: E712
    "a mask and a number that are equal": lambda v, w: ((v > 0.2) == 1) * v + ((v > 0.2) < 0.5) * w,
    "the larger of masks": lambda v, w: torch.maximum(v > 0.2, w > 0.2) * v,
    "the smaller of masks": lambda v, w: torch.minimum(v > 0.1, w > 0.1) * w,
    "a mask out of masks": lambda v, w: torch.where(v > 0.2, w > 0.3, w < 0.1) * v,
    "a mask in the place of a number": lambda v, w: torch.where(v > 0.2, w > 0.3, w),
    "masks of ones and zeros": lambda v, w: torch.where(torch.ones_like(v, dtype=torch.bool), v, w)
    + torch.where(torch.zeros_like(v, dtype=torch.bool) | (v > 0.2), w, v),
    "what is finite": lambda v, w: torch.isfinite(v / torch.relu(w)) * w + torch.isnan(v) * w,
    "a number filled in": lambda v, w: v.masked_fill((v > 0.2) * (w > 0.2), 0.5),
    "a mask by a number": lambda v, w: ((v > 0.2) * 0.5 + 0.25) * w,
    "masks of known numbers": lambda v, w: ((torch.full_like(v, 0.25) < 0.1) & (v > 0.2)) * v
    + torch.where(torch.zeros_like(v) == 0, w, v) + torch.where(torch.full_like(v, 0.25) < 0.1, v, 0.1),
    "integers that are large": lambda v, w: ((v > 0.2).int() * 4095) * ((w > 0.1).long() * -4096) * v / 2**24,
    "a mask that is kept": lambda v, w: (v > 0.2).clone().detach() * w,
}  # fmt: skip


def step_of(masked: Any) -> Any:
    def masking_step(input: Tensor, state: State, p: Nothing = Nothing(), dt: float = 0.001):
        v = 0.9 * state.v + input
        return masked(v, state.w) + 0.1 * v, State(torch.tanh(v), torch.floor(4 * torch.tanh(v)) / 4)

    return masking_step


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", MASKED)
def test_a_mask_counts_as_in_torch(backend: str, name: str, dtype: torch.dtype):
    step = step_of(MASKED[name])
    device = device_of(backend)
    x = (0.6 * torch.rand(8, 2, 5, generator=generator(5), dtype=dtype) - 0.2).to(device)
    state = State(*torch.rand(2, 2, 5, generator=generator(6), dtype=dtype).to(device))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        got = everything(backend, step, x, state, Nothing())
    for ours, theirs in zip(got, everything("reference", step, x, state, Nothing()), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert float(got[0].detach().abs().sum()) > 1


def bits_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return input * (((input > 0.1) * 3) & ((input > 0.2) * 1)), state


def truncating_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return input * (3 * input).long(), state


def bytes_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return input * ((input > 0.1).byte() * 200 + (input > 0.2).byte() * 200), state


def large_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return input * ((input > 0.1).long() * 16777217 - 16777216), state


def growing_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    count = (input > 0.1).long() * 257
    return input * (count * count * count - count), state


def wrapping_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return input * ((input > 0.1).int() * 2147483647 + 1 + 2147483647), state


def number_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    return input * (torch.full((), 0.1, dtype=torch.float32) * 3), state


def rounding_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    """The product of the mask is rounded to float32 before it meets the state."""
    return input * ((input > 0.1) * 0.3), state


def precise_step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
    """The number that the mask meets in float32 is an integer that float32 has not."""
    return input * ((input > 0.1) * 16777217.0), state


@pytest.mark.parametrize(("step", "says"), [
    (bits_step, "of the bits of integers"),
    (truncating_step, "to torch.int64"),
    (bytes_step, "uint8"),
    (large_step, r"integers that may be 2\*\*24"),
    (growing_step, r"integers that may be 2\*\*24"),
    (wrapping_step, r"integers that may be 2\*\*24"),
    (number_step, "float32, where the state is torch.float64"),
    (rounding_step, "float32, where the state is torch.float64"),
    (precise_step, "float32, where the state is torch.float64"),
])  # fmt: skip
def test_what_torch_rounds_otherwise_is_left_to_it(step: Any, says: str):
    x = torch.rand(6, 2, 4, generator=generator(1), dtype=torch.float64)
    with pytest.warns(UserWarning, match=says):
        got, _ = scan(step, x)
    assert torch.equal(got, scan(step, x, backend="reference")[0])
    assert got.any()


def test_a_number_of_another_type_is_rounded_to_it(backend: str):
    def step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return input * torch.full((), 0.1, dtype=torch.float32), state

    x = torch.ones(2, 1, 1, dtype=torch.float64).to(device_of(backend))
    got, _ = scan(step, x, backend=backend)
    assert torch.equal(got, scan(step, x, backend="reference")[0])


def test_known_numbers_are_compared_in_the_precision_of_the_state(backend: str):
    def step(input: Tensor, state: State, p: Any = None, dt: float = 0.001):
        return torch.where(torch.full_like(input, 0.1) == 0.1, input, 0.0), state

    x = torch.rand(4, 2, 3, generator=generator(0)).to(device_of(backend))
    assert torch.equal(scan(step, x, backend=backend)[0], x)
