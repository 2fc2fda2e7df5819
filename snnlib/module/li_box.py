"""Leaky integrator without a synapse as modules, see :mod:`snnlib.functional.li_box`."""

from typing import Unpack

from snnlib.functional.li_box import LIBoxParameters, li_box_feed_forward_step
from snnlib.module.neuron import Cell, Layer, LayerOptions

__all__ = ["LIBox", "LIBoxCell"]


class LIBoxCell(Cell):
    """Leaky integrator without a synapse, one step.

    A :class:`.Cell` of :func:`.li_box_feed_forward_step`.
    """

    def __init__(self, p: LIBoxParameters = LIBoxParameters(), dt: float = 0.001) -> None:
        super().__init__(li_box_feed_forward_step, p, dt)


class LIBox(Layer):
    """Leaky integrator without a synapse, a sequence.

    A :class:`.Layer` of :func:`.li_box_feed_forward_step`.
    """

    def __init__(
        self,
        p: LIBoxParameters = LIBoxParameters(),
        dt: float = 0.001,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(li_box_feed_forward_step, p, dt, **options)
