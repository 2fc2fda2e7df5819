"""Sizes that the CPU's loops, what they call and the memory they are given agree on."""

__all__ = ["LANES", "LINE", "LONG", "WORD"]

LANES = 16
"""Numbers in a vector: a register of AVX-512 in float32, and a few smaller ones elsewhere."""
LONG = 2 * LANES
"""Numbers of events that the way back takes at once."""
WORD = 64
"""Neurons whose bits are in one integer, see :func:`snnlib.engine.loops.events.moving`."""
LINE = 64
"""Bytes in a line of the cache."""
