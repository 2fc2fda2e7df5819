"""Leaky integrate-and-fire as modules, see :mod:`snnlib.functional.lif`."""

from typing import Unpack

from snnlib.functional.lif import LIFParameters, LIFState, lif_feed_forward_step
from snnlib.module.neuron import Cell, Layer, LayerOptions
from snnlib.module.recurrent import RecurrentCell, RecurrentLayer, RecurrentLayerOptions, RecurrentOptions

__all__ = ["LIF", "LIFCell", "LIFRecurrent", "LIFRecurrentCell"]


class LIFCell(Cell):
    """Leaky integrate-and-fire, one step.

    A :class:`.Cell` of :func:`.lif_feed_forward_step`.
    """

    def __init__(self, p: LIFParameters = LIFParameters(), dt: float = 0.001) -> None:
        super().__init__(lif_feed_forward_step, p, dt)


class LIF(Layer):
    """Leaky integrate-and-fire, a sequence.

    A :class:`.Layer` of :func:`.lif_feed_forward_step`.
    """

    def __init__(
        self,
        p: LIFParameters = LIFParameters(),
        dt: float = 0.001,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(lif_feed_forward_step, p, dt, **options)


class LIFRecurrentCell(RecurrentCell):
    """Leaky integrate-and-fire with recurrent weights, one step.

    A :class:`~snnlib.module.recurrent.RecurrentCell` of :func:`.lif_feed_forward_step`.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        p: LIFParameters = LIFParameters(),
        dt: float = 0.001,
        **options: Unpack[RecurrentOptions],
    ) -> None:
        super().__init__(lif_feed_forward_step, input_size, hidden_size, p, dt, state=LIFState, **options)


class LIFRecurrent(RecurrentLayer):
    """Leaky integrate-and-fire with recurrent weights, a sequence.

    A :class:`~snnlib.module.recurrent.RecurrentLayer` of :func:`.lif_feed_forward_step`.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        p: LIFParameters = LIFParameters(),
        dt: float = 0.001,
        **options: Unpack[RecurrentLayerOptions],
    ) -> None:
        super().__init__(lif_feed_forward_step, input_size, hidden_size, p, dt, state=LIFState, **options)
