"""How one step of a neuron is run over time."""

from snnlib.engine.check import NaNInputError
from snnlib.engine.memory import keep_memory
from snnlib.engine.scan import Backend, scan, source
from snnlib.engine.sparse import conv2d, linear
from snnlib.engine.state import initial_state
from snnlib.engine.step import UntraceableError, recurrent_step

__all__ = [
    "Backend",
    "NaNInputError",
    "UntraceableError",
    "conv2d",
    "initial_state",
    "keep_memory",
    "linear",
    "recurrent_step",
    "scan",
    "source",
]
