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
from snnlib.engine.sizes import LINE

__all__ = ["Target", "compiled", "compiled_team", "written"]

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
    """Object code with the function :func:`written` under this name; ``model`` is LLVM's code model."""
    return _object_code(written(function, name, kinds, integers, numbers, target), target, model)


def compiled_team(name: str, target: Target, model: str) -> bytes:
    """Object code of ``void name(void **data)``, which each thread of a team calls and which does its calls.

    ``data`` has how many calls there are, where the functions are that give the number of a thread and how many
    threads there are, and then of each call where the function is and the three pointers that it is given.
    """
    module = _module(name, target)
    pointer = BYTE.as_pointer()
    entry = _entry(module, name, [pointer.as_pointer()])
    builder = Builder(entry.append_basic_block(), frozenset())
    begin = builder.append_basic_block()
    (data,) = entry.args

    def at(index: Any) -> Any:
        return builder.load(builder.gep(data, [index]))

    def asked(index: int) -> Any:
        kind = ir.FunctionType(ir.IntType(32), []).as_pointer()
        return builder.sext(builder.call(builder.bitcast(at(builder.integer(index)), kind), []), INTEGER)

    builder.branch(begin)
    builder.position_at_end(begin)
    count = builder.ptrtoint(at(builder.integer(0)), INTEGER)
    called = ir.FunctionType(ir.VoidType(), [pointer] * 3).as_pointer()
    with builder.counted(count, start=asked(1), step=asked(2)) as k:
        first = builder.add(builder.mul(k, builder.integer(4)), builder.integer(3))
        function, *given = (at(builder.add(first, builder.integer(n))) for n in range(4))
        builder.call(builder.bitcast(function, called), given)
    builder.ret_void()
    return _object_code(module, target, model)


def _object_code(made: Any, target: Target, model: str) -> bytes:
    """Of a module that was written. It may lie anywhere as a whole.

    Parameters:
        model: how far its parts may lie from each other, LLVM's code model.
    """
    triple, cpu, features = target
    machine = llvm.Target.from_triple(triple).create_target_machine(
        cpu, features, 3, "pic" if model == "small" else "default", model
    )
    context = llvm.create_context()  # other threads may use the one that all share
    module = llvm.parse_assembly(str(made), context)
    module.data_layout = str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = False  # it is in vectors where that pays
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    return bytes(machine.emit_object(module))


def _module(name: str, target: Target) -> Any:
    module = ir.Module(name, context=ir.Context())
    module.triple = target[0]
    return module


def _entry(module: Any, name: str, arguments: Sequence[Any]) -> Any:
    """A function that is called from outside."""
    entry = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    entry.attributes.add("nounwind")
    # a register that finds no room is kept in one line, wherever the stack of a thread begins
    entry.attributes.alignstack = LINE
    return entry


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
    module = _module(name, target)
    number = _NUMBERS[kinds[0][0]]
    arguments = [BYTE.as_pointer().as_pointer(), INTEGER.as_pointer(), number.as_pointer()]
    entry = _entry(module, name, arguments)
    builder = Builder(entry.append_basic_block(), frozenset(target[2].split(",")))
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
