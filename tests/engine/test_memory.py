"""A process that keeps what it frees, seen from outside."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import torch
from pathlib import Path
from snnlib.engine import keep_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

if {keep}:
    assert keep_memory()
torch.ones(1000)
before = resident()
x = torch.ones(25_000_000)
del x
print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to count a process's memory")
@pytest.mark.parametrize("keep", [True, False])
def test_freed_memory_stays_with_the_process(keep: bool):
    done = subprocess.run([sys.executable, "-c", CODE.format(keep=keep)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept = float(done.stdout)
    assert kept > 90 if keep else kept < 10
