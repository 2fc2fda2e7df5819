"""The spike: a Heaviside step whose derivative is replaced by a surrogate."""

import inspect
import math
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from snnlib.engine.adjoint import NAME, Probe
from snnlib.engine.check import worst
from snnlib.engine.step import Scalar, heaviside
from snnlib.engine.watched import is_concrete, is_transformed

__all__ = [
    "METHODS",
    "SURROGATES",
    "Method",
    "Surrogate",
    "check_method",
    "gate",
    "reset",
    "spike",
    "threshold",
]

Method = str | Callable[[Tensor, Any], Tensor]
"""A name in :data:`SURROGATES`, or a function ``(x, alpha) -> spikes`` that brings its own gradient."""


class Surrogate(NamedTuple):
    """What stands in for the derivative of the spike."""

    derivative: Callable[[Tensor, Scalar], Tensor]
    """``(x, alpha) -> dz/dx``, with x the distance to the threshold."""
    alpha: float
    """The ``alpha`` that is taken when a neuron names none."""
    probability: Callable[[Tensor, Scalar], Tensor] | None = None
    """``(x, alpha) -> P(z = 1)`` where the spike is drawn; None where it is H(x)."""


def _super(x: Tensor, alpha: Scalar) -> Tensor:
    return 1.0 / (alpha * x.abs() + 1.0) ** 2


def _triangle(x: Tensor, alpha: Scalar) -> Tensor:
    return alpha * (1.0 - x.abs()).relu()


def _tanh(x: Tensor, alpha: Scalar) -> Tensor:
    return 1.0 - torch.tanh(alpha * x) ** 2


def _circ(x: Tensor, alpha: Scalar) -> Tensor:
    return alpha**3 / (alpha**2 + x**2) ** 1.5


def _circ_dist(x: Tensor, alpha: Scalar) -> Tensor:
    return 0.5 * alpha**2 / (alpha**2 + x**2) ** 1.5


def _logistic(x: Tensor, alpha: Scalar) -> Tensor:
    return 0.5 * alpha * (1.0 - torch.tanh(alpha * x) ** 2)


def _logistic_probability(x: Tensor, alpha: Scalar) -> Tensor:
    return 0.5 + 0.5 * torch.tanh(alpha * x)


def _heavi_erfc(x: Tensor, alpha: Scalar) -> Tensor:
    return 2.0 / math.sqrt(math.pi) * torch.exp(-((alpha * x) ** 2))


def _sigmoid(x: Tensor, alpha: Scalar) -> Tensor:
    s = torch.sigmoid(alpha * x)
    return alpha * s * (1.0 - s)


def _arctan(x: Tensor, alpha: Scalar) -> Tensor:
    return 0.5 * alpha / (1.0 + (0.5 * math.pi * alpha * x) ** 2)


def _piecewise(x: Tensor, alpha: Scalar) -> Tensor:
    return alpha * (x.abs() < 0.5 / alpha).to(x.dtype)


SURROGATES: dict[str, Surrogate] = {
    "super": Surrogate(_super, 100.0),
    "triangle": Surrogate(_triangle, 0.3),
    "tanh": Surrogate(_tanh, 2.0),
    "circ": Surrogate(_circ, 0.5),
    "circ_dist": Surrogate(_circ_dist, 0.5),
    "logistic": Surrogate(_logistic, 2.0, _logistic_probability),
    "heavi_erfc": Surrogate(_heavi_erfc, 2.0),
    "sigmoid": Surrogate(_sigmoid, 4.0),
    "arctan": Surrogate(_arctan, 2.0),
    "piecewise": Surrogate(_piecewise, 1.0),
}
"""By the name that ``method`` gives them; the formulas are in :func:`spike`.

:meta hide-value:
"""

METHODS = (*SURROGATES, NAME)
"""All names that ``method`` may have."""


