"""How one step of a neuron is run over time."""

from snnlib.engine.scan import scan, source
from snnlib.engine.step import initial_state, recurrent_step

__all__ = ["initial_state", "recurrent_step", "scan", "source"]
