"""How one step of a neuron is run over time."""

from snnlib.engine.memory import keep_memory
from snnlib.engine.scan import scan, source
from snnlib.engine.step import initial_state, recurrent_step

__all__ = ["initial_state", "keep_memory", "recurrent_step", "scan", "source"]
