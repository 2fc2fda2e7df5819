"""What is packed for spikes alone comes back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from llvmlite import ir

from snnlib.engine.llvm import machine
from snnlib.engine.llvm.builder import built, lanes
from snnlib.engine.llvm.elementary import where
from snnlib.engine.llvm.entry import Target
from snnlib.engine.llvm.vector import bits_of
from snnlib.engine.loops import events, registers
from snnlib.engine.loops.events import append, at_place, back, behind, has_bit, moving
from snnlib.engine.loops.product import copy
from snnlib.engine.loops.registers import pick, placed
from snnlib.engine.sizes import LANES, WORD
from tests.engine.compiled import ready, target_with


def bits_in(marked):
    word = 0
    for j in lanes(marked.shape[0]):
        word |= at_place(bits_of(marked[j]), j)
    return word


def picked_3(marked, first, second, third, squeezed, found):
    for j in lanes(marked.shape[0], WORD // LANES, 1):
        found = pick(bits_of(marked[j]), squeezed, found, j, first[j], second[j], third[j])
    return found


def picked_1(marked, only, squeezed, found):
    for j in lanes(marked.shape[0], 1):
        found = pick(bits_of(marked[j]), squeezed, found, j, only[j])
    return found


def placed_2(word, squeezed, column, first, second):
    for j in lanes(first.shape[0], 2, 1):
        first[j] = placed(squeezed, 0, column, word, j)
        second[j] = placed(squeezed, 1, column, word, j)
        column = behind(column, word, j)
    return column


def functions(kept: int, read: int, marks: bool):
    """One step of neurons, word by word as the loops of :mod:`snnlib.engine.emit.loops` go over them."""
    pack, unpack = moving.__wrapped__(kept, read)  # functions of their own: another test patches what they call

    def packed_(marked, rows, room, squeezed, packed, masks, place):
        at, to = place
        found = 0
        for u in range(0, marked.shape[0], WORD):
            v, first = min(u + WORD, marked.shape[0]), (to & 1) * WORD
            masks[to] = bits_in(marked[u:v])
            if registers.from_registers(squeezed):
                if kept == 3:
                    found = picked_3(marked[u:v], rows[0, u:v], rows[1, u:v], rows[2, u:v], squeezed, found)
                else:
                    found = picked_1(marked[u:v], rows[0, u:v], squeezed, found)
            else:
                for e in range(kept):
                    copy(rows[e, u:v], room[e, first : first + v - u])
                found = pack(masks[to], room, first, squeezed, found)
            to += 1
        place[0], place[1] = append(squeezed, found, packed, at, False), to

    def marked_in(word, out):
        for j in lanes(out.shape[0]):
            out[j] = where(has_bit(word, j), out[j] * 0 + 1, out[j] * 0)

    def unpacked(packed, masks, place, room, squeezed, rows, done):
        size = rows.shape[1]
        first_word, found = back(size, masks, place[1])
        place[0], place[1] = place[0] - found, first_word
        at, to = place
        column = 0
        for e in range(read):
            start = kept * at + e % kept * found
            copy(packed[start : start + found], squeezed[e, 0:found])
        for u in range(0, size, WORD):
            v, first = min(u + WORD, size), (to & 1) * WORD
            if registers.to_registers(squeezed):
                column = placed_2(masks[to], squeezed, column, rows[0, u:v], rows[1, u:v])
            else:
                column = unpack(masks[to], squeezed, column, room, first)
                for e in range(read):
                    copy(room[e, first : first + v - u], rows[e, u:v])
            if marks:
                rows[read, u:v] = 0
                marked_in(masks[to], rows[read, u:v])
            to += 1
        done[0], done[1], done[2] = found, column, to - place[1]

    return packed_, unpacked


def assert_comes_back(target: Target) -> None:
    rng = np.random.default_rng(0)
    for dtype, kept, read, marks in ((np.float32, 3, 2, True), (np.float64, 1, 2, False)):
        row, table = (torch.from_numpy(np.empty([0] * n, dtype)) for n in (1, 2))
        places = torch.empty(0, dtype=torch.int64)
        pack, unpack = functions(kept, read, marks)
        pack = ready(pack, (row, table, table, table, row, places, places), target)
        unpack = ready(unpack, (row, places, places, table, table, table, places), target)
        for size, rate in ((1, 1.0), (16, 0.5), (77, 0.1), (64, 0.0), (200, 1.0)):
            marked = (rng.random((9, size)) < rate).astype(dtype)
            rows = rng.standard_normal((9, kept, size)).astype(dtype)
            packed = np.full(kept * int(marked.sum()) + LANES, np.nan, dtype)
            masks, place = np.zeros(9 * -(-size // WORD), np.int64), np.zeros(2, np.int64)
            room, squeezed = (
                np.empty((max(kept, read), 2 * WORD), dtype),
                np.full((kept, size + LANES), np.nan, dtype),
            )
            for step in range(9):
                arrays = marked[step], rows[step], room, squeezed, packed, masks, place
                pack(*map(torch.from_numpy, arrays))
            assert place.tolist() == [marked.sum(), len(masks)]
            wanted = [rows[step][:, np.flatnonzero(marked[step])].ravel() for step in range(9)]
            np.testing.assert_array_equal(packed[: kept * place[0]], np.concatenate(wanted))
            for step in range(8, -1, -1):
                found = np.full((read + marks, size), np.nan, dtype)
                spikes = marked[step].sum()
                squeezed = np.full((read, size + LANES), np.nan, dtype)
                done = np.zeros(3, np.int64)
                unpack(*map(torch.from_numpy, (packed, masks, place, room, squeezed, found, done)))
                assert done.tolist() == [spikes, spikes, -(-size // WORD)]
                there = np.flatnonzero(marked[step])
                again = rows[step, np.arange(read) % kept][:, there]
                np.testing.assert_array_equal(found[:read, there], again)
                assert place[0] == marked[:step].sum()
                if marks:
                    np.testing.assert_array_equal(found[read], marked[step])
            assert place[1] == 0


def test_what_was_packed_comes_back():
    assert_comes_back(machine._target())


@pytest.mark.parametrize(("in_registers", "vectors"), [(False, False), (False, True), (True, False)])
def test_what_was_packed_comes_back_either_way(
    in_registers: bool, vectors: bool, monkeypatch: pytest.MonkeyPatch
):
    has = machine._target()[2].split(",")
    if (in_registers and "+avx512vbmi2" not in has) or (vectors and "+avx512f" not in has):
        pytest.skip("this CPU has no AVX-512, or its first kind")
    floats = ir.FloatType()
    for way in ("from_registers", "to_registers"):
        picks = built(lambda builder, rows: in_registers and rows.number == floats)
        monkeypatch.setattr(registers, way, picks)
    monkeypatch.setattr(events, "moves_vectors", built(lambda builder, word: vectors))
    assert_comes_back(machine._target())


@pytest.mark.parametrize(("cpu", "features"), [("generic", ""), ("haswell", "+avx2,+popcnt")])
def test_without_what_this_cpu_has_too(cpu: str, features: str):
    """By machine code for another CPU, which this one must know too."""
    if features and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU has no AVX2")
    assert_comes_back(target_with(cpu, features))
