"""Leaky integrate-and-fire with an adaptive threshold as modules, see :mod:`snnlib.functional.lsnn`."""

from typing import Unpack

from snnlib.functional.lsnn import LSNNParameters, LSNNState, lsnn_feed_forward_step
from snnlib.module.neuron import Cell, Layer, LayerOptions
from snnlib.module.recurrent import RecurrentCell, RecurrentLayer, RecurrentLayerOptions, RecurrentOptions

__all__ = ["LSNN", "LSNNCell", "LSNNRecurrent", "LSNNRecurrentCell"]


class LSNNCell(Cell):
    """Leaky integrate-and-fire with an adaptive threshold, one step.

    A :class:`.Cell` of :func:`.lsnn_feed_forward_step`.
    """

    def __init__(self, p: LSNNParameters = LSNNParameters(), dt: float = 0.001) -> None:
        super().__init__(lsnn_feed_forward_step, p, dt)


class LSNN(Layer):
    """Leaky integrate-and-fire with an adaptive threshold, a sequence.

    A :class:`.Layer` of :func:`.lsnn_feed_forward_step`.
    """

    def __init__(
        self,
        p: LSNNParameters = LSNNParameters(),
        dt: float = 0.001,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(lsnn_feed_forward_step, p, dt, **options)


class LSNNRecurrentCell(RecurrentCell):
    """Leaky integrate-and-fire with an adaptive threshold with recurrent weights, one step.

    A :class:`~snnlib.module.recurrent.RecurrentCell` of :func:`.lsnn_feed_forward_step`.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        p: LSNNParameters = LSNNParameters(),
        dt: float = 0.001,
        **options: Unpack[RecurrentOptions],
    ) -> None:
        super().__init__(lsnn_feed_forward_step, input_size, hidden_size, p, dt, state=LSNNState, **options)


class LSNNRecurrent(RecurrentLayer):
    """Leaky integrate-and-fire with an adaptive threshold with recurrent weights, a sequence.

    A :class:`~snnlib.module.recurrent.RecurrentLayer` of :func:`.lsnn_feed_forward_step`.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        p: LSNNParameters = LSNNParameters(),
        dt: float = 0.001,
        **options: Unpack[RecurrentLayerOptions],
    ) -> None:
        super().__init__(lsnn_feed_forward_step, input_size, hidden_size, p, dt, state=LSNNState, **options)
