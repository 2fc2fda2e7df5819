"""Products with recurrent weights are those of torch, for any number of samples, rows and columns."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from snnlib.engine.cpu import in_strips
from snnlib.engine.llvm.builder import Builder
from snnlib.engine.llvm.machine import as_array, shared
from snnlib.engine.loops import product, strips
from snnlib.engine.sizes import LANES
from tests.engine.compiled import ready

SAMPLES, ROWS, COLUMNS = (1, 3, 4, 9), (1, 7, 64), (1, LANES - 1, LANES, LANES + 1, 3 * LANES, 5 * LANES + 3)
SHAPES = list(itertools.product(SAMPLES, ROWS, COLUMNS))
BEHIND = 2 * LANES
"""Numbers behind the result, where nothing is to be written."""


def drawn(shape: tuple[int, ...], share: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers, of which this share is other than zero."""
    return torch.randn(shape, dtype=dtype) * (torch.rand(shape) < share)


def room(size: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Memory for a result, and the same with what is behind."""
    whole = torch.full((size + BEHIND,), float("nan"), dtype=dtype)
    return whole[:size], whole


def assert_near(found: Tensor, expected: Tensor, whole: Tensor) -> None:
    torch.testing.assert_close(found.view_as(expected), expected, rtol=1e-4, atol=1e-5)
    assert whole[found.numel() :].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.1, 1.0], ids=["sparse", "dense"])
def test_what_is_heard_is_multiplied(dtype: torch.dtype, share: float):
    torch.manual_seed(0)
    multiply = shared("product", "multiply", dtype)
    for samples, rows, columns in SHAPES:
        heard, weights = drawn((samples, rows), share, dtype), drawn((rows, columns), dtype=dtype)
        out, whole = room(samples * columns, dtype)
        places = torch.empty(rows + LANES, dtype=torch.int64)
        multiply([as_array(v) for v in (heard.flatten(), in_strips(weights), out, places)])
        assert_near(out, heard @ weights, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_pushed_back(dtype: torch.dtype):
    torch.manual_seed(0)
    push = shared("product", "push", dtype)
    for samples, rows, columns in SHAPES:
        given, weights = drawn((samples, rows), dtype=dtype), drawn((rows, columns), dtype=dtype)
        out, whole = room(samples * columns, dtype)
        push([as_array(v) for v in (given.flatten(), in_strips(weights), out)])
        assert_near(out, given @ weights, whole)


def test_gradients_are_pushed_back_by_wide_registers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Builder, "has_wide_registers", True)

    def push(given, weights, out, taken):
        product.push(given, weights, out)
        taken[0] = strips.strips_at_a_time()

    row, matrix, taken = torch.empty(0), torch.empty(0, 0, 0), torch.zeros(1, dtype=torch.int64)
    run = ready(push, (row, matrix, row, taken))
    torch.manual_seed(0)
    for samples, rows, columns in SHAPES:
        given, weights = drawn((samples, rows)), drawn((rows, columns))
        out, whole = room(samples * columns)
        run(given.flatten(), in_strips(weights), out, taken)
        assert taken.item() == 2
        assert_near(out, given @ weights, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.1, 1.0], ids=["sparse", "dense"])
def test_gradients_of_weights_grow(dtype: torch.dtype, share: float):
    torch.manual_seed(0)
    grow = shared("product", "grow", dtype)
    for samples, rows, columns in SHAPES:
        heard, given = drawn((samples, rows), share, dtype), drawn((samples, columns), dtype=dtype)
        out, whole = room(rows * columns, dtype)
        before = out.copy_(torch.randn(rows * columns)).clone().view(rows, columns)
        places = torch.empty(rows + LANES, dtype=torch.int64)
        arrays = heard.flatten(), given.flatten(), out.view(rows, columns), places
        grow([as_array(v) for v in arrays])
        assert_near(out, before + heard.T @ given, whole)


def test_nothing_heard_is_nothing():
    push = shared("product", "push", torch.float32)
    out, whole = room(5)
    push([as_array(v) for v in (torch.empty(0), in_strips(torch.empty(0, 5)), out)])
    assert_near(out, torch.zeros(5), whole)
    assert np.shape(in_strips(torch.empty(3, 0))) == (1, 3, LANES)
