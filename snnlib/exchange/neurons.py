"""Neurons as nodes of NIR, and back.

NIR gives equations in continuous time::

    tau_syn dI/dt = -I + w_in S                                           CubaLI, CubaLIF
    tau_mem dv/dt = (v_leak - v) + r I                                    LI and LIF with tau, and I = S
            dv/dt = r I                                                   IF with I = S

An Euler step of dt, the current first, is the step of snnlib's neurons with an input of gain * S, where ::

    gain = r w_in dt / tau_syn                                            CubaLI, CubaLIF
    gain = r                                                              LI, LIF
    gain = r dt                                                           IF

The gain is divided out of the voltages that are read, where the neuron spikes. A gain of 1 is written, but for
CubaLIF: snnTorch and SpikingJelly read that with r = tau_mem / dt and w_in = tau_syn / dt alone, Norse with
any, so its voltages are written times tau_mem / dt.
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnlib.engine.check import check_fits
from snnlib.engine.step import name_of
from snnlib.exchange.stateless import array, tensor
from snnlib.functional.iaf import IAFParameters, iaf_feed_forward_step
from snnlib.functional.li import LIParameters, li_feed_forward_step
from snnlib.functional.lif import LIFParameters, lif_feed_forward_step
from snnlib.functional.lif_box import LIFBoxParameters, lif_box_feed_forward_step
from snnlib.functional.threshold import check_method
from snnlib.module.neuron import Neuron

__all__ = ["NEURONS", "SPIKING", "NeuronRead", "node_of", "parameters_of"]

Array = NDArray[Any]

SPIKING = (nir.CubaLIF, nir.IF, nir.LIF)
NEURONS = (*SPIKING, nir.CubaLI, nir.LI)

# graphs of other programs come in float32: a gain as close to 1 as this is 1
_ROUNDING = 1e-6
# and what went through a product and a quotient in float64 is the same but for this
_EXACT = 1e-14


def node_of(neuron: Neuron, features: Sequence[int]) -> nir.NIRNode:
    """A neuron as a node.

    Parameters:
        neuron: its recurrent and input weights are left alone.
        features: shape of its input without time and batch.

    Raises:
        ValueError: NIR has no such neuron, or not with these parameters.
    """
    dt, given = neuron.dt, neuron.p
    if neuron.step not in _WRITERS:
        raise ValueError(f"NIR has no node for the neuron {name_of(neuron.step)}")
    if getattr(given, "method", None) == "logistic":
        raise ValueError("NIR has no spikes that are drawn, got method='logistic'")
    check_fits("p", given, (1, *features))
    p = {name: _spread(value, features) for name, value in zip(given._fields, given, strict=True)}
    for name in ("tau_syn_inv", "tau_mem_inv"):
        if name in p and not (p[name] > 0).all():
            raise ValueError(f"NIR has no time constant that is infinite, got {name}={p[name].min()}")
    node = _WRITERS[neuron.step](p, dt)
    _values(node)  # what would not be read is not written
    node.metadata = _metadata(given, p)
    return node


def _spread(value: Any, features: Sequence[int]) -> Any:
    """One value a neuron, in float64; None where the field is none that the equations have."""
    if isinstance(value, bool) or not isinstance(value, Real | Tensor):
        return None
    values = array(value).astype(np.float64) if isinstance(value, Tensor) else np.float64(value)
    return np.broadcast_to(values, (1, *features))[0].copy()


def _metadata(given: Any, p: dict[str, Any]) -> dict[str, Any]:
    """What NIR has no field for: the surrogate, and which parameters were tensors.

    Raises:
        ValueError: the surrogate that is read would not take ``alpha``.
    """
    tensors = [name for name, value in given._asdict().items() if isinstance(value, Tensor)]
    kept: dict[str, Any] = {"tensors": " ".join(tensors)} if tensors else {}
    if not hasattr(given, "method"):
        return kept
    if isinstance(given.method, str):
        kept["method"] = given.method
    kept["detach_reset"] = bool(given.detach_reset)
    check_method(kept.get("method", "super"), given.alpha)
    if given.alpha is not None:
        kept["alpha"] = p["alpha"] if "alpha" in tensors else float(given.alpha)
    return kept


def _write_li(p: dict[str, Array], dt: float) -> nir.NIRNode:
    tau_mem, r = 1.0 / p["tau_mem_inv"], np.ones_like(p["v_leak"])
    if (np.abs(dt * p["tau_syn_inv"] - 1.0) < _EXACT).all():  # a current that lasts one step is the input
        return nir.LI(tau=tau_mem, r=r, v_leak=p["v_leak"])
    tau_syn = 1.0 / p["tau_syn_inv"]
    return nir.CubaLI(tau_syn=tau_syn, tau_mem=tau_mem, r=r, v_leak=p["v_leak"], w_in=tau_syn / dt)


def _write_lif(p: dict[str, Array], dt: float) -> nir.NIRNode:
    tau_syn, tau_mem = 1.0 / p["tau_syn_inv"], 1.0 / p["tau_mem_inv"]
    return nir.CubaLIF(tau_syn=tau_syn, w_in=tau_syn / dt, tau_mem=tau_mem, **_voltages(p, tau_mem / dt))


def _write_lif_box(p: dict[str, Array], dt: float) -> nir.NIRNode:
    return nir.LIF(tau=1.0 / p["tau_mem_inv"], **_voltages(p, np.ones_like(p["v_th"])))


def _write_iaf(p: dict[str, Array], dt: float) -> nir.NIRNode:
    return nir.IF(r=np.full_like(p["v_th"], 1.0 / dt), v_threshold=p["v_th"], v_reset=p["v_reset"])


def _voltages(p: dict[str, Array], r: Array) -> dict[str, Array]:
    return {"r": r, "v_leak": r * p["v_leak"], "v_threshold": r * p["v_th"], "v_reset": r * p["v_reset"]}


_WRITERS = {
    iaf_feed_forward_step: _write_iaf,
    li_feed_forward_step: _write_li,
    lif_box_feed_forward_step: _write_lif_box,
    lif_feed_forward_step: _write_lif,
}


class NeuronRead(NamedTuple):
    """What a node says."""

    p: Any
    """The neuron's parameters, of its own kind."""
    gain: Tensor | None
    """What its input is to be multiplied by; None is 1."""


