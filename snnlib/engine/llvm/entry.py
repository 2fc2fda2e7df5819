"""Object code of a function that :mod:`snnlib.engine.llvm.compiler` knows, behind three pointers.

Imported where something is compiled, by :mod:`snnlib.engine.llvm.machine`, and nowhere else.
"""

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import torch
from llvmlite import ir

from snnlib.engine.llvm.builder import BYTE, INTEGER, Array, Builder
from snnlib.engine.llvm.compiler import call
from snnlib.engine.loops.sizes import LINE

__all__ = ["Kind", "Target", "compiled", "written"]

Kind = tuple[torch.dtype, int]
"""Of an array: its type of number, and how many dimensions it has."""
Target = tuple[str, str, str]
"""What code is made for: triple, name and features of the CPU, as LLVM writes them."""

_NUMBERS = {
    **{torch.float32: ir.FloatType(), torch.float64: ir.DoubleType()},
    **{torch.int64: INTEGER, torch.uint8: BYTE},
}


def compiled(
    function: Callable[..., None],
    name: str,
    kinds: Sequence[Kind],
    integers: int,
    numbers: int,
    target: Target,
    model: str,
) -> bytes:
    """Object code with the function :func:`written` under this name. It may lie anywhere as a whole.

    Parameters:
        model: how far its parts may lie from each other, LLVM's code model.
    """
    triple, cpu, features = target
    made = llvm.Target.from_triple(triple)
    machine = made.create_target_machine(cpu, features, 3, "pic" if model == "small" else "default", model)
    text = str(written(function, name, kinds, integers, numbers, target))
    context = llvm.create_context()  # other threads may use the one that all share
    module = llvm.parse_assembly(text, context)
    module.data_layout = str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = False  # it is in vectors where that pays
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    return bytes(machine.emit_object(module))


def written(
    function: Callable[..., None], name: str, kinds: Sequence[Kind], integers: int, numbers: int, target: Target
) -> Any:
    """The module of ``void name(void **arrays, int64_t *integers, T *numbers)``.

    ``integers`` holds the shapes of the arrays, then the function's own integers, ``T`` is the type of the
    first array.

    Parameters:
        function: takes contiguous arrays, then integers, then numbers.
        kinds: of the arrays.
        integers: how many there are.
        numbers: how many there are.
    """
    triple, _, features = target
    module = ir.Module(name, context=ir.Context())
    module.triple = triple
    number = _NUMBERS[kinds[0][0]]
    arguments = [BYTE.as_pointer().as_pointer(), INTEGER.as_pointer(), number.as_pointer()]
    entry = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    entry.attributes.add("nounwind")
    entry.attributes.alignstack = (
        LINE  # a register on the stack is in one line, wherever a thread's stack begins
    )
    builder = Builder(entry.append_basic_block(), frozenset(features.split(",")))
    begin = builder.append_basic_block()  # places for variables are made before it
    places, counts, values = entry.args

    def at(pointer: Any, index: int) -> Any:
        return builder.load(builder.gep(pointer, [builder.integer(index)], inbounds=True))

    builder.branch(begin)
    builder.position_at_end(begin)
    given: list[Any] = []
    used = 0
    for k, (dtype, dimensions) in enumerate(kinds):
        data = builder.bitcast(at(places, k), _NUMBERS[dtype].as_pointer())
        given.append(Array(builder, _NUMBERS[dtype], data, [at(counts, used + d) for d in range(dimensions)]))
        used += dimensions
    given += [at(counts, used + k) for k in range(integers)]
    given += [at(values, k) for k in range(numbers)]
    call(builder, function, given)
    builder.ret_void()
    return module
