"""The language of the loops means what Python means by the same words."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snnlib.engine.llvm.builder import Builder, built, lanes
from snnlib.engine.llvm.compiler import defined
from snnlib.engine.llvm.elementary import where
from snnlib.engine.llvm.vector import bits_of
from snnlib.engine.loops.events import at_place
from snnlib.engine.sizes import LANES
from tests.engine.compiled import integers, ready

NUMBERS = {torch.float32: np.float32, torch.float64: np.float64}


def as_python(function: Callable[..., None], *arrays: Tensor) -> None:
    """Call it without compiling, with NumPy's arrays, whose memory is that of the tensors."""
    function(*(array.numpy() for array in arrays))


def assert_is_python(function: Callable[..., None], *arrays: Tensor) -> None:
    """Compiled it does to the arrays what Python does."""
    mine, theirs = ([array.clone() for array in arrays] for _ in range(2))
    ready(function, mine)(*mine)
    as_python(function, *theirs)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
    assert not all(torch.equal(a, b) for a, b in zip(mine, arrays, strict=True))


def test_loops_and_branches():
    def function(out):
        for j in range(out.shape[0]):
            out[j] = j
        for j in range(1, out.shape[0], 3):
            out[j] += 10 * j
        for j in range(out.shape[0] - 1, 2, -2):
            out[j] -= 1
        for j in range(5, 5):
            out[j] = 999
        count = 0
        while count * count < 20:
            count += 1
        if count == 5:
            out[0] = 1
        elif count == 6:
            out[0] = 2
        else:
            out[0] = 3
        a, b = count, out[3]
        a, b = b, a
        out[1], out[2] = a, b
        out[4] = j  # as the loop left it

    assert_is_python(function, torch.zeros(11, dtype=torch.int64))


def test_arithmetic_of_integers():
    def function(a, b, out):
        x, y = int(a[0]), int(b[0])  # NumPy's comparisons do not add up
        out[0], out[1], out[2], out[3] = x + y, x - y, x * y, x // y
        out[4], out[5], out[6], out[7] = x % y, x << 3, x >> 2, -x
        out[8], out[9] = x & y, x | y
        out[10], out[11] = min(x, y), max(x, y, 7) if False else max(x, y)
        out[12] = (x < y) + (x <= y) + (x > y) + (x >= y) + 10 * (x == y) + 100 * (x != y)
        out[13] = int(x < y) << 4
        out[14] = 5 if x > 3 and y > 3 else 6
        out[15] = 5 if x > 300 or y > 3 else 6
        out[16] = int(not x > 3)
        word = y
        word &= word - 1
        out[17] = word

    for x, y in ((100, 7), (4, 9), (5, 5)):
        assert_is_python(function, integers(x), integers(y), torch.zeros(18, dtype=torch.int64))


@pytest.mark.parametrize("dtype", NUMBERS)
def test_arithmetic_of_numbers(dtype: torch.dtype):
    F = NUMBERS[dtype]

    def function(a, b, out, order):
        for j in range(a.shape[0]):
            x, y = a[j], b[j]
            out[0, j], out[1, j], out[2, j], out[3, j] = x + y, x - y, x * y, x / y
            out[4, j], out[5, j] = -x, abs(x)
            out[6, j] = F(0.1) + x
            out[7, j] = F(1.0) if x > 0.5 else y
            out[8, j] = x * y + x  # two roundings
            out[9, j] = 2
            out[9, j] *= x
            order[j] = (x < y) + 2 * (x <= y) + 4 * (x > y) + 8 * (x >= y) + 16 * (x == y) + 32 * (x != y)
            order[j] += 64 if x else 128

    values = [0.3, -1.5, math.nan, math.inf, -0.0, 1e-40, 1.0]
    a = torch.tensor([x for x in values for _ in values], dtype=dtype)
    b = torch.tensor([y for _ in values for y in values], dtype=dtype)
    with np.errstate(all="ignore"):
        order = torch.zeros(len(a), dtype=torch.int64)
        assert_is_python(function, a, b, torch.zeros(10, len(a), dtype=dtype), order)


def test_parts_of_arrays():
    def function(a, out):
        planes, rows, columns = a.shape
        for k in range(planes):
            plane = a[k]
            for i in range(rows):
                row = plane[i]
                out[k, i, 0:2] = row[columns - 1]
                out[k, i, 3:] = plane.shape[1]
                part = a[k, i, 1:4]
                out[k, i, 2] = part[1] + part.shape[0]
        chosen = a[0, 0] if columns > 3 else a[1, 1]
        out[1, 1, 0] = chosen[2]
        chosen = a[0, 1]
        out[1, 1, 1] = chosen[1]
        first, second = a.shape[1:]
        out[0, 0, :] = first * 10 + second

    a = torch.arange(30).reshape(2, 3, 5)
    assert_is_python(function, a, torch.zeros_like(a))


def test_what_python_knows_is_computed_while_compiling():
    scale, names = 3, (4, 5)

    def function(out):
        if scale == 3:
            out[0] = names[1] * scale
        else:
            no_such_function(out)  # noqa: F821
        for j in range(scale):
            out[1 + j] = scale**2 + names[0]

    assert_is_python(function, torch.zeros(6, dtype=torch.int64))


