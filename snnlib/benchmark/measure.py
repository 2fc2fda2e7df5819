"""How a row is measured: seconds of its passes, memory that it holds, its spikes."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnlib.benchmark.cases import Case, build
from snnlib.benchmark.workloads import Spec
from snnlib.task._launch import process_seconds

__all__ = ["memory", "saved_bytes", "start", "timing"]

_PATIENCE = 60.0
"""After so many seconds three passes of a slow peer are enough, and one to warm up."""


def timing(spec: Spec) -> dict[str, Any]:
    """Median and quartiles of forward, backward and both, ms, and the rate of spikes.

    A pass is forward, then backward from a fixed gradient; what belongs to neither is not timed. There are
    at least ``repeats`` passes and they take at least ``seconds``.
    """
    case = build(spec)
    gradient = case.gradient(case.run(case.input).detach(), spec.seed)
    _repeat(lambda: _timed(case, gradient), spec.warmup, 0.0, 1)
    passes = _repeat(lambda: _timed(case, gradient), spec.repeats, spec.seconds, 3)
    forward, backward = zip(*passes, strict=True)
    return {
        "forward_ms": _spread(forward),
        "backward_ms": _spread(backward),
        "total_ms": _spread([a + b for a, b in passes]),
        "passes": len(passes),
        "rate": rate(spec, case),
        "note": case.note,
    }


def _repeat(
    one: Callable[[], tuple[float, float]], times: int, seconds: float, least: int
) -> list[tuple[float, float]]:
    begin = time.perf_counter()
    done: list[tuple[float, float]] = []
    while True:
        elapsed = time.perf_counter() - begin
        enough = len(done) >= times and elapsed >= seconds
        if enough or (len(done) >= least and elapsed >= max(_PATIENCE, seconds)):
            return done
        done.append(one())


def _timed(case: Case, gradient: Tensor, from_loss: bool = False) -> tuple[float, float]:
    """Seconds forward and backward, from the gradient or from the loss that has it."""
    case.clear()
    _synchronize(case.input)
    begin = time.perf_counter()
    output = case.run(case.input)
    _synchronize(case.input)
    middle = time.perf_counter()
    if from_loss:
        (output * gradient).sum().backward()
    else:
        output.backward(gradient)
    case.finish()
    _synchronize(case.input)
    return middle - begin, time.perf_counter() - middle


def _synchronize(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def _spread(seconds: Any) -> dict[str, float]:
    values = [1000 * value for value in seconds]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": statistics.median(values), "q1": first, "q3": third}


@torch.no_grad()
def rate(spec: Spec, case: Case) -> float | None:
    """Spikes a neuron and step; None where nothing spikes."""
    if spec.peer == "floor":
        return None
    if not case.spiking:
        return float((case.run(case.input) != 0).float().mean())
    counted: list[tuple[float, int]] = []

    def count(_module: Any, _input: Any, output: Any) -> None:
        spikes = output[0] if isinstance(output, tuple) else output
        counted.append((float(spikes.sum()), spikes.numel()))

    hooks = [module.register_forward_hook(count) for module in case.spiking]
    case.run(case.input)
    for hook in hooks:
        hook.remove()
    return sum(spikes for spikes, _ in counted) / sum(number for _, number in counted)


def start(spec: Spec) -> dict[str, Any]:
    """Seconds of this process's first passes, and of its life before: imports, the net, its input.

    The very first goes back from a loss, a number, as training does; its forward is shown apart. The next one
    goes back from a gradient of the output's shape, for which torch imports sympy.
    """
    case = build(spec)
    before = process_seconds()
    _synchronize(case.input)
    gradient = case.gradient(case.input, spec.seed)
    forward, backward = _timed(case, gradient, from_loss=True)
    return {
        "import_s": before,
        "first_s": forward + backward,
        "first_forward_s": forward,
        "given_s": sum(_timed(case, gradient)),
        "later_s": sum(_timed(case, gradient)),
        "note": case.note,
    }


def memory(spec: Spec) -> dict[str, Any]:
    """Floats a neuron and step that are held between forward and backward, and at the peak.

    ``held`` and ``peak`` count what the process, or the GPU, holds beyond the input and the gradient that
    backward starts from; the output is in both, the input's gradient in the peak. ``saved`` counts what
    autograd was given to keep, without input, output and weights, each storage once.
    """
    # so short a sequence leaves nothing behind, but imports and compiles all that the long one needs
    for _ in range(2):
        short = build(spec._replace(seq_length=2))
        output = short.run(short.input)
        output.backward(short.gradient(output, spec.seed))
    del short, output
    case = build(spec)
    unit = spec.seq_length * spec.batch_size * spec.features * 4
    gradient = case.gradient(case.input, spec.seed)
    before = _reset(case.input)
    output = case.run(case.input)
    held = _held(case.input)
    output.backward(gradient)
    peak = _peak(case.input)
    del output
    case.clear()
    return {
        "held": (held - before) / unit,
        "peak": (peak - before) / unit,
        "saved": saved_bytes(lambda: case.run(case.input), (case.input, *case.module.parameters()))[1] / unit,
        "held_mb": (held - before) / 1e6,
        "peak_mb": (peak - before) / 1e6,
        "rate": rate(spec, case),
        "note": case.note,
    }


def saved_bytes(run: Callable[[], Tensor], known: Iterable[Tensor]) -> tuple[Tensor, int]:
    """What a function gives, and the bytes that autograd keeps for the way back from it.

    Parameters:
        known: what is there anyhow, input and weights say; the output is not counted either.
    """
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = run()
    for tensor in (output, *known):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    return output, sum(kept.values())


def _reset(x: Tensor) -> int:
    """Start a new peak; the bytes held now."""
    if x.is_cuda:
        _synchronize(x)
        torch.cuda.reset_peak_memory_stats(x.device)
    else:
        Path("/proc/self/clear_refs").write_text("5")
    return _held(x)


def _held(x: Tensor) -> int:
    if x.is_cuda:
        _synchronize(x)
        return torch.cuda.memory_allocated(x.device)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is freed goes back to the system, so that it is not counted
    return _status("VmRSS")


def _peak(x: Tensor) -> int:
    if x.is_cuda:
        _synchronize(x)
        return torch.cuda.max_memory_allocated(x.device)
    return _status("VmHWM")


def _status(field: str) -> int:
    """A figure of this process from the Linux kernel, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
