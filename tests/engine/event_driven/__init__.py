"""Spiking networks in continuous time, event by event: an oracle for gradients of spike times.

It shares no code with snnlib: NumPy, float64, and a root to be found for each spike.
"""

from .differences import gradient
from .network import DEFAULTS, Layer, simulate
from .problems import Problem, problem

__all__ = ["DEFAULTS", "Layer", "Problem", "gradient", "problem", "simulate"]
