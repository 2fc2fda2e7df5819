"""The adjoint: gradients of spike times, derived from a step for any neuron.

A spike is where a function h of the state crosses zero. A small change moves it in time, and what follows it
with it; nothing else about it can change a little. So the gradient of a loss passes a spike by its time
alone, and a neuron that does not spike passes none (Wunderlich & Pehle 2021). On the grid of ``dt``, h receives
from the spike of step k the gradient

::

    - dL_k / dh_k
    dh_k  = h(F0(x, s)) - h(s)              by which h rises in step k: above zero, as a threshold is crossed
    dL_k  = g_(k+1) - g_k + sum over states j of lambda_j m_j      by which L changes if the spike moves a step
    m     = R(F0(x, s)) - F0(x, R(s))       the state after a spike now, less that after a spike one step ago

with g the gradient of the loss to the output, lambda that to the state after step k, and F0 the step without a
spike. R is the reset: the step with a spike, of no time and no input; h(s) is the h of that. Otherwise the
gradient follows the step transposed, its spikes held fixed. Together this is the jump of the adjoint at a
spike, ``lambda- = S^T lambda+ - grad(h) dL/dt_k / h'`` with the saltation matrix
``S = J + (f+ - J f-) grad(h)^T / h'``, where m / dt stands for ``J f- - f+`` and dh / dt for h'. Errors are in
proportion to ``dt``.

Everything is read from the step, which is called with a :class:`Probe` in the place of its ``method``.
"""

import functools
import math
from contextlib import suppress
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from snnlib.engine.step import (
    Step,
    StepKey,
    can_be_hashed,
    default_parameters,
    heaviside,
    is_lasting,
    name_of,
    returned,
    sort_parameters,
    state_type,
)
from snnlib.engine.watched import unwatched

__all__ = [
    "NAME",
    "Ends",
    "Probe",
    "check",
    "ends",
    "is_exact",
    "slope_step",
    "step_back",
]

NAME = "adjoint"
"""The ``method`` that asks for it."""
_SLOWEST = 1.0
"""The ``alpha`` that is taken when a neuron names none: the least h', in units of h a second."""


class Probe:
    """Stands in the place of a step's ``method``: tells the neuron whether it spikes, and remembers h.

    Parameters:
        spikes: 0 or 1 for each neuron; None lets h decide.
        gates: what the step's gates were in another call, to be the same in this one; None lets them decide.

    Attributes:
        h: distance to the threshold.
        gates: value of each gate, in order.
    """

    def __init__(self, spikes: Tensor | None = None, gates: list[Tensor] | None = None) -> None:
        self.spikes, self.known = spikes, gates
        self.h: Tensor | None = None
        self.gates: list[Tensor] = []

    def __call__(self, x: Tensor, alpha: Any = None) -> Tensor:
        if self.h is not None:
            raise ValueError("method='adjoint' needs a step with one threshold, and this one has more")
        self.h = x
        return heaviside(x.detach()) if self.spikes is None else self.spikes

    def gate(self, x: Tensor, width: float) -> Tensor:
        """See :func:`snnlib.functional.threshold.gate`."""
        value: Tensor = _Gate.apply(x, width) if self.known is None else self.known[len(self.gates)]
        self.gates.append(value.detach())
        return value


