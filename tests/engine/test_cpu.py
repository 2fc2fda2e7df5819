"""The fused loop on the CPU beside other threads, in forked processes, with a cache that cannot be written."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from snnlib import lif_feed_forward_step
from snnlib.engine import scan
from tests.neurons import generator


def test_several_python_threads_at_once():
    """Each with its own numbers, while torch's threads are at work too."""
    torch.set_num_threads(2)
    x = torch.randn(40, 4, 3000, generator=generator(0))
    wanted = [scan(lif_feed_forward_step, k * x, backend="reference")[0] for k in range(4)]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(5):
            if not torch.equal(scan(lif_feed_forward_step, k * x, backend="cpu")[0], wanted[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.set_num_threads(1)
    assert wrong == []


def test_a_forked_process_has_threads_of_its_own():
    """Torch's own threads do not survive a fork, so the child does no arithmetic with torch here."""
    from snnlib.engine.cpu import _in_threads

    torch.set_num_threads(2)
    done: list[tuple[int, int]] = []
    _in_threads(lambda start, stop: done.append((start, stop)), 100 * 3000, 3000, 64, lambda *_: [])
    assert len(done) == 2
    child = os.fork()
    if child == 0:
        _in_threads(lambda start, stop: done.append((start, stop)), 100 * 3000, 3000, 64, lambda *_: [])
        os._exit(0 if len(done) == 4 else 1)
    torch.set_num_threads(1)
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


@pytest.mark.parametrize("home", ["missing", "a file"])
def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, home: str):
    if home == "a file":
        (tmp_path / "cache").write_text("in the way")
    place = tmp_path / "cache" if home == "a file" else "/proc/nowhere"
    code = "import torch, snnlib; print(float(snnlib.LIF()(torch.full((50, 1, 3), 2.0))[0].sum()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XDG_CACHE_HOME": str(place)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
