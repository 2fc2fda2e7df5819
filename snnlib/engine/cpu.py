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

import torch
from torch import Tensor

from snnlib.engine.step import Step, UntraceableError, integration_dtype, name_of
from snnlib.engine.trace import Line, Program, Traced, Value, trace

__all__ = ["run", "source"]

_BLOCK = 1024
"""Neurons that one pass over time takes along: their state and one row of each array fit the first cache."""

_INFIX = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "abs": "abs({0})",
    "reciprocal": "F(1.0) / {0}",
    "number": "F(1.0) if {0} else F(0.0)",
    "where": "{1} if {0} else {2}",
    "select_above": "{2} if {0} > {1} else F(0.0)",
    "clamp": "{1} if {0} < {1} else {2} if {0} > {2} else {0}",
    "relu": "F(0.0) if {0} < F(0.0) else {0}",
    # a comparison with NaN is false: both ways around keep NaN, as torch does
    "maximum": "{1} if {0} < {1} or {1} != {1} else {0}",
    "minimum": "{1} if {0} > {1} or {1} != {1} else {0}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "isnan": "{0} != {0}",
    "logical_not": "not {0}",
    "bitwise_not": "not {0}",
    "logical_and": "{0} and {1}",
    "bitwise_and": "{0} and {1}",
    "logical_or": "{0} or {1}",
    "bitwise_or": "{0} or {1}",
    "sign": "(F(1.0) if {0} > F(0.0) else F(0.0)) - (F(1.0) if {0} < F(0.0) else F(0.0))",
    "sigmoid": "F(1.0) / (F(1.0) + exp(-{0}))",
    "sigmoid_backward": "{0} * (F(1.0) - {1}) * {1}",
    "tanh_backward": "{0} * (F(1.0) - {1} * {1})",
    "rsqrt": "F(1.0) / sqrt({0})",
}
_CALLED = {"cos", "exp", "expm1", "floor", "log", "log1p", "sin", "sqrt", "tanh"}
_POWERS = {
    2.0: "{0} * {0}",
    3.0: "{0} * {0} * {0}",
    0.5: "sqrt({0})",
    -0.5: "F(1.0) / sqrt({0})",
    -1.0: "F(1.0) / {0}",
    -2.0: "F(1.0) / ({0} * {0})",
}

_HEAD = '''"""Made by snnlib.engine.cpu from the step {name}."""

from math import {called}

import numpy as np
from numba import njit

F = np.{dtype}
'''


class _Kernel(NamedTuple):
    """A compiled step."""

    traced: Traced
    forward: Callable[..., None]
    backward: Callable[..., None]


_KERNELS: dict[str, _Kernel] = {}
"""Compiled steps by the name under which torch's operators find them."""
_LOCK = threading.Lock()


def run(
    step: Step, input: Tensor, state: Any, p: Any, dt: float, recurrent_weights: Tensor | None
) -> tuple[Tensor, Any]:
    """Run the fused loop where :func:`why_not` has no objection; arguments as in :func:`snnlib.engine.scan`."""
    dtype = integration_dtype(input.dtype)
    tensors, learned, numbers = _sorted(p)
    name = _prepare(step, type(p), numbers, tensors, learned, dt, dtype)[0]
    shape = input.shape[1:]
    states = [torch.as_tensor(value, dtype=dtype).expand(shape) for value in state]
    parameters = [getattr(p, field).to(dtype) for field in tensors]
    output, *rest = torch.ops.snnlib.cpu_forward(input.to(dtype), states, parameters, name)
    return output, type(state)(*rest[: len(states)])


def why_not(step: Step, p: Any, dt: float, dtype: torch.dtype) -> str:
    """Empty where the step can be fused, else the reason, of which it warns once."""
    tensors, learned, numbers = _sorted(p)
    reason: str = _prepare(step, type(p), numbers, tensors, learned, dt, dtype)[1]
    return reason


def _sorted(p: Any) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Any, ...]]:
    """Which parameters are tensors, which of them learn, and all of them with None for a tensor."""
    fields = () if p is None else p._fields
    tensors = tuple(name for name in fields if isinstance(getattr(p, name), Tensor))
    learned = tuple(name for name in tensors if getattr(p, name).requires_grad)
    return tensors, learned, tuple(None if name in tensors else getattr(p, name) for name in fields)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _prepare(
    step: Step,
    kind: Any,
    numbers: tuple[Any, ...],
    tensors: tuple[str, ...],
    learned: tuple[str, ...],
    dt: float,
    dtype: torch.dtype,
) -> tuple[str, str]:
    """Trace and compile a step, once; the name of its kernel, or why there is none.

    torch.compile calls this while it compiles, and can hand over a type and a tuple, but no NamedTuple.
    """
    try:
        p = kind(*numbers) if hasattr(kind, "_fields") else None
        return _compiled(step, p, tensors, learned, dt, dtype)
    except TypeError as error:  # a list among the parameters, say
        return "", f"a parameter cannot be hashed ({error})"