def parameters_of(node: nir.NIRNode, dt: float, dtype: torch.dtype) -> NeuronRead:
    """A node as a neuron.

    Parameters:
        node: one of :data:`NEURONS`.
        dt: time step in s.
        dtype: of parameters that are tensors.

    Raises:
        ValueError: a value is none that a neuron can have.
    """
    v = _values(node)
    shapes = {name: list(values.shape) for name, values in v.items() if values.size != 1}
    if any(shape != shapes[name] for shape in shapes.values() for name in shapes):
        raise ValueError(f"all parameters must have one shape, got {shapes}")
    kind, found = _equations(node, v, dt)
    gain = v["r"] * _share(node, v, dt)
    gain = np.where(np.abs(gain - 1.0) < _ROUNDING, 1.0, gain)
    if isinstance(node, SPIKING):
        if not (gain > 0).all():
            raise ValueError(f"r and w_in must be positive where a neuron spikes, got a gain of {gain.min()}")
        found = {name: x / gain if name.startswith("v_") else x for name, x in found.items()}
        return NeuronRead(kind(**_numbers(node, found, dtype), **_surrogate(node, dtype)), None)
    moved = None if (gain == 1.0).all() else tensor(gain, dtype)
    return NeuronRead(kind(**_numbers(node, found, dtype)), moved)


_FIELDS = ("r", "tau", "tau_mem", "tau_syn", "v_leak", "v_reset", "v_threshold", "w_in")


def _values(node: nir.NIRNode) -> dict[str, Array]:
    """A node's values by their names.

    Raises:
        ValueError: one is not finite, or is a time constant that is not positive.
    """
    v = {name: tensor(value, torch.float64).numpy() for name, value in vars(node).items() if name in _FIELDS}
    for name, values in v.items():
        least = 0.0 if name.startswith("tau") else -np.inf
        if not (np.isfinite(values) & (values > least)).all():
            wanted = "positive" if name.startswith("tau") else "finite"
            raise ValueError(f"{name} must be {wanted}, got {values.min()} to {values.max()}")
    return v


def _equations(node: nir.NIRNode, v: dict[str, Array], dt: float) -> tuple[Any, dict[str, Array]]:
    if isinstance(node, nir.IF):
        return IAFParameters, {"v_th": v["v_threshold"], "v_reset": v["v_reset"]}
    leak = {"tau_mem_inv": 1.0 / v["tau_mem" if "tau_mem" in v else "tau"], "v_leak": v["v_leak"]}
    if isinstance(node, nir.LI):
        return LIParameters, {"tau_syn_inv": np.full_like(v["tau"], 1.0 / dt), **leak}
    if isinstance(node, nir.CubaLI):
        return LIParameters, {"tau_syn_inv": 1.0 / v["tau_syn"], **leak}
    leak |= {"v_th": v["v_threshold"], "v_reset": v["v_reset"]}
    if isinstance(node, nir.LIF):
        return LIFBoxParameters, leak
    return LIFParameters, {"tau_syn_inv": 1.0 / v["tau_syn"], **leak}


def _share(node: nir.NIRNode, v: dict[str, Array], dt: float) -> Any:
    """How much of r is the gain of one step."""
    if isinstance(node, nir.IF):
        return dt
    return v["w_in"] * dt / v["tau_syn"] if "w_in" in v else 1.0


def _numbers(node: nir.NIRNode, found: dict[str, Array], dtype: torch.dtype) -> dict[str, float | Tensor]:
    """A number where all neurons share it, unless it was a tensor: dt * p is rounded otherwise then."""
    tensors = _tensors(node)
    return {
        name: tensor(values, dtype)
        if name in tensors or not np.allclose(values, values.flat[0], _EXACT, 0.0)
        else _number(values.flat[0])
        for name, values in found.items()
    }


def _number(value: float) -> float:
    """The number of 15 digits that is meant, where products and quotients moved it in its last place."""
    meant = float(f"{value:.15g}")
    return meant if math.isclose(meant, value, rel_tol=1e-15) else float(value)


def _tensors(node: nir.NIRNode) -> list[str]:
    return str(node.metadata.get("tensors", "")).split()


def _surrogate(node: nir.NIRNode, dtype: torch.dtype) -> dict[str, Any]:
    alpha = (lambda values: tensor(values, dtype)) if "alpha" in _tensors(node) else float
    kinds = {"method": str, "alpha": alpha, "detach_reset": bool}
    return {name: kind(node.metadata[name]) for name, kind in kinds.items() if name in node.metadata}
