"""The fused loop for CUDA: a traced step as Triton kernels, time inside, neurons or samples outside.

One program takes some neurons through the whole sequence; their state stays in registers. A recurrent layer has
one program for each sample while its weights fit into registers, up to 128 neurons, and one for a few samples
where they do not. The additions, multiplications, divisions and square roots are those of the reference loop in
the same order, each rounded by itself ("enable_fp_fusion" is off); sums over recurrent weights have an order of
their own.

Under ``TRITON_INTERPRET=1`` Triton's interpreter runs the same kernels on the CPU: slowly, to test them.
"""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.nn.functional import linear

from snnlib.engine.cache import load
from snnlib.engine.emit_triton import emit
from snnlib.engine.kernel import Kernel, own, still, wide
from snnlib.engine.program import Traced

__all__ = ["Plan", "build", "plan"]

_AHEAD = 8
"""Steps whose rows are read at once, while as many are computed: loads take longer than a step."""
_AHEAD_RECURRENT = 4
"""The same where each step waits for a sum over all neurons."""
_RESIDENT = 128
"""The most neurons whose weights stay in the registers of one program: 64 KiB of them in float32."""


def build(traced: Traced, name: str, dtype: torch.dtype, recurrent: bool) -> Kernel:
    """Make the kernels of a traced step, which Triton compiles when they first run.

    ``name`` is for who reads the source.
    """
    made = emit(traced, name, dtype, recurrent)
    module = load(made.text, f"triton-{triton.__version__}")

    def direction(which: str, numbers: tuple[float, ...]) -> _Direction:
        @functools.cache
        def on(device: torch.device) -> Tensor:
            return torch.tensor(numbers or (0.0,), dtype=dtype, device=device)

        lanes, tiled = (getattr(module, n, None) for n in (which, f"{which}_tiled"))
        return _Direction(lanes, tiled, on, traced.uses_output)

    forward = direction("forward", made.forward_numbers)
    backward = direction("backward", made.backward_numbers)
    return Kernel(
        traced,
        functools.partial(_forward, forward, traced.types_of_saved(dtype)),
        functools.partial(_backward, backward, traced.learned),
    )


class _Direction(NamedTuple):
    """The kernels of one direction, of which the tiled one is None without weights.

    Attributes:
        numbers: from a device to the kernels' numbers there.
        reads_output: whether the backward kernels do.
    """

    lanes: Any
    tiled: Any
    numbers: Any
    reads_output: bool


