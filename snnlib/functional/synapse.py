"""Weights before a neuron: one composition for every step."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from torch import Tensor
from torch.nn.functional import linear

from snnlib.engine.step import Step, default_parameters, recurrent_step

__all__ = ["weighted", "weighted_feed_forward"]

State = TypeVar("State")
Parameters = TypeVar("Parameters", contravariant=True)
_Plain = Callable[[Tensor, Any, Parameters, float], tuple[Tensor, Any]]


class WeightedStep(Protocol[State, Parameters]):
    """What :func:`weighted` makes."""

    def __call__(
        self,
        input: Tensor,
        state: State,
        input_weights: Tensor,
        recurrent_weights: Tensor,
        p: Parameters = ...,
        dt: float = ...,
    ) -> tuple[Tensor, State]: ...


class WeightedFeedForwardStep(Protocol[State, Parameters]):
    """What :func:`weighted_feed_forward` makes."""

    def __call__(
        self, input: Tensor, state: State, input_weights: Tensor, p: Parameters = ..., dt: float = ...
    ) -> tuple[Tensor, State]: ...


_ARGUMENTS = """
    Parameters:
        input: spikes or values that arrive in this step, ``[B, M]``.
        state: a :class:`{state}`.
        input_weights: ``[N, M]``, to row from column.
{recurrent}        p: the parameters of :func:`{step}`.
        dt: time step in s.

    Returns:
        The output ``[B, N]`` and the new state.
    """


def weighted(
    step: _Plain[Parameters], state: type[State], suffix: str = "step"
) -> WeightedStep[State, Parameters]:
    """Make ``lif_step(input, state, input_weights, recurrent_weights, p, dt)`` out of a neuron's step.

    Parameters:
        step: a feed-forward step.
        state: the NamedTuple that it then takes and returns: ``z`` and the fields of the step's own.
        suffix: what "feed_forward_step" in the step's name becomes.
    """

    def made(
        input: Tensor,
        state: Any,
        input_weights: Tensor,
        recurrent_weights: Tensor,
        p: Any = default_parameters(step),
        dt: float = 0.001,
    ) -> tuple[Tensor, State]:
        _check_state(state, made)
        return recurrent_step(step, linear(input, input_weights), state, recurrent_weights, p, dt)

    recurrent = "        recurrent_weights: ``[N, N]``, for the spikes of the step before.\n"
    equation = "input_weights input + recurrent_weights z(t-1)"
    _name(made, step, state, suffix, equation, recurrent)
    return made


def weighted_feed_forward(
    step: _Plain[Parameters], state: type[State]
) -> WeightedFeedForwardStep[State, Parameters]:
    """Make ``li_step(input, state, input_weights, p, dt)`` out of a step that does not feed back."""

    def made(
        input: Tensor, state: Any, input_weights: Tensor, p: Any = default_parameters(step), dt: float = 0.001
    ) -> tuple[Tensor, State]:
        _check_state(state, made)
        return step(linear(input, input_weights), state, p, dt)

    _name(made, step, state, "step", "input_weights input")
    return made


def _check_state(state: Any, made: Any) -> None:
    if state is None:
        kind = made.__annotations__["state"]
        zeros = ", ".join(f"{name}=0.0" for name in kind._fields)
        raise ValueError(f"state must be given to {made.__name__}, as {kind.__name__}({zeros}) say, got None")


def _name(made: Any, step: Step, state: Any, suffix: str, equation: str, recurrent: str = "") -> None:
    made.__name__ = made.__qualname__ = step.__name__.replace("feed_forward_step", suffix)
    made.__module__ = step.__module__
    made.unweighted = step
    p = type(default_parameters(step))
    made.__annotations__ |= {"state": state, "p": p, "return": tuple[Tensor, state]}
    arguments = _ARGUMENTS.format(state=state.__name__, step=step.__name__, recurrent=recurrent)
    made.__doc__ = f":func:`{step.__name__}` of ``{equation}``.\n{arguments}"
