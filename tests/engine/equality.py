"""What it takes for a backend to be right: all that a reference loop gives, it gives."""

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from snnlib.engine import scan
from snnlib.engine.step import recurrent_state_type
from tests.neurons import SPIKING, Neuron, draw_input, draw_state, generator

__all__ = [
    "FUSED_BACKENDS",
    "assert_equal",
    "device_of",
    "everything",
    "kept_by",
    "lif_case",
    "moved",
    "needs_triton",
    "recurrent_case",
    "shapes",
]

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton, which comes with torch for CUDA"
)
FUSED_BACKENDS = ["cpu", pytest.param("gpu", marks=needs_triton)]


def shapes(cpu: list[tuple[int, ...]], gpu: list[tuple[int, ...]]) -> Any:
    """Shapes for each backend: small ones for the GPU's kernels, which are interpreted where there is none."""
    given = [*(("cpu", shape) for shape in cpu), *(pytest.param("gpu", s, marks=needs_triton) for s in gpu)]
    return pytest.mark.parametrize(("backend", "shape"), given, ids=str)


def device_of(backend: str) -> str:
    """Where a backend is tested: the GPU's kernels on the CPU, in Triton's interpreter, if there is no GPU."""
    return "cuda" if backend == "gpu" and torch.cuda.is_available() else "cpu"


def moved(values: Any, device: str) -> Any:
    """A tensor, or a NamedTuple of tensors and numbers, on a device."""
    if isinstance(values, Tensor):
        return values.to(device)
    return type(values)(*(v.to(device) if isinstance(v, Tensor) else v for v in values))


def everything(backend: str, step, x: Tensor, state, p, dt: float = 0.001, **options: Any) -> list[Tensor]:
    """Output, last state, and the gradients of all that can have one, of a random projection of all outputs."""

    def own(value: Tensor) -> Tensor:
        return value.detach().clone(memory_format=torch.preserve_format).requires_grad_()

    x, state = own(x), type(state)(*map(own, state))
    fields = {k: own(v) for k, v in p._asdict().items() if isinstance(v, Tensor)}
    options = {k: own(v) if isinstance(v, Tensor) else v for k, v in options.items()}
    output, last = scan(step, x, state, p._replace(**fields), dt=dt, backend=backend, **options)
    source = generator(99)
    loss = sum((v * torch.randn(v.shape, generator=source, dtype=v.dtype).to(v)).sum() for v in (output, *last))
    inputs = [x, *state, *fields.values(), *(v for v in options.values() if isinstance(v, Tensor))]
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [
        output,
        *last,
        *(torch.zeros_like(i) if g is None else g for i, g in zip(inputs, gradients, strict=True)),
    ]


def assert_equal(backend: str, neuron: Neuron, x: Tensor, state, p, **options: Any) -> list[Tensor]:
    """Where the backend runs, it and the reference agree in everything."""
    device = device_of(backend)
    x, state, p = (moved(values, device) for values in (x, state, p))
    options = {k: moved(v, device) if isinstance(v, Tensor) else v for k, v in options.items()}
    fused = everything(backend, neuron.step, x, state, p, **options)
    plain = everything("reference", neuron.step, x, state, p, **options)
    tight = x.dtype == torch.float64
    for ours, theirs in zip(fused, plain, strict=True):
        scale = float(theirs.detach().abs().max()) if theirs.numel() else 0.0
        torch.testing.assert_close(
            ours, theirs, rtol=1e-9 if tight else 2e-5, atol=scale * (1e-12 if tight else 2e-6)
        )
    return fused


def kept_by(run: Callable[[], Tensor]) -> tuple[Tensor, dict[int, int]]:
    """What a function gives, and what autograd keeps for its way back, the result too: bytes by address."""
    sizes: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        sizes[value.data_ptr()] = value.numel() * value.element_size()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        return run(), sizes


def lif_case(shape=(20, 3, 6), dtype=torch.float64, backend: str = "cpu"):
    """The LIF neuron, an input and a state."""
    neuron = next(n for n in SPIKING if n.name == "lif")
    source = generator(11)
    given = draw_input(neuron, source, shape, dtype), draw_state(neuron, source, shape[1:], dtype)
    return neuron, *(moved(values, device_of(backend)) for values in given)


def recurrent_case(shape: tuple[int, ...], dtype: torch.dtype):
    """The LIF neuron, an input, a state with z, and recurrent weights."""
    neuron, x, state = lif_case(shape, dtype)
    source = generator(shape[-1])
    weights = 1.5 * torch.randn(shape[-1], shape[-1], generator=source).to(dtype) / shape[-1] ** 0.5
    first = (torch.rand(shape[1:], generator=source) < 0.3).to(dtype)
    return neuron, x, recurrent_state_type(neuron.step)(first, *state), weights
