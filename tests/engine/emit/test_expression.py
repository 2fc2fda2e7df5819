"""What is written for a line's right side."""

from snnlib.engine.emit.expression import POWERS
from snnlib.engine.emit.triton import _POWERS
from snnlib.engine.program import SHORT_POWERS


def test_every_short_power_is_written_as_one():
    assert POWERS.keys() == SHORT_POWERS
    assert _POWERS.keys() >= SHORT_POWERS
