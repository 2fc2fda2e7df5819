"""What a loop is called by."""

import torch

from snnlib.engine.llvm import machine
from snnlib.engine.llvm.entry import written


def one(a):
    a[0] = 1


def test_the_stack_of_a_loop_begins_at_a_line_of_the_cache():
    """Else registers kept there lie in two lines in some threads, whose loops take up to twice as long."""
    module = written(one, "one", [(torch.float32, 1)], 0, 0, machine._target())
    assert module.get_global("one").attributes.alignstack == 64
    assert "alignstack(64)" in str(module)
