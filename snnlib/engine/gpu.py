"""The fused loop for CUDA: a traced step as Triton kernels, time inside, neurons or samples outside.

One program takes some neurons through the whole sequence; their state stays in registers. A recurrent layer has
one program for each sample while its weights fit into registers, up to 128 neurons. Of more neurons each
program keeps some with their weights, for a few samples, and waits for the others after each step. All
arithmetic is that of the reference loop in the same order, each operation rounded by itself ("enable_fp_fusion"
is off); sums over recurrent weights have an order of their own.

Under ``TRITON_INTERPRET=1`` Triton's interpreter runs the same kernels on the CPU: slowly, to test them.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.nn.functional import linear

from snnlib.engine.arrays import outputs, own, still
from snnlib.engine.cache import load
from snnlib.engine.emit.triton import emit
from snnlib.engine.kernel import Kernel
from snnlib.engine.plan import Plan, multiprocessors, plan, work_of
from snnlib.engine.program import Traced

__all__ = ["build"]


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

        alone, shared = (getattr(module, n, None) for n in (which, f"{which}_shared"))
        return _Direction(alone, shared, on, work_of(getattr(traced, which)))

    forward = direction("forward", made.forward_numbers)
    backward = direction("backward", made.backward_numbers)
    return Kernel(
        traced,
        functools.partial(_forward, forward, traced),
        functools.partial(_backward, backward, traced),
    )


class _Direction(NamedTuple):
    """The kernels of one direction.

    Attributes:
        alone: its programs know nothing of each other.
        shared: its programs share the neurons of a few samples; None without weights.
        numbers: from a device to the kernels' numbers there.
        work: of a step.
    """

    alone: Any
    shared: Any
    numbers: Any
    work: int


def _forward(
    loops: _Direction,
    traced: Traced,
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """See :class:`snnlib.engine.kernel.Kernel`. Products that need no state are formed before the loop."""
    first, inner = (states[:1], states[1:]) if weights else ([], states)
    x, moves = still(input)
    recurrence = None
    if weights:
        with torch.autocast(input.device.type, enabled=False):
            if len(weights) > 1:
                x = linear(x, weights[1])
            heard = linear(first[0], weights[0])
    shape = torch.Size((len(input), *x.shape[1:]))
    output, kept = outputs(traced, shape, x.dtype, lambda size, dtype: x.new_empty(size, dtype=dtype))
    if not shape.numel():
        finals = own(inner)
        return [output, *own(first), *finals, *kept, *_copies(traced, finals)]
    if weights:
        recurrence = _Recurrence(heard, weights[0], output.__getitem__)
    row = shape[1:].numel()
    arrays = _Arrays([x], inner, parameters, [output, *(value[traced.rows_before :] for value in kept)], [])
    finals = _launch(loops, arrays, recurrence, shape, moves * row, row)
    return [output, *(output[-1].clone() for _ in first), *finals, *kept, *_copies(traced, finals)]


def _copies(traced: Traced, finals: Sequence[Tensor]) -> list[Tensor]:
    """Of what is retraced, which somebody may write to before the way back."""
    return [finals[k].clone() for k in traced.retraced]


def _backward(
    loops: _Direction,
    traced: Traced,
    gradient: Tensor,
    finals: Sequence[Tensor],
    kept: Sequence[Tensor],
    parameters: Sequence[Tensor],
    recurrent: Sequence[Tensor],
    asked: Sequence[bool],
) -> list[Tensor]:
    """See :class:`snnlib.engine.kernel.Kernel`. Products with all steps are formed after the loop."""
    shape, row = gradient.shape, gradient.shape[1:].numel()
    given = torch.empty_like(gradient, memory_format=torch.contiguous_format)
    last, inner = (finals[:1], finals[1:]) if recurrent else ([], finals)
    sums = [gradient.new_zeros(shape[1:]) for _ in range(traced.learned)]
    rows = len(kept) - len(traced.retraced)
    kept, ends = kept[:rows], kept[rows:]
    if traced.uses_output and recurrent:
        kept = [recurrent[2], *kept]
    if gradient.numel():
        recurrence = None
        if recurrent:
            # a copy: it is written to where what is heard at a step is computed before it
            recurrence = _Recurrence(last[0].clone(), recurrent[0].T, lambda t: given[-1 - t])
        # from the last row back
        read = [value.contiguous()[-1] for value in (gradient, *kept)]
        arrays = _Arrays(read, [*inner, *ends], parameters, [given[-1]], sums)
        states = _launch(loops, arrays, recurrence, shape, -row, -row)[: len(inner)]
    else:
        states = own(inner)
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


class _Recurrence(NamedTuple):
    """What returns through recurrent weights.

    Attributes:
        heard: what the first step receives, ``[B, N]``; overwritten.
        weights: ``[N, N]``, of which row n is what neuron n hears with.
        row: from a step, in the kernel's order, to what is heard at the next, ``[B, N]``.
    """

    heard: Tensor
    weights: Tensor
    row: Callable[[int], Tensor]


class _Arrays(NamedTuple):
    """What a kernel reads and writes.

    Attributes:
        read: at the first step that is taken, of each row ``[B, *features]`` and what lies a step further.
        carried: before the first step.
        fixed: for all steps.
        written: like what is read.
        sums: over all steps; zero before.
    """

    read: list[Tensor]
    carried: Sequence[Tensor]
    fixed: Sequence[Tensor]
    written: list[Tensor]
    sums: list[Tensor]


def _launch(
    loops: _Direction, arrays: _Arrays, recurrence: _Recurrence | None, shape: torch.Size, moves: int, row: int
) -> list[Tensor]:
    """Run one direction; what is carried, after the last step.

    Parameters:
        recurrence: None without weights.
        shape: of the sequence.
        moves: how far the first array that is read moves in a step.
        row: how far all others do.
    """
    device, dtype = arrays.read[0].device, arrays.read[0].dtype
    form = plan(shape, recurrence is not None, dtype, multiprocessors(device), loops.work)
    last = [arrays.read[0].new_empty(shape[1:]) for _ in arrays.carried]
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        if form.shared and recurrence is not None:
            _launch_shared(loops, form, arrays, last, recurrence, shape[0], (moves, row))
            return last
        given, own = _given((*arrays.carried, *arrays.fixed), shape[1:])
        values = [*arrays.read, *given, *arrays.written, *last, *arrays.sums, loops.numbers(device)]
        size = shape[1:].numel()
        if recurrence is not None:
            values += [recurrence.heard.contiguous(), recurrence.weights.T.contiguous()]
            size = shape[-1]
        loops.alone[form.grid](*values, own, size, shape[0], moves, row, **form.arguments)
    return last


def _given(values: Sequence[Tensor], shape: torch.Size) -> tuple[list[Tensor], int]:
    """Rows, or one number for all neurons; bit k of the second result is set where value k is a row."""
    given, own = [], 0
    for k, value in enumerate(values):
        if any(value.stride()):
            value, own = value.expand(shape).contiguous(), own | 1 << k
        given.append(value)
    return given, own


def _launch_shared(
    loops: _Direction,
    form: Plan,
    arrays: _Arrays,
    last: list[Tensor],
    recurrence: _Recurrence,
    steps: int,
    strides: tuple[int, int],
) -> None:
    """Run the kernel whose programs share neurons.

    They wait for each other between the steps. Where the weights are too many to keep, what is heard at a step
    is one product, and the step one launch. One step is a launch in the interpreter too: it has no two programs
    at once.
    """
    heard, weights = recurrence.heard.contiguous(), recurrence.weights.contiguous()
    samples, size = heard.shape
    meeting = torch.zeros(form.grid[1] * 32, dtype=torch.int32, device=heard.device)
    numbers, arguments = loops.numbers(heard.device), form.arguments
    if heard.is_cuda and form.constants["CHUNKS"]:
        # all at once or none: what else runs, NCCL say, may not take the place of one that is waited for
        arguments["launch_cooperative_grid"] = True

    given, own = _given((*arrays.carried, *arrays.fixed), heard.shape)
    later = [*last, *given[len(last) :]], own | (1 << len(last)) - 1

    def run(offset: int, first: int, end: int) -> None:
        before, own_before = later if first else (given, own)
        values = [*arrays.read, *before, *arrays.written, *last, *arrays.sums, numbers, heard, weights, meeting]
        until = min(samples, offset + form.at_once)
        ends = first, end, steps
        loops.shared[form.grid](*values, own_before, offset, until, size, *ends, *strides, **arguments)

    if not form.constants["CHUNKS"]:
        with torch.autocast(heard.device.type, enabled=False):
            for t in range(steps):
                if t:
                    torch.mm(recurrence.row(t - 1), weights.T, out=heard)
                run(0, t, t + 1)
        return
    for offset in range(0, samples, form.at_once):
        if heard.is_cuda:
            run(offset, 0, steps)
            meeting.zero_()
        else:
            for t in range(steps):
                run(offset, t, t + 1)