class _Spike(torch.autograd.Function):
    """``fired`` as numbers forward, the surrogate at x backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, fired: Tensor, method: str, alpha: Scalar) -> Tensor:
        return fired.to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, ctx.method, alpha = inputs
        # a tensor among what torch watches: filled anew before the way back, it is an error
        ctx.alpha, kept = (None, (alpha,)) if isinstance(alpha, Tensor) else (alpha, ())
        ctx.save_for_backward(x, *kept)

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        x, *kept = ctx.saved_tensors
        alpha = kept[0] if kept else ctx.alpha
        return grad[0] * SURROGATES[ctx.method].derivative(x, alpha), None, None, None


class _DualSpike(_Spike):
    """The same with tangents, for torch.func and forward-mode differentiation. torch.compile takes no function
    that has a ``jvp``."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _Spike.setup_context(ctx, inputs, output)
        x, _, _, alpha = inputs
        ctx.save_for_forward(x, *((alpha,) if isinstance(alpha, Tensor) else ()))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Spike.backward(ctx, *tangents)[0]


class _PlainSpike(torch.autograd.Function):
    """The same where torch.func is not around, which alone wants it in two functions: for these torch looks up
    the signature at every call, which takes as long as the rest of a step."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        output = _Spike.forward(*inputs)
        _Spike.setup_context(ctx, inputs, output)
        return output

    backward = _Spike.backward


def spike(x: Tensor, method: Method = "super", alpha: Scalar | None = None) -> Tensor:
    """Spikes of neurons that are ``x`` above their threshold.

    Forward ``z = H(x)``: 1 where x > 0, else 0 (also at x = 0). Backward ``dz/dx`` is one of

    ==========  =============================================  =====  ==================================
    method      dz/dx                                          alpha  source
    ==========  =============================================  =====  ==================================
    super       1 / (alpha abs(x) + 1)^2                       100    Zenke & Ganguli 2018 (SuperSpike)
    triangle    alpha max(0, 1 - abs(x))                       0.3    Bellec et al. 2018
    tanh        1 - tanh(alpha x)^2                            2      Neftci et al. 2019
    circ        alpha^3 / (alpha^2 + x^2)^1.5                  0.5    Norse, Pehle & Pedersen 2021
    circ_dist   alpha^2 / (2 (alpha^2 + x^2)^1.5)              0.5    Norse, Pehle & Pedersen 2021
    logistic    alpha/2 (1 - tanh(alpha x)^2)                  2      Neftci et al. 2019 (stochastic)
    heavi_erfc  2/sqrt(pi) exp(-(alpha x)^2)                   2      Yin et al. 2021
    sigmoid     alpha s (1 - s), s = 1 / (1 + exp(-alpha x))   4      Neftci et al. 2019
    arctan      alpha/2 / (1 + (pi/2 alpha x)^2)               2      Fang et al. 2021
    piecewise   alpha where abs(x) < 1 / (2 alpha), else 0     1      Wu et al. 2018
    ==========  =============================================  =====  ==================================

    or, with ``adjoint``, no derivative of z at all but that of the time at which x crosses zero, see
    :mod:`snnlib.engine.adjoint`. It needs the steps that follow, so layers and :func:`snnlib.scan` have it, and
    a single step has none. Its ``alpha`` is the least slope dx/dt that it divides by, in units of x a second
    (1): a membrane that just touches its threshold has an arbitrarily large gradient.

    ``logistic`` draws its spikes: z = 1 with probability 1/2 + tanh(alpha x)/2, from torch's global
    generator. In super, tanh, logistic, heavi_erfc, sigmoid, arctan and piecewise a larger ``alpha`` is a
    narrower window; in circ and circ_dist alpha is its width, in triangle its height (the dampening factor).

    Parameters:
        x: distance to the threshold, any shape.
        method: a name of the table, ``adjoint``, or a function ``(x, alpha) -> spikes`` of one's own.
        alpha: a positive number or tensor; None takes the method's own. It gets no gradient.

    Returns:
        0.0 and 1.0 in the shape and dtype of ``x``.

    Raises:
        ValueError: ``method`` is unknown or ``alpha`` is not positive.
        RuntimeError: a gradient of a single step is wanted from the adjoint.
    """
    if callable(method):
        return method(x, alpha)
    check_method(method, alpha)
    if method == NAME:
        return _without_gradient(x)
    surrogate = SURROGATES[method]
    alpha = surrogate.alpha if alpha is None else alpha
    if surrogate.probability is None:
        fired = x.detach() > 0
    else:
        fired = torch.rand_like(x) < surrogate.probability(x.detach(), alpha)
    kind: Any = _PlainSpike
    if torch.compiler.is_dynamo_compiling():
        kind = _Spike
    elif is_transformed():
        kind = _DualSpike
    output: Tensor = kind.apply(x, fired, method, alpha)
    return output


def _without_gradient(x: Tensor) -> Tensor:
    """Spikes of the adjoint outside of a sequence, where a gradient would have to know the steps that follow.

    Raises:
        RuntimeError: a gradient is wanted.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        raise RuntimeError(
            "method='adjoint' needs the whole sequence: take a layer (LIF, LIFRecurrent, ...) or snnlib.scan "
            "in the place of single steps and cells, whose gradients another method gives"
        )
    return heaviside(x)


