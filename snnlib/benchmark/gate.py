"""The equivalence gate: a backend of snnlib's must give what the reference gives before its speed counts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from snnlib.benchmark.nets import input_of, snnlib_net
from snnlib.benchmark.workloads import Spec

__all__ = ["check", "smaller"]

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference, relative to the largest value of a tensor, that rounding explains."""

_FLIPS = 1e-3
"""Share of float32 outputs that may flip where a voltage lies within rounding of the threshold."""


def smaller(spec: Spec) -> Spec:
    """The row at a size that the reference runs in a moment, in the form of loop that the row itself takes."""
    return spec._replace(
        measure="gate",
        seq_length=min(spec.seq_length, 64),
        batch_size=min(spec.batch_size, 16),
        features=spec.features if spec.net == "recurrent" else min(spec.features, 128),
    )


def check(spec: Spec) -> dict[str, Any]:
    """Compare a backend with the reference in float64 and float32.

    Outputs, final state, and the gradients of input, weights and first state; in float32 the gradients only
    where no spike flipped, because a flip changes them rightly.

    Returns:
        By name why the backend's speed must not be printed (``refused``, empty if it may), and how many outputs
        of 0 or 1 differ in float32 (``flips``, of ``outputs``).

    Raises:
        UntraceableError: the backend cannot run this.
    """
    found: dict[str, Any] = {"refused": "", "flips": 0, "outputs": 0}
    for dtype in (torch.float64, torch.float32):
        expected, state = _run(spec, "reference", dtype, None)
        actual, _ = _run(spec, spec.backend, dtype, state)
        if refused := _misshapen(actual, expected, dtype):
            return {**found, "refused": refused}
        flips = sum(int((actual[k] != expected[k]).sum()) for k in _spikes(expected))
        if dtype == torch.float32:
            found["flips"] = flips
            found["outputs"] = sum(expected[k].numel() for k in _spikes(expected))
        if flips and (dtype == torch.float64 or flips > _FLIPS * found["outputs"]):
            found["refused"] = f"{flips} spikes flipped in {_name(dtype)}"
        elif not flips:
            found["refused"] = _differing(actual, expected, dtype)
        if found["refused"]:
            break
    return found


def _run(spec: Spec, backend: str, dtype: torch.dtype, state: Any) -> tuple[dict[str, Tensor], Any]:
    """Run half the sequence from rest, then the other half from a given state; all that comes of it.

    Without a state the second half starts from where the first ended, which is returned.
    """
    torch.manual_seed(spec.seed)
    net = snnlib_net(spec, backend).to(spec.device, dtype)
    x = input_of(spec).to(spec.device, dtype).requires_grad_()
    half = max(1, spec.seq_length // 2)
    first, between = net(x[:half])
    if state is None:
        state = _each(between, Tensor.detach)
    start = _each(state, lambda field: field.clone().requires_grad_())
    second, after = net(x[half:], start) if half < spec.seq_length else net(x, start)
    outputs = {"output": first, "output from a state": second}
    outputs |= {f"final state {k}": field for k, field in enumerate(_fields(after))}
    names = ["input", *(name for name, _ in net.named_parameters())]
    names += [f"first state {k}" for k, _ in enumerate(_fields(start))]
    leaves = [x, *net.parameters(), *_fields(start)]
    generator = torch.Generator().manual_seed(spec.seed)
    seeds = [torch.randn(y.shape, generator=generator).to(y) for y in outputs.values()]
    followed = [(y, seed) for y, seed in zip(outputs.values(), seeds, strict=True) if y.requires_grad]
    gradients = torch.autograd.grad(
        [y for y, _ in followed], leaves, [seed for _, seed in followed], allow_unused=True
    )
    found = {name: value.detach() for name, value in outputs.items()}
    for name, leaf, gradient in zip(names, leaves, gradients, strict=True):
        found[f"gradient of {name}"] = torch.zeros_like(leaf) if gradient is None else gradient
    return found, state


def _each(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A state with each of its tensors changed; modules without one have None."""
    return tree_map(lambda field: field if field is None else change(field), state)


def _fields(state: Any) -> list[Tensor]:
    return [field for field in tree_leaves(state) if field is not None]


def _spikes(found: dict[str, Tensor]) -> list[str]:
    """The outputs that are spikes; those of a readout are not."""
    names = ("output", "output from a state")
    return [k for k in names if bool(((found[k] == 0) | (found[k] == 1)).all())]


def _misshapen(actual: dict[str, Tensor], expected: dict[str, Tensor], dtype: torch.dtype) -> str:
    for name, value in expected.items():
        if actual[name].shape != value.shape:
            shapes = f"{list(actual[name].shape)}, not {list(value.shape)}"
            return f"{name} has shape {shapes}, in {_name(dtype)}"
    return ""


def _differing(actual: dict[str, Tensor], expected: dict[str, Tensor], dtype: torch.dtype) -> str:
    for name, value in expected.items():
        largest = float(value.abs().max()) if value.numel() else 0.0
        difference = float((actual[name] - value).abs().max()) if value.numel() else 0.0
        if not difference <= _TOLERANCE[dtype] * largest:  # NaN differs too
            return f"{name} is off by {difference:.2g} of {largest:.2g} in {_name(dtype)}"
    return ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