class _Gate(torch.autograd.Function):
    """H(x) that opens once: its derivative is one over the width of a step, in the step before it opens."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.width = width
        return heaviside(x)

    @staticmethod
    def backward(ctx: Any, *gradient: Any) -> Any:
        (x,) = ctx.saved_tensors
        opens = (x <= 0) & (x > -ctx.width)
        return torch.where(opens, gradient[0] * (1.0 / ctx.width), 0.0), None


def is_exact(p: Any) -> bool:
    """Whether these parameters ask for the adjoint."""
    method = getattr(p, "method", None)
    return isinstance(method, str) and method == NAME


class Ends(NamedTuple):
    """What one step gives, and where autograd starts on the way back.

    Attributes:
        outputs: the spikes and the states after the step.
        ends: the states and h, with their graph.
        starts: the gradients that they receive.
    """

    outputs: list[Tensor]
    ends: list[Tensor]
    starts: list[Tensor]


def ends(
    step: Step, x: Tensor, state: Any, p: Any, dt: float, now: Tensor, given: list[Tensor], ahead: bool
) -> Ends:
    """One step with its spikes held fixed, and the gradient that h receives for them.

    Parameters:
        step: a :func:`snnlib.engine.later.later_step`; ``x, state, p, dt`` are its arguments.
        now: gradient of its output.
        given: gradients of the states after it, the last of which is that of the next output.
        ahead: what :func:`check` says.
    """
    inner, kind = step.exact_of, state_type(step.exact_of)  # type: ignore[attr-defined]
    *states, _ = state
    *given, later = given
    spikes, new, probe = _probed(inner, x, kind(*states), p, dt)
    assert probe.h is not None
    with torch.no_grad():
        rise, moved = _around(inner, x, kind(*states), p, dt, probe, ahead)
        rise = rise.clamp(min=dt * (_SLOWEST if p.alpha is None else p.alpha))
        total = later - now
        for gradient, move in zip(given, moved, strict=True):
            total = total + gradient * move
        received = torch.where(spikes != 0, total * (-1.0 / rise), 0.0)  # what is known of rise ahead, first
    return Ends([spikes, *new, state[-1]], [*new, probe.h], [*given, received])


def step_back(
    loop: Any, x: Tensor, state: Any, p: Any, now: Tensor, given: list[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The gradients of one step, by autograd: to its input, to the states before it, to the parameters.

    Parameters:
        loop: has the ``step``, its ``dt``, the ``names`` of the parameters that are tensors, and ``ahead``.
        x, state, p, now, given: as for :func:`ends`.
    """
    with torch.enable_grad():
        x, *states = (value.detach().requires_grad_() for value in (x, *state))
        leaves = [getattr(p, name).detach().requires_grad_() for name in loop.names]
        p = p._replace(**dict(zip(loop.names, leaves, strict=True)))
        made = ends(loop.step, x, states, p, loop.dt, now, given, loop.ahead)
    wanted = [x, *states[:-1], *leaves]
    pairs = [(end, start) for end, start in zip(made.ends, made.starts, strict=True) if end.requires_grad]
    found = torch.autograd.grad([end for end, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True)
    filled = [torch.zeros_like(w) if f is None else f for w, f in zip(wanted, found, strict=True)]
    count = len(states)
    return filled[0], [*filled[1:count], now], filled[count:]


def _around(
    step: Step, x: Tensor, state: Any, p: Any, dt: float, probe: Probe, ahead: bool
) -> tuple[Tensor, list[Tensor]]:
    """By how much h rises in the step; and m: how the state after it changes if the spike moves by a step.

    Parameters:
        probe: of the step as it is.
        ahead: what :func:`check` says.
    """
    none, one, gates = torch.zeros_like(x), torch.ones_like(x), probe.gates

    _, _, before = _probed(step, none, state, p, 0.0, none, gates)
    _, reset, _ = _probed(step, none, state, p, 0.0, one, gates)
    _, early, _ = _probed(step, x, reset, p, dt, none)
    if ahead:
        _, silent, _ = _probed(step, x, state, p, dt, none, gates)
        _, late, probe = _probed(step, none, silent, p, 0.0, one, gates)
    else:  # the same from one call, and also where a drive is infinite, which times no time is NaN
        _, late, _ = _probed(step, x, state, p, dt, one, gates)
    assert probe.h is not None
    assert before.h is not None
    return probe.h - before.h, [b - a for a, b in zip(early, late, strict=True)]


def _probed(
    step: Step,
    x: Tensor,
    state: Any,
    p: Any,
    dt: float,
    spikes: Tensor | None = None,
    gates: list[Tensor] | None = None,
) -> tuple[Tensor, Any, Probe]:
    """What a step returns, and the :class:`Probe` of ``spikes`` and ``gates`` that it was called with."""
    probe = Probe(spikes, gates)
    output, new = returned(step, step(x, state, p._replace(method=probe), dt), len(state))
    return output, new, probe


def slope_step(step: Step) -> Step:
    """``step`` with another output: at a spike h', the rise of h in that step by ``dt``; 0 where none is."""
    # that of a net's own method would keep the net: it is made anew, and traced anew
    return _slope_step(step) if is_lasting(step) else _slope_step.__wrapped__(step)


@functools.lru_cache(maxsize=16)
def _slope_step(step: Step) -> Step:
    def run(input: Tensor, state: Any, p: Any = default_parameters(step), dt: float = 0.001) -> Any:
        spikes, new, probe = _probed(step, input, state, p, dt)
        ahead = False
        with suppress(ValueError):  # with a surrogate it may be of any kind
            ahead = check(step, p, sort_parameters(p)[0])
        rise, _ = _around(step, input, state, p, dt, probe, ahead)
        return torch.where(spikes != 0, rise / dt, 0.0), new

    run.__name__ = name_of(step)
    run.made_for = state_type(step)  # type: ignore[attr-defined]
    return run


def check(step: Step, p: Any, tensors: tuple[str, ...]) -> bool:
    """Refuse a step from which the adjoint cannot be read.

    Parameters:
        p: the parameters, of which those of these names are ``tensors``, whatever they hold.

    Returns:
        Whether its spikes read what the step has not brought to its end, the state before it say.

    Raises:
        ValueError: it does not take its method from ``p.method``, has more than one threshold, returns anything
            but its spikes, moves without input in no time, or has spikes that read more than its state.
    """
    if not hasattr(p, "alpha"):
        raise ValueError(f"method='adjoint' needs a field alpha beside method, and {type(p).__name__} has none")
    numbers = tuple(None if name in tensors else value for name, value in p._asdict().items())
    key = StepKey(step), cast(Any, type(p)), tensors, numbers
    return _look(*key) if can_be_hashed(key) else _look.__wrapped__(*key)  # what passed is not asked again


@functools.lru_cache(maxsize=256)
def _look(key: StepKey, parameters: Any, tensors: tuple[str, ...], numbers: tuple[Any, ...]) -> bool:
    """See :func:`check`; of a tensor only that it is one."""
    step = key()
    kind: Any = state_type(step)
    with unwatched(), torch.no_grad():
        half = torch.full((1,), 0.5, dtype=torch.float64)
        p = parameters(*numbers)._replace(**dict.fromkeys(tensors, half))
        none, state = torch.zeros_like(half), kind(*[half] * len(kind._fields))
        silent, still, probe = _probed(step, none, state, p, 0.0, none)
        if probe.h is None:
            raise ValueError(
                "method='adjoint' needs a step that calls spike(..., p.method, p.alpha); "
                f"{name_of(step)} does not"
            )
        loud = float(_probed(step, none, state, p, 0.0, torch.ones_like(half))[0])
        if float(silent) != 0 or loud not in (0, 1):
            raise ValueError(
                f"method='adjoint' needs a step that returns its spikes, 1 or 0; {name_of(step)} returns "
                f"{loud:g} with a spike and {float(silent):g} without; scale them behind it"
            )
        for name, value in zip(kind._fields, still, strict=True):
            if not torch.allclose(torch.as_tensor(value, dtype=half.dtype), half):
                raise ValueError(
                    f"method='adjoint' needs a step that moves nothing in no time: with dt=0 and no input "
                    f"{name_of(step)} changes {name}; write a decay as 1 - dt * tau_inv"
                )
        if more := _reading_more(step, kind, p, 0.0):
            raise ValueError(
                f"method='adjoint' needs a step whose spikes read its state alone: in {name_of(step)} {more} "
                "reads the input too, or a state that the input has not reached; let it read the state after it"
            )
        return _reading_more(step, kind, p, 0.001) != ""


def _reading_more(step: Step, kind: Any, p: Any, dt: float) -> str:
    """What about a spike is not made of the state alone, as a step leaves it; if nothing, "".

    h and the reset of a state are those of a step without time and input. A step of ``dt`` with an input must
    have the same of the state that it leaves. This is asked at some values; where a step fails there, or is
    NaN, nothing is known.
    """
    none, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    names = "its threshold", *(f"what a spike does to {name}" for name in kind._fields)
    for k in range(1, 5):
        with suppress(Exception):
            x, *state = (one * k * math.sin(3 * k + 2 * place) for place in range(len(names)))
            own = kind(*(value.clone() for value in state))  # it may write to it
            _, new, probe = _probed(step, x, own, p, dt, none)
            _, jumped, _ = _probed(step, x, kind(*state), p, dt, one, probe.gates)
            _, reset, after = _probed(step, none, new, p, 0.0, one, probe.gates)
            for name, found, wanted in zip(names, (probe.h, *jumped), (after.h, *reset), strict=True):
                if bool(abs(found - wanted) > 1e-6 * (1 + abs(wanted))):
                    return name
    return ""
