"""What is packed for spikes alone comes back."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from snnlib.engine.emit_loops import LANES, WORD
from snnlib.engine.events import back, packing


def compiled(count: int, marks: bool):
    """One step of neurons, word by word as the loops of :mod:`snnlib.engine.emit_loops` go over them."""
    pack, unpack = packing(count, marks)

    @njit
    def packed_(marked, rows, packed, masks, place):
        at, to, room = place[0], place[1], np.empty((count, LANES), rows.dtype)
        for w in range(0, marked.shape[0], WORD):
            word, width = 0, LANES if w + WORD <= marked.shape[0] else 1
            for u in range(w, min(w + WORD, marked.shape[0]), width):
                room[:, :width] = rows[:count, u : u + width]
                at, word = pack(marked[u : u + width], room, packed, at, word, u - w)
            masks[to] = word
            to += 1
        place[0], place[1] = at, to

    @njit
    def unpacked(size, packed, masks, place, rows):
        back(size, masks, place)
        at, to, room = place[0], place[1], np.empty((count + 1, LANES), rows.dtype)
        for w in range(0, size, WORD):
            width = LANES if w + WORD <= size else 1
            for u in range(w, min(w + WORD, size), width):
                at = unpack(width, packed, at, masks[to] >> (u - w), room)
                rows[:, u : u + width] = room[:, :width]
            to += 1
        return at - place[0], to - place[1]

    return packed_, unpacked


def assert_comes_back() -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for count, size, rate in ((1, 1, 1.0), (2, 16, 0.5), (3, 77, 0.1), (2, 64, 0.0), (1, 200, 1.0)):
            pack, unpack = compiled(count, marks=size != 16)
            marked = (rng.random((9, size)) < rate).astype(dtype)
            rows = rng.standard_normal((9, count + 1, size)).astype(dtype)
            packed = np.full(count * int(marked.sum()) + LANES, np.nan, dtype)
            masks, place = np.zeros(9 * -(-size // WORD), np.int64), np.zeros(2, np.int64)
            for step in range(9):
                pack(marked[step], rows[step], packed, masks, place)
            assert place.tolist() == [marked.sum(), len(masks)]
            full, wanted = size - size % WORD, []
            for step in range(9):
                for start in (*range(0, full, LANES), *range(full, size)):
                    stop = start + (LANES if start < full else 1)
                    there = start + np.flatnonzero(marked[step, start:stop])
                    wanted.extend(rows[step, :count, there].T.ravel())
            np.testing.assert_array_equal(packed[: count * place[0]], wanted)
            for step in range(8, -1, -1):
                found = np.full((count + 1, size), np.nan, dtype)
                moved = unpack(size, packed, masks, place, found)
                assert moved == (marked[step].sum(), -(-size // WORD))
                there = np.flatnonzero(marked[step])
                np.testing.assert_array_equal(found[:count, there], rows[step, :count][:, there])
                assert place[0] == marked[:step].sum()
                if size != 16:
                    np.testing.assert_array_equal(found[count], marked[step])
            assert place[1] == 0


def test_what_was_packed_comes_back():
    assert_comes_back()


@pytest.mark.parametrize(("cpu", "features"), [("generic", ""), ("haswell", "+avx2,+popcnt")])
def test_without_what_this_cpu_has_too(cpu: str, features: str):
    """By a process whose machine code is for another CPU, which this one must know too."""
    if features and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU has no AVX2")
    code = f"""
from numba.core.registry import cpu_target
found = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
assert "+avx512f" not in found and ("+avx2" in found) == {bool(features)}
from tests.engine.test_events import assert_comes_back
assert_comes_back()
"""
    plain = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
