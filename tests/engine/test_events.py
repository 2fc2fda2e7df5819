"""What is packed for spikes alone comes back."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from snnlib.engine import events
from snnlib.engine.emit_loops import LANES, WORD
from snnlib.engine.events import append, back, bits_of, packing
from snnlib.engine.vector import bare


def compiled(kept: int, read: int, marks: bool):
    """One step of neurons, word by word as the loops of :mod:`snnlib.engine.emit_loops` go over them."""
    pack, unpack = packing(kept, read, marks)

    @njit
    def packed_(marked, rows, packed, masks, place):
        size, (at, to), found = marked.shape[0], place, 0
        room = np.empty((kept, 2 * WORD), rows.dtype)
        squeezed = np.empty((kept, size + LANES), rows.dtype)
        for u in range(0, size, WORD):
            v, first = min(u + WORD, size), to % 2 * WORD
            room[:, first : first + v - u] = rows[:kept, u:v]
            masks[to] = bits_of(marked[u:v])
            found = pack(masks[to], room, first, squeezed, found)
            to += 1
        place[0], place[1] = append(squeezed, found, packed, at), to

    @njit
    def unpacked(size, packed, masks, place, rows):
        first_word, found = back(size, masks, place[1])
        place[0], place[1] = place[0] - found, first_word
        (at, to), column = place, 0
        room = np.empty((read + 1, 2 * WORD), rows.dtype)
        squeezed = np.full((read, size + LANES), np.nan, rows.dtype)
        for e in range(read):
            start = kept * at + e * found
            squeezed[e, :found] = packed[start : start + found]
        for u in range(0, size, WORD):
            v, first = min(u + WORD, size), to % 2 * WORD
            column = unpack(masks[to], squeezed, column, room, first)
            rows[:, u:v] = room[:, first : first + v - u]
            to += 1
        return found, column, to - place[1]

    return packed_, unpacked


def assert_comes_back() -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for kept, read, size, rate in (
            (1, 1, 1, 1.0),
            (2, 2, 16, 0.5),
            (3, 2, 77, 0.1),
            (2, 1, 64, 0.0),
            (1, 1, 200, 1.0),
        ):
            pack, unpack = compiled(kept, read, marks=size != 16)
            marked = (rng.random((9, size)) < rate).astype(dtype)
            rows = rng.standard_normal((9, kept, size)).astype(dtype)
            packed = np.full(kept * int(marked.sum()) + LANES, np.nan, dtype)
            masks, place = np.zeros(9 * -(-size // WORD), np.int64), np.zeros(2, np.int64)
            for step in range(9):
                pack(marked[step], rows[step], packed, masks, place)
            assert place.tolist() == [marked.sum(), len(masks)]
            wanted = [rows[step][:, np.flatnonzero(marked[step])].ravel() for step in range(9)]
            np.testing.assert_array_equal(packed[: kept * place[0]], np.concatenate(wanted))
            for step in range(8, -1, -1):
                found = np.full((read + 1, size), np.nan, dtype)
                spikes = marked[step].sum()
                assert unpack(size, packed, masks, place, found) == (spikes, spikes, -(-size // WORD))
                there = np.flatnonzero(marked[step])
                np.testing.assert_array_equal(found[:read, there], rows[step, :read][:, there])
                assert place[0] == marked[:step].sum()
                if size != 16:
                    np.testing.assert_array_equal(found[read], marked[step])
            assert place[1] == 0


@pytest.mark.parametrize("vectors", [False, True])
def test_what_was_packed_comes_back(vectors: bool, monkeypatch: pytest.MonkeyPatch):
    """By both ways to move numbers; without AVX-512 the second is another spelling of it."""
    monkeypatch.setattr(events, "moves_vectors", bare(lambda: vectors))
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
