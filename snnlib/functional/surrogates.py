"""The spike with each surrogate as a function of its own, under the names that Norse gives them."""

from collections.abc import Callable

from torch import Tensor

from snnlib.engine.step import Scalar, heaviside
from snnlib.functional.threshold import SURROGATES, spike

__all__ = [
    "circ_dist_fn",
    "heavi_circ_fn",
    "heavi_erfc_fn",
    "heavi_tanh_fn",
    "heaviside",
    "logistic_fn",
    "super_fn",
    "triangle_fn",
]


def _function(name: str, method: str) -> Callable[..., Tensor]:
    def made(x: Tensor, alpha: Scalar | None = None) -> Tensor:
        return spike(x, method, alpha)

    made.__name__ = made.__qualname__ = name
    made.__doc__ = (
        f"``spike(x, {method!r}, alpha)``, see :func:`~snnlib.functional.threshold.spike`; "
        f"alpha is {SURROGATES[method].alpha:g} if None."
    )
    return made


super_fn = _function("super_fn", "super")
triangle_fn = _function("triangle_fn", "triangle")
logistic_fn = _function("logistic_fn", "logistic")
heavi_erfc_fn = _function("heavi_erfc_fn", "heavi_erfc")
heavi_tanh_fn = _function("heavi_tanh_fn", "tanh")
heavi_circ_fn = _function("heavi_circ_fn", "circ")
circ_dist_fn = _function("circ_dist_fn", "circ_dist")
