"""Izhikevich's neuron as modules, see :mod:`snnlib.functional.izhikevich`."""

from typing import Unpack

from snnlib.functional.izhikevich import (
    IzhikevichParameters,
    IzhikevichRecurrentState,
    izhikevich_feed_forward_step,
)
from snnlib.module.neuron import Cell, Layer, LayerOptions
from snnlib.module.recurrent import RecurrentCell, RecurrentLayer, RecurrentLayerOptions, RecurrentOptions

__all__ = ["Izhikevich", "IzhikevichCell", "IzhikevichRecurrent", "IzhikevichRecurrentCell"]


class IzhikevichCell(Cell):
    """Izhikevich's neuron, one step.

    A :class:`.Cell` of :func:`.izhikevich_feed_forward_step`.
    """

    def __init__(self, p: IzhikevichParameters = IzhikevichParameters(), dt: float = 0.001) -> None:
        super().__init__(izhikevich_feed_forward_step, p, dt)


class Izhikevich(Layer):
    """Izhikevich's neuron, a sequence.

    A :class:`.Layer` of :func:`.izhikevich_feed_forward_step`.
    """

    def __init__(
        self,
        p: IzhikevichParameters = IzhikevichParameters(),
        dt: float = 0.001,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(izhikevich_feed_forward_step, p, dt, **options)


class IzhikevichRecurrentCell(RecurrentCell):
    """Izhikevich's neuron with recurrent weights, one step.

    A :class:`~snnlib.module.recurrent.RecurrentCell` of :func:`.izhikevich_feed_forward_step`.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        p: IzhikevichParameters = IzhikevichParameters(),
        dt: float = 0.001,
        **options: Unpack[RecurrentOptions],
    ) -> None:
        super().__init__(
            izhikevich_feed_forward_step,
            input_size,
            hidden_size,
            p,
            dt,
            state=IzhikevichRecurrentState,
            **options,
        )


class IzhikevichRecurrent(RecurrentLayer):
    """Izhikevich's neuron with recurrent weights, a sequence.

    A :class:`~snnlib.module.recurrent.RecurrentLayer` of :func:`.izhikevich_feed_forward_step`.
    """

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        p: IzhikevichParameters = IzhikevichParameters(),
        dt: float = 0.001,
        **options: Unpack[RecurrentLayerOptions],
    ) -> None:
        super().__init__(
            izhikevich_feed_forward_step,
            input_size,
            hidden_size,
            p,
            dt,
            state=IzhikevichRecurrentState,
            **options,
        )
