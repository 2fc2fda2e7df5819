"""How one step of a neuron is run over time."""

from snnlib.engine.memory import keep_memory
from snnlib.engine.scan import scan, source
from snnlib.engine.sparse import conv2d, linear
from snnlib.engine.step import initial_state, recurrent_step

__all__ = ["conv2d", "initial_state", "keep_memory", "linear", "recurrent_step", "scan", "source"]