def _forward(
    loops: _Direction,
    saved: Sequence[torch.dtype],
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """See :class:`snnlib.engine.kernel.Kernel`. Products that need no state are formed before the loop."""
    first, inner = (states[:1], states[1:]) if weights else ([], states)
    x, moves = still(input)
    heard: list[Tensor] = []
    with torch.autocast(input.device.type, enabled=False):
        if len(weights) > 1:
            x = linear(x, weights[1])
        if weights:
            heard = [linear(first[0], weights[0]), weights[0].T.contiguous()]
    shape = torch.Size((len(input), *x.shape[1:]))
    output, *kept = (input.new_empty(shape, dtype=dtype) for dtype in (input.dtype, *saved))
    finals, row = own(inner), shape[1:].numel()
    if shape.numel():
        arrays = [x, *finals, *wide(parameters, shape[1:]), output, *kept]
        _launch(loops, arrays, heard, shape, moves * row, row)
    last = [output[-1].clone() if len(output) else value.clone() for value in first]
    return [output, *last, *finals, *kept]


def _backward(
    loops: _Direction,
    learned: int,
    gradient: Tensor,
    finals: Sequence[Tensor],
    kept: Sequence[Tensor],
    parameters: Sequence[Tensor],
    recurrent: Sequence[Tensor],
    asked: Sequence[bool],
) -> list[Tensor]:
    """See :class:`snnlib.engine.kernel.Kernel`. Products with all steps are formed after the loop."""
    shape = gradient.shape[1:]
    given = gradient.new_empty(gradient.shape)
    last, inner = (finals[:1], finals[1:]) if recurrent else ([], finals)
    states, sums = own(inner), [gradient.new_zeros(shape) for _ in range(learned)]
    if loops.reads_output and recurrent:
        kept = [recurrent[2], *kept]
    if gradient.numel():
        # from the last row back
        timed = [value.contiguous()[-1] for value in (gradient, *kept)]
        arrays = [*timed, *states, *wide(parameters, shape), given[-1], *sums]
        heard = [last[0].contiguous(), recurrent[0].contiguous()] if recurrent else []
        _launch(loops, arrays, heard, gradient.shape, -shape.numel(), -shape.numel())
    if not recurrent:
        return [given, *states, *sums]
    with torch.autocast(gradient.device.type, enabled=False):
        to_input, to_first, *to_weights = _products(given, last[0], recurrent, asked)
    return [to_input, to_first, *states, *sums, *to_weights]


def _products(given: Tensor, last: Tensor, recurrent: Sequence[Tensor], asked: Sequence[bool]) -> list[Tensor]:
    """From the gradients of what the neurons received: those of input, first z, recurrent and input weights."""
    weights, first, output, *inward = recurrent
    to_first = given[0] @ weights if len(given) else last.clone()
    to_weights = [torch.zeros_like(weights), torch.zeros_like(inward[0] if inward else weights)]
    if asked[1] and given.numel():
        to_weights[0] = given[1:].flatten(0, 1).T @ output[:-1].flatten(0, 1)
        to_weights[0].addmm_(given[0].T, first)
    if inward and asked[2] and given.numel():
        to_weights[1] = given.flatten(0, 1).T @ inward[1].flatten(0, 1)
    if inward:
        given = given @ inward[0] if asked[0] else given.new_empty(0)
    return [given, to_first, *to_weights]


def _launch(
    loops: _Direction, arrays: list[Tensor], heard: list[Tensor], shape: torch.Size, moves: int, row: int
) -> None:
    """Run one direction.

    Parameters:
        arrays: in the order of the kernel's arguments.
        heard: what the first step receives from recurrent weights, and these, or nothing.
        shape: of the sequence.
        moves: how far the first array moves in a step.
        row: how far all others do.
    """
    device = arrays[0].device
    form = plan(shape, bool(heard), arrays[0].dtype, _processors(device))
    kernel = loops.tiled if form.tiled else loops.lanes
    sizes = [*form.sizes, shape[0], moves, row]
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        kernel[(form.programs,)](
            *arrays, loops.numbers(device), *heard, *sizes, **form.constants, **form.options
        )


class Plan(NamedTuple):
    """How a kernel is launched.

    Attributes:
        tiled: whether it is the tiled kernel.
        programs: how many there are.
        sizes: its integer arguments before the number of steps.
        constants: its arguments that are compiled into it.
        options: for the compiler.
    """

    tiled: bool
    programs: int
    sizes: tuple[int, ...]
    constants: dict[str, int]
    options: dict[str, Any]


def plan(shape: torch.Size, recurrent: bool, dtype: torch.dtype, processors: int) -> Plan:
    """Choose the form of a kernel for a sequence of this shape on a GPU with so many multiprocessors."""
    samples, size = shape[1], shape[-1]
    sizes: tuple[int, ...]
    if not recurrent:
        neurons = shape[1:].numel()
        # so few in a program that each processor has two programs
        width = min(128, max(32, _power_of_two(neurons // (2 * processors) + 1)))
        sizes, constants = (neurons,), {"WIDTH": width, "AHEAD": _AHEAD}
        programs, warps = -(-neurons // width), width // 32
    elif size <= _RESIDENT:
        width = max(16, _power_of_two(size))
        sizes, constants = (size,), {"WIDTH": width, "AHEAD": _AHEAD_RECURRENT}
        # 64 registers of weights or fewer in a thread
        programs, warps = samples, max(1, width * width * dtype.itemsize // 8192)
    else:
        group = 16 if samples >= 8 * processors else 4
        sizes, constants = (samples, size), {"SAMPLES": group, "TILE": 64, "DEEP": 32}
        programs, warps = -(-samples // group), max(4, group // 2)
    options = {"num_warps": warps, "enable_fp_fusion": False}
    return Plan(recurrent and size > _RESIDENT, programs, sizes, constants, options)


def _power_of_two(least: int) -> int:
    """The first power of two that is not smaller."""
    return 1 << (least - 1).bit_length()


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":  # the interpreter, which runs one program after the other
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
