"""Leaky integrate-and-fire without a synapse as modules, see :mod:`snnlib.functional.lif_box`."""

from typing import Any

from snnlib.functional.lif_box import LIFBoxParameters, lif_box_feed_forward_step
from snnlib.module.neuron import Cell, Layer

__all__ = ["LIFBox", "LIFBoxCell"]


class LIFBoxCell(Cell):
    """Leaky integrate-and-fire without a synapse, one step.

    A :class:`.Cell` of :func:`.lif_box_feed_forward_step`.
    """

    def __init__(self, p: LIFBoxParameters = LIFBoxParameters(), dt: float = 0.001) -> None:
        super().__init__(lif_box_feed_forward_step, p, dt)


class LIFBox(Layer):
    """Leaky integrate-and-fire without a synapse, a sequence.

    A :class:`.Layer` of :func:`.lif_box_feed_forward_step`.
    """

    def __init__(self, p: LIFBoxParameters = LIFBoxParameters(), dt: float = 0.001, **options: Any) -> None:
        super().__init__(lif_box_feed_forward_step, p, dt, **options)
