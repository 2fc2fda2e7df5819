"""The fused loop for the CPU: a traced step as machine code, time inside, neurons in blocks outside.

Numba compiles the two programs of :mod:`snnlib.engine.trace` into loops over a block of neurons, which become
SIMD instructions. A block stays in the first cache while time runs over it, so each value of the sequence is
touched once. The additions and multiplications are those of the reference loop in the same order and
precision, so that outputs are equal bit for bit where the step has no exp, tanh and the like.
"""

import functools
import hashlib
import importlib.util
import itertools
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snnlib.engine.emit import emit
from snnlib.engine.step import Step, UntraceableError, integration_dtype, name_of
from snnlib.engine.trace import Traced, trace, without_backward

__all__ = ["prepare", "run", "source"]

_BLOCK = 1024
"""Neurons that one pass over time takes along: their state and one row of each array fit the first cache."""


class _Kernel(NamedTuple):
    """A compiled step; the numbers that its two functions take last."""

    traced: Traced
    forward: Callable[..., None]
    backward: Callable[..., None]
    forward_numbers: tuple[Any, ...]
    backward_numbers: tuple[Any, ...]


_KERNELS: dict[str, _Kernel] = {}
"""Compiled steps by the name under which torch's operators find them."""
_LOCK = threading.Lock()


def prepare(step: Step, input: Tensor, state: Any, p: Any, dt: float) -> tuple[str, str]:
    """Trace and compile a step, once for its kind of arguments; arguments as in :func:`snnlib.engine.scan`.

    Returns:
        The name of its kernel, or an empty one and the reason why there is none, of which it warns once.
    """
    tensors, learned, numbers = _sorted(p)
    wanted = [input, *(v for v in state if isinstance(v, Tensor)), *(getattr(p, name) for name in tensors)]
    # nothing is kept for a backward pass that cannot come
    backward = torch.is_grad_enabled() and any(value.requires_grad for value in wanted)
    dtype = integration_dtype(input.dtype)
    found: tuple[str, str] = _prepare(step, type(p), numbers, tensors, learned, dt, dtype, backward)
    return found


def run(name: str, input: Tensor, state: Any, p: Any) -> tuple[Tensor, Any]:
    """Run a kernel of :func:`prepare`; arguments and result as in :func:`snnlib.engine.scan`."""
    dtype = integration_dtype(input.dtype)
    states = [torch.as_tensor(value, dtype=dtype).expand(input.shape[1:]) for value in state]
    parameters = [getattr(p, field) for field in _sorted(p)[0]]
    output, *rest = torch.ops.snnlib.cpu_forward(input.to(dtype), states, parameters, name)
    return output, type(state)(*rest[: len(states)])


def _sorted(p: Any) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Any, ...]]:
    """Which parameters are tensors, which of them learn, and all of them with None for a tensor."""
    fields = () if p is None else p._fields
    tensors = tuple(name for name in fields if isinstance(getattr(p, name), Tensor))
    learned = tuple(name for name in tensors if getattr(p, name).requires_grad)
    return tensors, learned, tuple(None if name in tensors else getattr(p, name) for name in fields)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _prepare(step: Step, kind: Any, numbers: tuple[Any, ...], *key: Any) -> tuple[str, str]:
    """:func:`_compiled` for torch.compile, which can hand over a type and a tuple, but no NamedTuple."""
    try:
        return _compiled(step, kind(*numbers) if hasattr(kind, "_fields") else None, *key)
    except TypeError as error:  # a list among the parameters, say
        return "", f"a parameter cannot be hashed ({error})"


@functools.lru_cache(maxsize=256)
def _compiled(
    step: Step,
    numbers: Any,
    tensors: tuple[str, ...],
    learned: tuple[str, ...],
    dt: float,
    dtype: torch.dtype,
    backward: bool,
) -> tuple[str, str]:
    try:
        traced = trace(step, numbers, tensors, learned, dt, dtype)
    except UntraceableError as error:
        warnings.warn(f"{name_of(step)} runs in the plain loop, it cannot be fused: {error}", stacklevel=7)
        return "", str(error)
    made = emit(traced if backward else without_backward(traced), name_of(step), dtype)
    number = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    numbers = [tuple(map(number, values)) for values in made[2:]]
    name = _digest(repr(made[1:]))
    with _LOCK:
        if name not in _KERNELS:
            module = _load(_digest(made.text), made.text)
            _KERNELS[name] = _Kernel(made.traced, module.forward, module.backward, *numbers)
    return name, ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def source(step: Step, p: Any, dt: float, dtype: torch.dtype) -> str:
    """The Python source that Numba compiles for a step; its numbers are arguments c0, c1, ..."""
    tensors, learned, _ = _sorted(p)
    return emit(trace(step, p, tensors, learned, dt, dtype), name_of(step), dtype).text


def _load(name: str, text: str) -> ModuleType:
    """Import generated source from the cache on disk, where Numba keeps the machine code beside it."""
    import numba

    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    try:
        return _import_from(Path(root) / "snnlib" / f"numba-{numba.__version__}", name, text)
    except (OSError, RuntimeError):  # neither we nor Numba can write there: this process compiles for itself
        return _import_from(Path(_own_folder().name), name, text)


def _import_from(folder: Path, name: str, text: str) -> ModuleType:
    path = folder / f"snn_{name}.py"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        fresh = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # Numba finds cached functions by the name of their module
    spec.loader.exec_module(module)
    return module


