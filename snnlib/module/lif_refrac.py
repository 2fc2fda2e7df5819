"""Leaky integrate-and-fire with a refractory period as modules, see :mod:`snnlib.functional.lif_refrac`."""

from typing import Unpack

from snnlib.functional.lif_refrac import LIFRefracParameters, LIFRefracState, lif_refrac_feed_forward_step
from snnlib.module.neuron import Cell, Layer, LayerOptions
from snnlib.module.recurrent import RecurrentCell, RecurrentLayer, RecurrentLayerOptions, RecurrentOptions

__all__ = ["LIFRefrac", "LIFRefracCell", "LIFRefracRecurrent", "LIFRefracRecurrentCell"]


class LIFRefracCell(Cell):
    """Leaky integrate-and-fire with a refractory period, one step.

    A :class:`.Cell` of :func:`.lif_refrac_feed_forward_step`.
    """

    def __init__(self, p: LIFRefracParameters = LIFRefracParameters(), dt: float = 0.001) -> None:
        super().__init__(lif_refrac_feed_forward_step, p, dt)


class LIFRefrac(Layer):
    """Leaky integrate-and-fire with a refractory period, a sequence.

    A :class:`.Layer` of :func:`.lif_refrac_feed_forward_step`.
    """

    def __init__(
        self,
        p: LIFRefracParameters = LIFRefracParameters(),
        dt: float = 0.001,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(lif_refrac_feed_forward_step, p, dt, **options)


class LIFRefracRecurrentCell(RecurrentCell):
    """Leaky integrate-and-fire with a refractory period with recurrent weights, one step.

    A :class:`~snnlib.module.recurrent.RecurrentCell` of :func:`.lif_refrac_feed_forward_step`.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        p: LIFRefracParameters = LIFRefracParameters(),
        dt: float = 0.001,
        **options: Unpack[RecurrentOptions],
    ) -> None:
        super().__init__(
            lif_refrac_feed_forward_step, input_size, hidden_size, p, dt, state=LIFRefracState, **options
        )


class LIFRefracRecurrent(RecurrentLayer):
    """Leaky integrate-and-fire with a refractory period with recurrent weights, a sequence.

    A :class:`~snnlib.module.recurrent.RecurrentLayer` of :func:`.lif_refrac_feed_forward_step`.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        p: LIFRefracParameters = LIFRefracParameters(),
        dt: float = 0.001,
        **options: Unpack[RecurrentLayerOptions],
    ) -> None:
        super().__init__(
            lif_refrac_feed_forward_step, input_size, hidden_size, p, dt, state=LIFRefracState, **options
        )
