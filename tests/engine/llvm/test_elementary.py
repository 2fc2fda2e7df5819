"""Elementary functions of fused loops, beside NumPy's in a longer type of number."""

from typing import Any

import numpy as np
import pytest
import torch

from snnlib.engine.llvm import elementary
from snnlib.engine.llvm.builder import lanes
from tests.engine.compiled import ready

LONGER = {np.float32: np.float64, np.float64: np.longdouble}
WITHIN = {"exp": 0.8, "expm1": 2.0, "tanh": 3.0}
"""Units in the last place, as the docstrings say."""
RANGES = [(-1e-3, 1e-3), (-1.0, 1.0), (-20.0, 20.0), (-1000.0, 1000.0)]


def compiled(name: str) -> Any:
    """An elementary function of arrays."""
    function = getattr(elementary, name)

    def of_all(x, out):
        for j in lanes(x.shape[0]):
            out[j] = function(x[j])

    def call(x: np.ndarray) -> np.ndarray:
        given, out = torch.from_numpy(x), torch.from_numpy(np.empty_like(x))
        ready(of_all, (given, out))(given, out)
        return out.numpy()

    return call


@pytest.fixture(scope="module", params=sorted(WITHIN))
def named(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, compiled(request.param)


@pytest.mark.parametrize("number", LONGER)
@pytest.mark.parametrize("bounds", RANGES)
def test_last_digits_are_right(named, number, bounds) -> None:
    if number is np.float64 and np.finfo(np.longdouble).nmant <= np.finfo(number).nmant:
        pytest.skip("NumPy has no longer number than float64 here")
    name, function = named
    x = np.random.default_rng(0).uniform(*bounds, 100_003).astype(number)
    found = function(x)
    with np.errstate(over="ignore", under="ignore"):
        true = getattr(np, name)(x.astype(LONGER[number]))
        rounded = true.astype(number)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(found[~finite], rounded[~finite])
    found, true, rounded = found[finite], true[finite], rounded[finite]
    unit = np.spacing(np.maximum(np.abs(rounded), np.finfo(number).smallest_normal)).astype(true.dtype)
    assert (np.abs(found - true) / unit).max() <= WITHIN[name]


@pytest.mark.parametrize("number", LONGER)
def test_what_is_no_ordinary_number(named, number) -> None:
    name, function = named
    kind = np.finfo(number)
    x = np.array([0, kind.smallest_subnormal, np.inf, -np.inf, kind.max, -kind.max, np.nan], number)
    with np.errstate(over="ignore", under="ignore"):
        np.testing.assert_array_equal(function(x), getattr(np, name)(x))


@pytest.mark.parametrize("number", LONGER)
def test_exp_below_the_smallest_normal_number(number) -> None:
    """Its last digits are lost one by one down to zero; the step there is rounded once."""
    kind = np.finfo(number)
    exponents = np.arange(kind.minexp - 1, kind.minexp - kind.nmant - 1, -1)
    x = (exponents * np.log(2.0)).astype(number)
    found = compiled("exp")(x)
    assert (np.abs(found.astype(float) - np.exp(x).astype(float)) <= float(kind.smallest_subnormal)).all()
    assert (found > 0).all()
