"""What is packed for spikes alone comes back."""

import os
import subprocess
import sys

import numpy as np
from numba import njit

from snnlib.engine.events import pack, unpack
from snnlib.engine.vector import LANES


@njit
def _packed(z, rows, packed, place):
    return pack(z, rows, packed, place)


@njit
def _unpacked(z, packed, place, rows):
    return unpack(z, packed, place, rows)


def assert_comes_back() -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for count, width, rate in ((1, 1, 1.0), (2, 16, 0.5), (3, 77, 0.1), (2, 64, 0.0), (1, 200, 1.0)):
            z = (rng.random((9, width)) < rate).astype(dtype)
            rows = rng.standard_normal((9, count, width + 3)).astype(dtype)
            packed = np.full((count, int(z.sum()) + LANES), np.nan, dtype)
            places = [0]
            for step in range(9):
                places.append(_packed(z[step], rows[step], packed, places[-1]))
            assert places == [0, *np.cumsum(z.sum(1))]
            wanted = rows[:, :, :width].transpose(1, 0, 2)[:, z != 0]
            np.testing.assert_array_equal(packed[:, : places[-1]], wanted)
            place = places.pop()
            for step in range(8, -1, -1):
                found = np.full((count, width + 3), np.nan, dtype)
                place = _unpacked(z[step], packed, place, found)
                spiked = np.flatnonzero(z[step])
                np.testing.assert_array_equal(found[:, spiked], rows[step][:, spiked])
                assert np.isnan(found[:, width:]).all()
                assert place == places.pop()


def test_what_was_packed_comes_back():
    assert_comes_back()


def test_without_avx2_too():
    """By a process whose machine code is for any CPU of this kind."""
    plain = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    code = """
from numba.core.registry import cpu_target
assert "+avx2" not in cpu_target.target_context.codegen().magic_tuple()[2]
from tests.engine.test_events import assert_comes_back
assert_comes_back()
"""
    done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
