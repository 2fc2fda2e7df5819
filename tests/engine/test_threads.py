"""Pieces of work in the threads that torch has, in a forked process in others."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from snnlib.engine import threads
from snnlib.engine.threads import together


@pytest.fixture(params=["OpenMP", "a pool"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "a pool":
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    elif threads._openmp() is None:
        pytest.skip("torch came here without OpenMP, or with one that does not know GCC's calls")


@pytest.mark.usefixtures("where")
@pytest.mark.parametrize("count", [0, 1, 2, 3, 40])
def test_each_piece_is_called_once(count: int):
    done: list[int] = []
    together([functools.partial(done.append, k) for k in range(count)])
    assert sorted(done) == list(range(count))


@pytest.mark.usefixtures("where")
def test_two_pieces_are_at_work_at_once():
    both = threading.Barrier(2, timeout=20)
    together([both.wait, both.wait])
    assert not both.broken


@pytest.mark.usefixtures("where")
def test_what_a_piece_raises_is_raised_when_all_have_ended():
    done: list[str] = []

    def fail() -> None:
        raise ValueError("a piece failed")

    def late() -> None:
        time.sleep(0.05)
        done.append("late")

    for pieces in ([fail, late], [late, fail]):
        with pytest.raises(ValueError, match="a piece failed"):
            together(pieces)
        assert done.pop() == "late"


def test_torch_has_the_only_threads():
    if threads._openmp() is None:
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
    pieces = [functools.partial(done.append, k) for k in range(2)]
    together(pieces)
    child = os.fork()
    if child == 0:
        together(pieces)
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