threshold = spike
"""The name that Norse gives to :func:`spike`."""


def check_method(method: Method, alpha: Scalar | None = None) -> None:
    """Refuse a method that does not exist.

    Raises:
        ValueError: there is none of that name, ``alpha`` is not positive, or a function takes something else
            than (x, alpha).
    """
    if callable(method):
        _check_function(method)
        return
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method must be one of {sorted(METHODS)} or a function, got method={method!r}")
    known: Any = alpha
    if isinstance(alpha, Tensor):
        positive = not is_concrete(alpha) or bool((alpha > 0).all())
    else:
        positive = alpha is None or (isinstance(known, Real) and alpha > 0)
    if not positive:
        shown = f"alpha={alpha!r}"
        if isinstance(alpha, Tensor):
            shown = worst("alpha", alpha, lambda value: value > 0)
        raise ValueError(f"alpha must be a positive number, got {shown}")


def _check_function(method: Callable[[Tensor, Any], Tensor]) -> None:
    """Refuse a function that does not take two arguments, as the surrogates of other libraries."""
    function: Any = method.forward if isinstance(method, nn.Module) else method
    try:
        signature = inspect.signature(function)
    except ValueError:  # of what is written in C nobody knows
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        name = getattr(method, "__name__", type(method).__name__)
        raise ValueError(
            f"method must be a function (x, alpha) -> spikes, {name} takes {signature}; if it takes x alone, "
            "use lambda x, alpha: function(x)"
        ) from error


def gate(x: Tensor, width: float, method: Method) -> Tensor:
    """H(x) for a variable that a neuron waits for while x rises by ``width`` a step.

    A surrogate gives it no gradient. The adjoint gives it that of the time at which it opens: one over
    ``width``, in the step before.

    Parameters:
        x: the variable less what it must exceed, ``[B, *features]``, in any unit: s for time.
        width: what ``x`` rises by in one step, a positive number in the unit of ``x``: ``dt`` for time in s.
        method: how the gradient passes spikes, the neuron's ``p.method``: see :func:`spike`.

    Returns:
        1.0 where ``x`` > 0 and else 0.0, in the shape and dtype of ``x``.
    """
    return method.gate(x, width) if isinstance(method, Probe) else heaviside(x)


def reset(v: Tensor, z: Tensor, v_reset: Scalar, detach: bool = True) -> Tensor:
    """The membrane after a spike.

    ::

        v <- v + z (v_reset - v)

    Parameters:
        v: membrane before the reset, ``[B, *features]``, or another variable that a spike sets.
        z: spikes, 0 or 1, in the shape of ``v``.
        v_reset: where a neuron that spiked starts again, in the unit of ``v``; a number, or a tensor that
            broadcasts.
        detach: keep the gradient from passing through ``z`` here, so that it reaches the spike only by what
            the spike does to others. Zenke & Vogels 2021 found learning to be more robust that way.

    Returns:
        ``v`` where there was no spike and ``v_reset`` where there was one, in the shape of ``v``.
    """
    z = z.detach() if detach else z
    return v + z * (v_reset - v)
