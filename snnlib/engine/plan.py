"""How a kernel is launched on a GPU: how many programs, each of how many neurons and samples."""

import functools
from typing import Any, NamedTuple

import torch

from snnlib.engine.emit.expression import CALLED
from snnlib.engine.program import Program, is_short_power

__all__ = ["Plan", "multiprocessors", "plan", "work_of"]

_AHEAD = 8
"""Steps whose rows are read at once, while as many are computed: loads take longer than a step."""
_AHEAD_RECURRENT = 4
"""The same where each step waits for a sum over all neurons."""
_FEW = 512
"""Neurons for each multiprocessor up to which, in float32, rows are asked for twice as early: their steps are
done in less time than memory takes."""
_MANY = 1024
"""Neurons for each multiprocessor from which on, in float32, a thread takes four of them, whose numbers are
read and written at once, and half as many steps at a time."""
_WORK = 50
"""As long as the step is no more work: threads with four neurons are fewer, and would wait for arithmetic."""
_SLOW = {*CALLED, "div", "pow", "reciprocal", "rsqrt", "sigmoid"} - {"floor"}
"""Operators that take about seven times as long as an addition."""
_ALONE = 128
"""The most neurons that one program takes with all their weights: 64 KiB of them in float32."""
_ON_CHIP = 128 * 1024
"""Bytes of weights that a multiprocessor keeps in its registers."""
_SAMPLES = 8
"""The most samples of one program that shares the neurons with others."""


class Plan(NamedTuple):
    """How a kernel is launched.

    Attributes:
        shared: whether its programs share the neurons of a few samples.
        grid: how many programs there are; if they share neurons, for these and for samples.
        at_once: how many samples they all take.
        constants: arguments that are compiled into it.
        options: for the compiler.
    """

    shared: bool
    grid: tuple[int, ...]
    at_once: int
    constants: dict[str, int]
    options: dict[str, Any]

    @property
    def arguments(self) -> dict[str, Any]:
        """What the launch is told by name."""
        return {**self.constants, **self.options}


def work_of(program: Program) -> int:
    """Of a step, in simple operators."""
    slow = sum(line.operator in _SLOW and not is_short_power(line) for line in program.lines)
    return len(program.lines) + 6 * slow


@functools.lru_cache(maxsize=256)
def plan(shape: torch.Size, recurrent: bool, dtype: torch.dtype, processors: int, work: int) -> Plan:
    """Choose the form of a kernel for a sequence of this shape.

    Parameters:
        processors: how many multiprocessors the GPU has.
        work: of a step, see :func:`work_of`.
    """
    samples, size = shape[1], shape[-1]
    options = {"num_warps": 1, "enable_fp_fusion": False}
    if recurrent and size > _ALONE:
        return _plan_shared(samples, size, dtype, processors, options)
    if recurrent:
        width = max(16, _power_of_two(size))
        # a neuron a thread, but no more than 128 registers of weights
        options["num_warps"] = max(1, width // 32, width * width * dtype.itemsize // 16384)
        constants = {"WIDTH": width, "AHEAD": _AHEAD_RECURRENT, "BLOCKS": 1}
        return Plan(False, (samples,), samples, constants, options)
    neurons = shape[1:].numel()
    each, single = neurons // processors, dtype.itemsize <= 4
    if each >= _MANY and single and work <= _WORK:
        width, a_thread, ahead, blocks = 512, 4, _AHEAD // 2, 1
    else:
        # so few in a program that each processor has two programs
        width, a_thread, ahead = min(128, max(32, _power_of_two(each // 2 + 1))), 1, _AHEAD
        blocks = 2 if each <= _FEW and single else 1
    options["num_warps"] = width // (32 * a_thread)
    constants = {"WIDTH": width, "AHEAD": ahead, "BLOCKS": blocks}
    return Plan(False, (-(-neurons // width),), samples, constants, options)


def _plan_shared(samples: int, size: int, dtype: torch.dtype, processors: int, options: dict[str, Any]) -> Plan:
    """The cheapest way to share neurons: all programs run at once, one on a multiprocessor."""
    deep = 512 // dtype.itemsize  # 16 bytes for each thread of a warp
    chunks = -(-size // deep)
    found = []
    for columns in (128, 64, 32, 16):
        groups = -(-size // columns)
        bytes = columns * chunks * deep * dtype.itemsize
        if bytes > _ON_CHIP or groups > processors:
            continue
        side = processors // groups
        each = min(_SAMPLES, _power_of_two(-(-samples // side)))
        side = min(side, -(-samples // each))
        # cycles of a step, roughly: to meet, and for each sample to sum and to multiply
        cost = -(-samples // (side * each)) * (2500 + each * (150 + bytes // 220))
        constants = {"SAMPLES": each, "COLUMNS": columns, "DEEP": deep, "CHUNKS": chunks}
        warps = min(16, max(4, _power_of_two(bytes // 8192)))
        found.append((cost, Plan(True, (groups, side), side * each, constants, options | {"num_warps": warps})))
    if found:
        return min(found, key=lambda one: one[0])[1]
    constants = {"SAMPLES": 4, "COLUMNS": 128, "DEEP": deep, "CHUNKS": 0}
    return Plan(True, (-(-size // 128), -(-samples // 4)), samples, constants, options | {"num_warps": 4})


def _power_of_two(least: int) -> int:
    """The first power of two that is not smaller."""
    return 1 << (least - 1).bit_length()


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """How many a GPU has."""
    if device.type != "cuda":  # the interpreter, which runs one program after the other
        return 6
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