def test_functions_call_functions():
    def halved(x):
        if x % 2:
            return x, -1
        return x // 2, 1

    def steps(x):
        """Collatz, to 1."""
        count = 0
        while x > 1:
            half, sign = halved(x)
            x = half if sign > 0 else 3 * x + 1
            count += 1
        return count

    def function(out):
        for j in range(1, out.shape[0]):
            out[j] = steps(j) + steps(2 * j)

    assert_is_python(function, torch.zeros(30, dtype=torch.int64))


def test_the_body_of_a_loop_may_return():
    def first_above(a, bound):
        for j in range(a.shape[0]):
            if a[j] > bound:
                return j
        return -1

    def function(a, out):
        for k in range(out.shape[0]):
            out[k] = first_above(a, k)

    assert_is_python(function, integers(0, 2, 1, 5), torch.zeros(7, dtype=torch.int64))


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("registers", [(), (2,), (4, 1), (3, 2, 1)], ids=str)
@pytest.mark.parametrize("size", [0, 1, LANES - 1, LANES, 3 * LANES + 5, 10 * LANES + 9])
def test_lanes_are_a_range(dtype: torch.dtype, registers: tuple[int, ...], size: int):
    F = NUMBERS[dtype]
    many, some, one = (*registers, 1, 1, 1)[:3]

    def scaled(a, out, c):
        for j in lanes(a.shape[0], many, some, one):
            x, y = a[j], out[j]
            above = (x > y) | (x == F(0.0))
            out[j] = where(above, x * c, where(x != x, F(1.0), -y)) + F(0.5) / (abs(x) + 1)
            out[j] += 2

    def counted(a, out, c):
        for j in range(a.shape[0]):
            x, y = a[j], out[j]
            above = (x > y) | (x == F(0.0))
            out[j] = where(above, x * c, where(x != x, F(1.0), -y)) + F(0.5) / (abs(x) + 1)
            out[j] += 2

    def vectors(a, out, c):
        scaled(a, out, c[0])

    def numbers(a, out, c):
        counted(a, out, c[0])

    torch.manual_seed(0)
    a, c = torch.randn(size, dtype=dtype), torch.tensor([1.7], dtype=dtype)
    a[::5], a[1::7] = 0.0, math.nan
    mine, theirs = (torch.full((size,), 0.3, dtype=dtype) for _ in range(2))
    for function, out in ((vectors, mine), (numbers, theirs)):
        ready(function, (a, out, c))(a, out, c)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
    assert size == 0 or not (mine == 0.3).any()


def test_bytes_of_lanes_hold_bits():
    size = 2 * LANES + 3

    def function(x, out, back):
        for j in lanes(x.shape[0]):
            low = where(x[j] > F(0.0), F(1.0), F(0.0))
            out[j] = low + where(x[j] > F(1.0), F(2.0), F(0.0))
        for j in lanes(x.shape[0]):
            back[j] = where((out[j] & 2) != 0, x[j], F(0.0))

    F = np.float32
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)) * 2
    out, back = torch.zeros(size, dtype=torch.uint8), torch.zeros(size)
    ready(function, (x, out, back))(x, out, back)
    assert torch.equal(out, (x > 0).byte() + 2 * (x > 1).byte())
    assert torch.equal(back, torch.where(x > 1, x, 0.0))


def test_carried_through_lanes():
    """What was a variable before goes on through vectors and what is left; what was not is made twice."""

    def function(x, out):
        word = 0
        for j in lanes(x.shape[0]):
            bits = bits_of(x[j])
            word |= at_place(bits, j)
        out[0] = word

    for size in (1, 16, 63, 64):
        x = (torch.arange(size) % 3 == 0).float()
        out = torch.zeros(1, dtype=torch.int64)
        ready(function, (x, out))(x, out)
        wanted = sum(1 << k for k in range(0, size, 3))
        assert out.item() % (1 << 64) == wanted


def test_a_branch_that_is_not_taken_reads_nothing():
    def function(a, out):
        for j in range(out.shape[0]):
            out[j] = a[j * 1_000_000_000] if j < 1 else np.float32(7.0)

    assert_is_python(function, torch.tensor([3.0]), torch.zeros(4))


def test_a_source_has_functions_of_its_own_and_others():
    text = (
        "from math import pi\nfrom snnlib.engine.loops.product import copy\n\n"
        "def twice(x):\n    return 2 * x\n\ndef run(a, out):\n    copy(a, out)\n    out[0] = twice(a[1]) + pi\n"
    )
    a, out = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    ready(defined(text)["run"], (a, out))(a, out)
    assert out.tolist() == [4 + math.pi, 2.0, 3.0]


def test_what_is_built_gets_integers_of_llvm():
    found = []

    @built
    def noted(builder: Builder, *values: Any) -> None:
        found.extend(str(value.type) for value in values)

    def function(out):
        noted(3, True, out[0], out.shape[0])

    ready(function, (torch.zeros(2),))
    assert found == ["i64", "i64", "float", "i64"]
