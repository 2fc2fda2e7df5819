"""Integrate-and-fire as modules, see :mod:`snnlib.functional.iaf`."""

from typing import Any

from snnlib.functional.iaf import IAFParameters, iaf_feed_forward_step
from snnlib.module.neuron import Cell, Layer

__all__ = ["IAF", "IAFCell"]


class IAFCell(Cell):
    """Integrate-and-fire, one step.

    A :class:`.Cell` of :func:`.iaf_feed_forward_step`.
    """

    def __init__(self, p: IAFParameters = IAFParameters(), dt: float = 0.001) -> None:
        super().__init__(iaf_feed_forward_step, p, dt)


class IAF(Layer):
    """Integrate-and-fire, a sequence.

    A :class:`.Layer` of :func:`.iaf_feed_forward_step`.
    """

    def __init__(self, p: IAFParameters = IAFParameters(), dt: float = 0.001, **options: Any) -> None:
        super().__init__(iaf_feed_forward_step, p, dt, **options)
