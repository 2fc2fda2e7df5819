"""Leaky integrator as modules, see :mod:`snnlib.functional.li`."""

from typing import Any, Unpack

from torch import Tensor, nn

from snnlib.functional.li import LIParameters, li_feed_forward_step
from snnlib.module.neuron import Cell, Layer, LayerOptions

__all__ = ["LI", "LICell", "LILinearCell"]


class LICell(Cell):
    """Leaky integrator, one step.

    A :class:`.Cell` of :func:`.li_feed_forward_step`.
    """

    def __init__(self, p: LIParameters = LIParameters(), dt: float = 0.001) -> None:
        super().__init__(li_feed_forward_step, p, dt)


class LI(Layer):
    """Leaky integrator, a sequence.

    A :class:`.Layer` of :func:`.li_feed_forward_step`.
    """

    def __init__(
        self,
        p: LIParameters = LIParameters(),
        dt: float = 0.001,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(li_feed_forward_step, p, dt, **options)


class LILinearCell(LICell):
    """Leaky integrator behind a linear layer without bias, one step.

    Parameters:
        input_size, hidden_size: numbers of inputs M and of integrators N.
        p: see :class:`~snnlib.functional.li.LIParameters`.
        dt: time step in s.

    Shapes:
        input ``[B, M]``, output and every field of the state ``[B, N]``; ``state=None`` is the resting state.

    Raises:
        ValueError: a parameter or the first input (``state=None``) has a value that no neuron can have, or the
            state does not fit.
    """

    def __init__(
        self, input_size: int, hidden_size: int, p: LIParameters = LIParameters(), dt: float = 0.001
    ) -> None:
        super().__init__(p, dt)
        self.linear = nn.Linear(input_size, hidden_size, bias=False)

    def forward(self, input: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return super().forward(self.linear(input), state)
