"""Calls in the threads that torch has, in a forked process in others."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
import torch

from snnlib.engine.llvm import team
from snnlib.engine.llvm.machine import SIGNATURE, Call, Loop, as_array
from snnlib.engine.llvm.team import together


def calling(function: Callable[[], object]) -> Call:
    """A call that runs Python."""
    return Call(SIGNATURE(lambda *_: function()), (0, 0, 0), None)


@pytest.fixture(params=["OpenMP", "a pool"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "a pool":
        monkeypatch.setattr(team, "_openmp", lambda: None)
    elif team._openmp() is None:
        pytest.skip("torch came here without OpenMP, or with one that does not know GCC's calls")


@pytest.mark.usefixtures("where")
@pytest.mark.parametrize("count", [0, 1, 2, 3, 40])
def test_each_call_is_made_once(count: int):
    done: list[int] = []
    together([calling(functools.partial(done.append, k)) for k in range(count)])
    assert sorted(done) == list(range(count))


@pytest.mark.usefixtures("where")
def test_two_calls_are_at_work_at_once():
    both = threading.Barrier(2, timeout=20)
    together([calling(both.wait)] * 2)
    assert not both.broken


@pytest.mark.usefixtures("where")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_loop_does_each_part_with_its_own_array(threads: int):
    text = "def fill(all, own, first, stop):\n    for k in range(first, stop):\n        all[k] = own[0]\n"
    fill = Loop(text, "fill", torch.float32, ())
    everything = torch.zeros(30)
    own = [torch.full((1,), float(k)) for k in range(5)]
    parts = [([as_array(value)], (6 * k, 6 * k + 6)) for k, value in enumerate(own)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together(fill.calls([as_array(everything)], parts))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(everything, torch.arange(5.0).repeat_interleave(6))


def test_no_parts_are_no_calls():
    assert Loop("def nothing(a):\n    a[0] = 1\n", "nothing", torch.float32, ()).calls([], []) == []


def test_torch_has_the_only_threads():
    if team._openmp() is None:
        pytest.skip("torch came here without OpenMP, or with one that does not know GCC's calls")
    code = """
import os, torch, snnlib
torch.set_num_threads(2)
count = lambda: len(os.listdir("/proc/self/task"))
alone = count()
x = torch.ones(40, 4, 3000).sin()
with_torch = count()
assert with_torch == alone + 1, (alone, with_torch)
snnlib.LIF()(x)
assert count() == with_torch, (with_torch, count())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_forked_process_has_threads_of_its_own():
    """Torch's own threads do not survive a fork, so the child does no arithmetic with torch here."""
    done: list[int] = []
    calls = [calling(functools.partial(done.append, k)) for k in range(2)]
    together(calls)
    child = os.fork()
    if child == 0:
        together(calls)
        os._exit(0 if len(done) == 4 else 1)
    deadline = time.monotonic() + 30
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.05)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended, "the child hangs"
    assert os.waitstatus_to_exitcode(status) == 0
