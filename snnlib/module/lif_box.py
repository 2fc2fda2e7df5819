"""Leaky integrate-and-fire without a synapse as modules, see :mod:`snnlib.functional.lif_box`."""

from typing import Unpack

from snnlib.functional.lif_box import LIFBoxParameters, LIFBoxState, lif_box_feed_forward_step
from snnlib.module.neuron import Cell, Layer, LayerOptions
from snnlib.module.recurrent import RecurrentCell, RecurrentLayer, RecurrentLayerOptions, RecurrentOptions

__all__ = ["LIFBox", "LIFBoxCell", "LIFBoxRecurrent", "LIFBoxRecurrentCell"]


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

    def __init__(
        self,
        p: LIFBoxParameters = LIFBoxParameters(),
        dt: float = 0.001,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(lif_box_feed_forward_step, p, dt, **options)


class LIFBoxRecurrentCell(RecurrentCell):
    """Leaky integrate-and-fire without a synapse with recurrent weights, one step.

    A :class:`~snnlib.module.recurrent.RecurrentCell` of :func:`.lif_box_feed_forward_step`.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        p: LIFBoxParameters = LIFBoxParameters(),
        dt: float = 0.001,
        **options: Unpack[RecurrentOptions],
    ) -> None:
        super().__init__(
            lif_box_feed_forward_step, input_size, hidden_size, p, dt, state=LIFBoxState, **options
        )


class LIFBoxRecurrent(RecurrentLayer):
    """Leaky integrate-and-fire without a synapse with recurrent weights, a sequence.

    A :class:`~snnlib.module.recurrent.RecurrentLayer` of :func:`.lif_box_feed_forward_step`.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        p: LIFBoxParameters = LIFBoxParameters(),
        dt: float = 0.001,
        **options: Unpack[RecurrentLayerOptions],
    ) -> None:
        super().__init__(
            lif_box_feed_forward_step, input_size, hidden_size, p, dt, state=LIFBoxState, **options
        )
