"""Exponential leaky integrate-and-fire as modules, see :mod:`snnlib.functional.lif_ex`."""

from typing import Unpack

from snnlib.functional.lif_ex import LIFExParameters, LIFExState, lif_ex_feed_forward_step
from snnlib.module.neuron import Cell, Layer, LayerOptions
from snnlib.module.recurrent import RecurrentCell, RecurrentLayer, RecurrentLayerOptions, RecurrentOptions

__all__ = ["LIFEx", "LIFExCell", "LIFExRecurrent", "LIFExRecurrentCell"]


class LIFExCell(Cell):
    """Exponential leaky integrate-and-fire, one step.

    A :class:`.Cell` of :func:`.lif_ex_feed_forward_step`.
    """

    def __init__(self, p: LIFExParameters = LIFExParameters(), dt: float = 0.001) -> None:
        super().__init__(lif_ex_feed_forward_step, p, dt)


class LIFEx(Layer):
    """Exponential leaky integrate-and-fire, a sequence.

    A :class:`.Layer` of :func:`.lif_ex_feed_forward_step`.
    """

    def __init__(
        self,
        p: LIFExParameters = LIFExParameters(),
        dt: float = 0.001,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(lif_ex_feed_forward_step, p, dt, **options)


class LIFExRecurrentCell(RecurrentCell):
    """Exponential leaky integrate-and-fire with recurrent weights, one step.

    A :class:`~snnlib.module.recurrent.RecurrentCell` of :func:`.lif_ex_feed_forward_step`.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        p: LIFExParameters = LIFExParameters(),
        dt: float = 0.001,
        **options: Unpack[RecurrentOptions],
    ) -> None:
        super().__init__(lif_ex_feed_forward_step, input_size, hidden_size, p, dt, state=LIFExState, **options)


class LIFExRecurrent(RecurrentLayer):
    """Exponential leaky integrate-and-fire with recurrent weights, a sequence.

    A :class:`~snnlib.module.recurrent.RecurrentLayer` of :func:`.lif_ex_feed_forward_step`.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        p: LIFExParameters = LIFExParameters(),
        dt: float = 0.001,
        **options: Unpack[RecurrentLayerOptions],
    ) -> None:
        super().__init__(lif_ex_feed_forward_step, input_size, hidden_size, p, dt, state=LIFExState, **options)