@functools.lru_cache(maxsize=256)
def _compiled(
    step: Step, numbers: Any, tensors: tuple[str, ...], learned: tuple[str, ...], dt: float, dtype: torch.dtype
) -> tuple[str, str]:
    try:
        traced = trace(step, numbers, tensors, learned, dt, dtype)
    except UntraceableError as error:
        warnings.warn(f"{name_of(step)} runs in the plain loop, it cannot be fused: {error}", stacklevel=7)
        return "", str(error)
    text = source(traced, name_of(step), dtype)
    name = hashlib.sha256(text.encode()).hexdigest()[:24]
    with _LOCK:
        if name not in _KERNELS:
            module = _load(name, text)
            _KERNELS[name] = _Kernel(traced, module.forward, module.backward)
    return name, ""


def source(traced: Traced, name: str, dtype: torch.dtype) -> str:
    """The Python source that Numba compiles."""
    called = ", ".join(sorted(_CALLED))
    head = _HEAD.format(name=name, called=called, dtype=str(dtype).removeprefix("torch."))
    return head + _forward_source(traced) + _backward_source(traced)


def _forward_source(traced: Traced) -> str:
    program = traced.forward
    states = [n for n in program.inputs if n.startswith("s")]
    parameters = [n for n in program.inputs if n.startswith("p")]
    kept = [f"k{k}" for k in range(len(traced.saved))]
    written = ["z", *states, *kept]
    body = _body(program, written, dict.fromkeys(program.inputs, ""))
    rows = ["x", *states, *parameters, "z", *kept]
    cut = ["x[t * moves, a:b]", *(f"{n}[a:b]" for n in states + parameters), "z[t, a:b]"]
    cut += [f"{n}[t, a:b]" for n in kept]
    return _loop("forward", rows, body, ["moves"], "range(z.shape[0])", cut)


def _backward_source(traced: Traced) -> str:
    program = traced.backward
    states = [n for n in program.inputs if n.startswith("g") and n != "gz"]
    parameters = [n for n in program.inputs if n.startswith("p")]
    kept = {name: f"k{k}" for k, name in enumerate(traced.saved)}
    sums = [f"gp{k}" for k in range(len(program.outputs) - 1 - len(states))]
    read = {name: kept.get(name, name) for name in program.inputs}
    body = _body(program, ["gx", *states], read, sums)
    output = ["z"] if traced.uses_output else []
    timed = ["gz", *output, *kept.values(), "gx"]
    rows = [*timed, *states, *parameters, *sums]
    cut = [f"{n}[t, a:b]" for n in timed] + [f"{n}[a:b]" for n in (*states, *parameters, *sums)]
    return _loop("backward", rows, body, [], "range(gz.shape[0] - 1, -1, -1)", cut)


def _body(program: Program, written: list[str], read: dict[str, str], sums: Sequence[str] = ()) -> list[str]:
    """The program for one neuron; it loads all that it reads first, because states are written in place."""
    used = {a for line in program.lines for a in line.arguments} | set(program.outputs)
    lines = [f"{name} = {read[name] or name}_[j]" for name in program.inputs if name in used]
    lines += [f"{line.name} = {_expression(line)}" for line in program.lines]
    for target, value in zip(written, program.outputs, strict=False):
        lines.append(f"{target}_[j] = {_literal(value)}")
    for target, value in zip(sums, program.outputs[len(written) :], strict=True):
        lines.append(f"{target}_[j] += {_literal(value)}")
    return lines


def _loop(name: str, rows: list[str], body: list[str], extra: list[str], over: str, cut: list[str]) -> str:
    inner = "\n".join(f"        {line}" for line in body)
    arguments = ", ".join(f"{n}_" for n in rows)
    return f"""

@njit(error_model="numpy")
def _{name}({arguments}):
    for j in range({rows[0]}_.shape[0]):
{inner}


@njit(error_model="numpy", nogil=True, cache=True)
def {name}({", ".join(rows + extra)}, start, stop, block):
    for a in range(start, stop, block):
        b = min(a + block, stop)
        for t in {over}:
            _{name}({", ".join(cut)})
"""


def _literal(value: Value) -> str:
    return value if isinstance(value, str) else f"F({float(value)!r})".replace("F(inf)", "F(np.inf)")


def _expression(line: Line) -> str:
    arguments = [_literal(a) for a in line.arguments]
    if line.operator == "pow":
        exponent = line.arguments[1]
        shape = _POWERS.get(exponent) if isinstance(exponent, int | float) else None
        return (shape or "{0} ** {1}").format(*arguments)
    if line.operator in _CALLED:
        return f"{line.operator}({arguments[0]})"
    return _INFIX[line.operator].format(*arguments)


def _load(name: str, text: str) -> ModuleType:
    """Import generated source from the cache on disk, where Numba keeps the machine code beside it."""
    import numba

    folder = _cache_folder() / f"numba-{numba.__version__}"
    path = folder / f"snn_{name}.py"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(path)
    except OSError:  # a home that cannot be written: this process compiles for itself
        path = Path(tempfile.mkdtemp(prefix="snnlib-")) / path.name
        path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # Numba finds cached functions by the name of their module
    spec.loader.exec_module(module)
    return module


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "snnlib"


# -- torch's side ----------------------------------------------------------------------------------------


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="snnlib")


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
        _in_threads(lambda a, b: kernel.forward(*timed, moves, a, b, _BLOCK), neurons)
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
        _in_threads(lambda a, b: kernel.backward(*timed, a, b, _BLOCK), shape.numel())
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
