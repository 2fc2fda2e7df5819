"""What is packed for spikes alone comes back."""

import os
import subprocess
import sys

import numpy as np
from numba import njit

from snnlib.engine.emit import LANES, WORD
from snnlib.engine.events import pack, unpack


@njit
def _packed(marked, rows, packed, masks, place):
    pack(marked, rows, packed, masks, place)


@njit
def _unpacked(size, packed, masks, place, rows):
    unpack(size, packed, masks, place, rows)


def assert_comes_back() -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for count, size, rate in ((1, 1, 1.0), (2, 16, 0.5), (3, 77, 0.1), (2, 64, 0.0), (1, 200, 1.0)):
            marked = (rng.random((9, size)) < rate).astype(dtype)
            rows = rng.standard_normal((9, count + 1, size + LANES)).astype(dtype)
            packed = np.full((count, int(marked.sum()) + LANES), np.nan, dtype)
            masks, place = np.zeros(9 * -(-size // WORD), np.int64), np.zeros(2, np.int64)
            for step in range(9):
                _packed(marked[step], rows[step], packed, masks, place)
            assert place.tolist() == [marked.sum(), len(masks)]
            wanted = rows[:, :count, :size].transpose(1, 0, 2)[:, marked != 0]
            np.testing.assert_array_equal(packed[:, : place[0]], wanted)
            for step in range(8, -1, -1):
                found = np.full((count, size + LANES), np.nan, dtype)
                _unpacked(size, packed, masks, place, found)
                there = np.flatnonzero(marked[step])
                np.testing.assert_array_equal(found[:, there], rows[step, :count][:, there])
                assert place[0] == marked[:step].sum()
            assert place[1] == 0


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