@functools.cache
def _own_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder that lasts as long as the process."""
    return tempfile.TemporaryDirectory(prefix="snnlib-")


# -- torch's side ----------------------------------------------------------------------------------------


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="snnlib")


# the threads of a pool do not live on in a forked process
os.register_at_fork(after_in_child=_pool.cache_clear)


def _in_threads(work: Callable[[int, int], None], neurons: int) -> None:
    """Share the neurons between this thread and a few more: as many as torch may use."""
    blocks = -(-neurons // _BLOCK)
    threads = max(1, min(torch.get_num_threads(), blocks))
    bounds = [min(neurons, (blocks * k // threads) * _BLOCK) for k in range(threads + 1)]
    parts = list(itertools.pairwise(bounds))
    others = [_pool(threads).submit(work, *part) for part in parts[1:]]
    work(*parts[0])
    for other in others:
        other.result()


@torch.library.custom_op("snnlib::cpu_forward", mutates_args=(), device_types="cpu")
def _forward(input: Tensor, states: Sequence[Tensor], parameters: Sequence[Tensor], name: str) -> list[Tensor]:
    """``[output, *final states, *saved]``."""
    kernel = _KERNELS[name]
    steps, shape = len(input), input.shape[1:]
    moves = int(input.stride(0) != 0 or steps <= 1)  # a constant input is one row that is read again
    x = (input if moves else input[:1]).contiguous()
    finals = [state.clone(memory_format=torch.contiguous_format) for state in states]
    wide = [value.expand(shape).contiguous() for value in parameters]
    output = torch.empty(input.shape, dtype=input.dtype)
    saved = [torch.empty(input.shape, dtype=input.dtype) for _ in kernel.traced.saved]
    neurons = shape.numel()
    if neurons and steps:
        timed = [_rows(x), *map(_row, finals), *map(_row, wide), _rows(output), *map(_rows, saved)]
        _in_threads(lambda a, b: kernel.forward(*timed, moves, a, b, _BLOCK, *kernel.forward_numbers), neurons)
    return [output, *finals, *saved]


@_forward.register_fake
def _(input: Tensor, states: Sequence[Tensor], parameters: Sequence[Tensor], name: str) -> list[Tensor]:
    like = [
        torch.empty(input.shape, dtype=input.dtype, device=input.device) for _ in _KERNELS[name].traced.saved
    ]
    output = torch.empty(input.shape, dtype=input.dtype, device=input.device)
    return [output, *(torch.empty(s.shape, dtype=s.dtype, device=s.device) for s in states), *like]


@torch.library.custom_op("snnlib::cpu_backward", mutates_args=(), device_types="cpu")
def _backward(
    gradient: Tensor, finals: Sequence[Tensor], kept: Sequence[Tensor], parameters: Sequence[Tensor], name: str
) -> list[Tensor]:
    """``[input gradient, *initial state gradients, *parameter gradients, one value a neuron]``."""
    kernel = _KERNELS[name]
    shape = gradient.shape[1:]
    gradient = gradient.contiguous()
    given = torch.empty(gradient.shape, dtype=gradient.dtype)
    states = [value.clone(memory_format=torch.contiguous_format) for value in finals]
    wide = [value.expand(shape).contiguous() for value in parameters]
    learned = len(kernel.traced.backward.outputs) - 1 - len(states)
    sums = [torch.zeros(shape, dtype=gradient.dtype) for _ in range(learned)]
    if gradient.numel():
        timed = [*map(_rows, (gradient, *kept, given)), *map(_row, (*states, *wide, *sums))]
        _in_threads(lambda a, b: kernel.backward(*timed, a, b, _BLOCK, *kernel.backward_numbers), shape.numel())
    return [given, *states, *sums]


@_backward.register_fake
def _(
    gradient: Tensor, finals: Sequence[Tensor], kept: Sequence[Tensor], parameters: Sequence[Tensor], name: str
) -> list[Tensor]:
    learned = len(_KERNELS[name].traced.backward.outputs) - 1 - len(finals)
    rows = [torch.empty_like(gradient[0]) for _ in range(len(finals) + learned)]
    return [torch.empty(gradient.shape, dtype=gradient.dtype, device=gradient.device), *rows]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    _, states, parameters, ctx.name = inputs
    traced = _KERNELS[ctx.name].traced
    ctx.states, ctx.sizes = len(states), [value.shape for value in parameters]
    ctx.learned = [k for k, value in enumerate(parameters) if value.requires_grad]
    kept = [*(output[:1] if traced.uses_output else []), *output[1 + len(states) :]]
    ctx.kept = len(kept)
    ctx.save_for_backward(*kept, *parameters)


def _differentiate(ctx: Any, gradients: list[Tensor]) -> tuple[Any, ...]:
    kept, parameters = ctx.saved_tensors[: ctx.kept], ctx.saved_tensors[ctx.kept :]
    finals = gradients[1 : 1 + ctx.states]
    given, *rest = torch.ops.snnlib.cpu_backward(gradients[0], finals, list(kept), list(parameters), ctx.name)
    sums: list[Tensor | None] = [None] * len(parameters)
    for index, value in zip(ctx.learned, rest[ctx.states :], strict=True):
        sums[index] = value.sum_to_size(ctx.sizes[index])
    return given, rest[: ctx.states], sums, None


_forward.register_autograd(_differentiate, setup_context=_setup)


def _rows(value: Tensor) -> Any:
    return value.detach().view(len(value), -1).numpy()


def _row(value: Tensor) -> Any:
    return value.detach().view(-1).numpy()
