"""States: detached, and over time, for which a layer's loop is called once for each state that is kept."""

from typing import Any, TypeVar

import torch
from torch import Tensor

from snnlib.engine import adjoint
from snnlib.engine.check import check_dense, checked_length

__all__ = ["check_layer", "detach_state", "recorded", "state_over_time"]


_State = TypeVar("_State")


def detach_state(state: _State) -> _State:
    """A state whose tensors are detached: no gradient of the next part of a sequence goes back beyond it.

    ::

        output, state = net(part, detach_state(state))      truncated backpropagation through time

    Nor does the adjoint then tell the last spikes of a part how the next part would have them move.

    Parameters:
        state: that of a layer, a cell or a net: tensors in NamedTuples, lists, tuples and dictionaries, within
            each other too. None, numbers and strings stay as they are.

    Returns:
        The same structure, in NamedTuples of the same types, lists, tuples and dictionaries.

    Raises:
        TypeError: there is something else in it, which may hold tensors.
    """
    detached: _State = _detached(state)
    return detached


def _detached(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, dict):
        return {key: _detached(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        values = [_detached(value) for value in state]
        kind = getattr(type(state), "handed_of", type(state))  # without what snnlib.engine.later hands on
        if hasattr(kind, "_fields"):
            return kind(*values)
        return values if isinstance(state, list) else tuple(values)
    if state is None or isinstance(state, int | float | complex | str):
        return state
    raise TypeError(f"state must be tensors in tuples, lists and dictionaries, got {type(state).__name__}")


@torch.no_grad()
def state_over_time(layer: Any, input: Tensor, state: Any = None, every: int = 1) -> tuple[Tensor, Any]:
    """Run a layer and keep its state after every so many steps; without gradients.

    A layer that is made with ``record_states=True`` gives the states after all steps, with gradients.

    Parameters:
        layer: a :class:`.Layer` or a :class:`.RecurrentLayer`.
        input, state: what the layer is given, ``[T, B, *features]``.
        every: steps between two states; after the last step there is one in any case.

    Returns:
        The output ``[T, B, *features]``, and the layer's NamedTuple with fields ``[S, B, *features]``, of
        S = ceil(T / every) states.

    Raises:
        ValueError: ``layer`` is a net or a cell, there is no step, ``every`` is no positive integer, or the
            layer refuses its input.
    """
    check_layer(layer)
    every = checked_length("every", every)
    if not len(input):
        raise ValueError(f"input must be [T, B, *features] with T > 0, got shape {list(input.shape)}")
    return recorded(layer, input, state, every)


def check_layer(layer: Any) -> None:
    """Refuse what is not one layer over time.

    Raises:
        ValueError: it is a net, a cell, or something else.
    """
    if not (getattr(layer, "over_time", False) and hasattr(layer, "run")):
        raise ValueError(
            f"layer must be one Layer or RecurrentLayer, such as LIF() or net[1], got a {type(layer).__name__}"
        )


def recorded(layer: Any, input: Tensor, state: Any, every: int = 1) -> tuple[Tensor, Any]:
    """Run a layer a few steps at a time, with its states after each time in the place of the last.

    Parameters:
        layer: what has parameters ``p`` and ``run(input, state) -> (output, state)``, state a NamedTuple.
        input: ``[T, B, *features]``.
        state: before the first step; None for the resting state.
        every: steps between two states.

    Returns:
        The outputs, and the states with time in front of each field, ``[S, B, *features]``.

    Raises:
        RuntimeError: gradients are wanted of the adjoint, which needs the whole sequence.
    """
    check_dense(input)
    if adjoint.is_exact(layer.p) and torch.is_grad_enabled():
        raise RuntimeError(
            "record_states=True runs single steps, of which method='adjoint' has no gradients: "
            "put it under torch.no_grad(), or take another method"
        )
    if not len(input):
        output, state = layer.run(input, state)
        return output, type(state)(*(value.new_empty((0, *value.shape)) for value in state))
    outputs, states = [], []
    for steps in input.split(every):
        output, state = layer.run(steps, state)
        outputs.append(output)
        states.append(state)
    return torch.cat(outputs), type(state)(*map(torch.stack, zip(*states, strict=True)))
