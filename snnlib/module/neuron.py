"""The modules that every neuron is made into: one step, and a sequence."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from torch import Tensor, nn

from snnlib.engine import reference
from snnlib.engine.begin import given_state
from snnlib.engine.check import (
    check_backend,
    check_dense,
    check_fits,
    check_input,
    check_parameters,
    checked_part,
)
from snnlib.engine.scan import BACKENDS, Backend, scan
from snnlib.engine.state import fitted, initial_state, integration_dtype
from snnlib.engine.step import Step, default_dt, default_parameters, state_type
from snnlib.module.options import answer_names, describe
from snnlib.module.parameters import Parametric
from snnlib.module.states import recorded

__all__ = [
    "Cell",
    "Layer",
    "LayerOptions",
    "Neuron",
    "OverTime",
    "check_maker",
]


class LayerOptions(TypedDict, total=False):
    """What every :class:`Layer` takes by name."""

    backend: Backend
    checkpoint_every: int | None
    record_states: bool


class Neuron(Parametric):
    """A step and its parameters, which are registered, see :class:`.Parametric`.

    The docstring of a class that is made from this one or from another neuron takes over what it does not say
    itself of parameters, shapes and errors.

    Parameters:
        step: the neuron, see :mod:`snnlib.engine.step`.
        p: its parameters; the step's own defaults if None.
        dt: time step in s; the step's own default if None, which is 0.001 for all neurons of snnlib.

    Shapes:
        input and output of ``forward`` ``[T, B, *features]`` where ``over_time``, else ``[B, *features]``.

    Raises:
        ValueError: ``p`` or ``dt`` has a value that no neuron can have, or ``p`` is of another class.
        TypeError: ``step`` is none: it does not say which state it has.
        AttributeError: a number of ``p`` is assigned to the module itself.

    Attributes:
        step: the neuron's step.
        state: the NamedTuple in which the step keeps its state.
        dt: time step in s.
        over_time: whether ``forward`` takes a sequence ``[T, B, *features]`` or one step ``[B, *features]``.
    """

    over_time: bool
    _own: tuple[str, ...] = ("step", "state")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        answer_names(cls)
        describe(cls, [base for base in cls.__mro__[1:] if issubclass(base, Neuron)])

    def __init__(self, step: Step, p: Any = None, dt: float | None = None) -> None:
        usual = default_parameters(step)
        super().__init__(usual if p is None else p, usual, default_dt(step) if dt is None else dt)
        self.step = step
        self.state = state_type(step)

    if TYPE_CHECKING:  # nn.Module's gives Any

        def __call__(self, input: Tensor, state: Any = None) -> tuple[Tensor, Any]: ...

    @property
    def spiking(self) -> bool:
        """Whether it spikes: its parameters have a ``method``, how the gradient passes a spike."""
        return hasattr(self._numbers, "method")

    def resting(self, like: Tensor, shape: Sequence[int] | None = None) -> Any:
        """The state before the first input.

        Parameters:
            like: one step's input ``[B, *features]``, behind its weights where the neuron has some.
            shape: see :func:`snnlib.engine.state.initial_state`.
        """
        return initial_state(self.state, self.p, like, shape=shape)

    def once(self, input: Tensor, state: Any, kind: Any, weights: Tensor | None = None) -> tuple[Tensor, Any]:
        """One step with the numbers of a loop over time: in the precision of the state.

        Parameters:
            input: ``[B, *features]``, behind its weights where the neuron has some.
            kind: the NamedTuple in which the state is given.
            weights: the recurrent ones.
        """
        dtype = integration_dtype(input.dtype)
        p = fitted(self.p, dtype)
        if state is None:
            check_parameters(p, self.dt, warns=True)
            check_fits("p", p, input.shape)
            state = self.resting(input)
        else:
            state = fitted(given_state(state, kind._fields, input, input.shape), dtype, input.shape)
        output, state = reference.once(self.step, input, state, p, self.dt, weights)
        return output.to(input.dtype), state


class Cell(Neuron):
    """One step of a neuron.

    ::

        output, state = cell(input, state)

    Parameters:
        step: the neuron, see :mod:`snnlib.engine.step`.
        p: its parameters; the step's own defaults if None.
        dt: time step in s; the step's own default if None, which is 0.001 for all neurons of snnlib.

    Shapes:
        input, output and every field of the state ``[B, *features]``; ``state=None`` is the resting state.

    Raises:
        ValueError: a parameter or the first input (``state=None``) has a value that no neuron can have, or the
            state does not fit.
    """

    over_time = False

    def forward(self, input: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        check_dense(input)
        if state is None:
            check_input(input)
        return self.once(input, state, self.state)


class OverTime(Neuron):
    """A neuron that takes sequences.

    Attributes:
        backend: what runs it, see :class:`Layer`.
        checkpoint_every: steps of which the first state alone is kept, or None.
        record_states: whether it returns the states after all steps.
    """

    over_time = True
    _own: tuple[str, ...] = (*Neuron._own, "backend", "checkpoint_every", "record_states")

    def run_by(self, backend: Backend, checkpoint_every: int | None, record_states: bool) -> None:
        """Keep what runs it and what it keeps.

        Raises:
            ValueError: ``backend`` is none, or ``checkpoint_every`` no number of steps.
        """
        check_backend(backend, BACKENDS)
        self.backend, self.record_states = backend, record_states
        self.checkpoint_every = checked_part("checkpoint_every", checkpoint_every)


class Layer(OverTime):
    """A neuron over time.

    ::

        output, state = layer(input, state)

    Parameters:
        step: the neuron, see :mod:`snnlib.engine.step`.
        p: its parameters; the step's own defaults if None.
        dt: time step in s; the step's own default if None, which is 0.001 for all neurons of snnlib.
        backend, checkpoint_every: what runs it and what it keeps, see :func:`snnlib.engine.scan`.
        record_states: return the states after each step, with time in front of each field, in the place of the
            last one. It is slower: the steps are run one by one.

    Shapes:
        input and output ``[T, B, *features]``, every field of the state ``[B, *features]``;
        ``state=None`` is the resting state.

    Raises:
        ValueError: ``backend`` is none, ``checkpoint_every`` no number of steps, a parameter has a value that
            no neuron can have, and see :func:`snnlib.engine.scan`.
    """

    def __init__(
        self,
        step: Step,
        p: Any = None,
        dt: float | None = None,
        backend: Backend = "auto",
        checkpoint_every: int | None = None,
        record_states: bool = False,
    ) -> None:
        super().__init__(step, p, dt)
        self.run_by(backend, checkpoint_every, record_states)

    def forward(self, input: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return recorded(self, input, state) if self.record_states else self.run(input, state)

    def run(self, input: Tensor, state: Any) -> tuple[Tensor, Any]:
        """What ``forward`` does, with the last state, also where that records all."""
        every = self.checkpoint_every
        return scan(self.step, input, state, self.p, dt=self.dt, backend=self.backend, checkpoint_every=every)


def check_maker(neuron: Any) -> None:
    """Refuse a layer where a net makes several.

    Raises:
        ValueError: it is a layer.
    """
    if isinstance(neuron, nn.Module):
        kind = type(neuron).__name__
        raise ValueError(
            f"neuron must make a layer, as {kind} and lambda: {kind}(...) do, got a {kind} that is made"
        )
