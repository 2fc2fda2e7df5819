"""Integrate-and-fire as modules, see :mod:`snnlib.functional.iaf`."""

from typing import Unpack

from snnlib.functional.iaf import IAFParameters, IAFState, iaf_feed_forward_step
from snnlib.module.neuron import Cell, Layer, LayerOptions
from snnlib.module.recurrent import RecurrentCell, RecurrentLayer, RecurrentLayerOptions, RecurrentOptions

__all__ = ["IAF", "IAFCell", "IAFRecurrent", "IAFRecurrentCell"]


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

    def __init__(
        self,
        p: IAFParameters = IAFParameters(),
        dt: float = 0.001,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(iaf_feed_forward_step, p, dt, **options)


class IAFRecurrentCell(RecurrentCell):
    """Integrate-and-fire with recurrent weights, one step.

    A :class:`~snnlib.module.recurrent.RecurrentCell` of :func:`.iaf_feed_forward_step`.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        p: IAFParameters = IAFParameters(),
        dt: float = 0.001,
        **options: Unpack[RecurrentOptions],
    ) -> None:
        super().__init__(iaf_feed_forward_step, input_size, hidden_size, p, dt, state=IAFState, **options)


class IAFRecurrent(RecurrentLayer):
    """Integrate-and-fire with recurrent weights, a sequence.

    A :class:`~snnlib.module.recurrent.RecurrentLayer` of :func:`.iaf_feed_forward_step`.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        p: IAFParameters = IAFParameters(),
        dt: float = 0.001,
        **options: Unpack[RecurrentLayerOptions],
    ) -> None:
        super().__init__(iaf_feed_forward_step, input_size, hidden_size, p, dt, state=IAFState, **options)
