"""A part of Python as LLVM's code: the language of the loops for the CPU.

Functions are plain ones; whatever they call is compiled into them. They know

- integers of 64 bits, numbers of float32 or float64, bytes, and contiguous arrays, of which an index gives a
  number or the array behind it, and a slice as the last index a part; nobody looks at bounds, and no index is
  negative;
- assignments, ``if``, ``while``, ``for`` over a ``range``, ``return``, arithmetic, comparisons, a value that
  hangs on a condition; ``//`` and ``%`` of what is not negative; ``and`` and ``or`` of what may be computed in
  any case;
- functions like themselves, those that are :func:`snnlib.engine.builder.built`, ``abs``, ``int``, ``max``,
  ``min``, and NumPy's types of number.

A variable keeps the type of its first value. What Python knows while it compiles it computes: numbers and
tuples from around the function, and of a condition the branch that is taken.

``for j in lanes(n)`` is a loop over a range whose body is compiled for a vector of them, and once more for
those that are left. LLVM may not change the order of sums, and joins a product with a sum only where it is told
to.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from snnlib.engine import arithmetic
from snnlib.engine.arithmetic import FLOATS, at_run_time
from snnlib.engine.builder import BIT, BYTE, INTEGER, Array, Builder, Lanes, lanes

__all__ = ["call", "defined"]

_NUMBERS = {np.float32: ir.FloatType(), np.float64: ir.DoubleType()}
_BUILTINS = {"abs": abs, "int": int, "max": max, "min": min, "range": range}


def defined(text: str) -> dict[str, Any]:
    """What a module of this source has, its own functions with their syntax."""
    names: dict[str, Any] = {}
    tree = ast.parse(text)
    exec(compile(tree, "<loop>", "exec"), names)
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            names[statement.name].syntax = statement
    return names


def call(builder: Builder, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Compile a call of ``function`` into the place where ``builder`` is, and give what it returns.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is not in this language; notes say where.
    """
    return _Body(builder, function, arguments).compile()


@functools.cache
def _parsed(function: Any) -> ast.FunctionDef:
    """The syntax of a function that is in a file."""
    (found,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(found, ast.FunctionDef)
    return found


class _Variable:
    """A local variable: places for the parts of its value, made for the first one."""

    def __init__(self) -> None:
        self._like: Any = None
        self._places: list[tuple[Any, Any]] = []

    @property
    def is_new(self) -> bool:
        return not self._places

    def store(self, builder: Builder, value: Any, name: str) -> None:
        value = at_run_time(builder, value)
        parts = [value.data, *value.shape] if isinstance(value, Array) else [value]
        if not self._places:
            self._like = value
            self._places = [(part.type, builder.room(part.type)) for part in parts]
        kinds = [kind for kind, _ in self._places]
        if kinds == [INTEGER] and parts[0].type == BIT:
            parts = [arithmetic.like(builder, parts[0], INTEGER)]
        if kinds != [part.type for part in parts]:
            raise TypeError(f"{name} was {[str(kind) for kind in kinds]} before {value}")
        for (_, place), part in zip(self._places, parts, strict=True):
            builder.store(part, place)

    def load(self, builder: Builder) -> Any:
        parts = [builder.load(place) for _, place in self._places]
        return self._like.part(parts[0], parts[1:]) if isinstance(self._like, Array) else parts[0]


class _Body:
    """One call of a function, while it is compiled."""

    def __init__(self, builder: Builder, function: Any, arguments: Sequence[Any]) -> None:
        self._builder, self._code = builder, getattr(function, "syntax", None) or _parsed(function)
        closed_over = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        self._around = _BUILTINS | function.__globals__ | {name: c.cell_contents for name, c in closed_over}
        names = (node for node in ast.walk(self._code) if isinstance(node, ast.Name))
        self._variables = {node.id: _Variable() for node in names if isinstance(node.ctx, ast.Store)}
        self._fixed: dict[str, Any] = {}
        for argument, value in zip(self._code.args.args, arguments, strict=True):
            if argument.arg in self._variables:
                self._variables[argument.arg].store(builder, value, argument.arg)
            else:
                self._fixed[argument.arg] = value
        self._end: Any = None
        self._results: list[_Variable] = []
        self._gives_tuple = False

    def compile(self) -> Any:
        """Compile all of it, and give what it returns."""
        (self._end,) = self._blocks(1)
        self._run(self._code.body)
        self._go_on(self._end)
        found = [result.load(self._builder) for result in self._results]
        return tuple(found) if self._gives_tuple or not found else found[0]

    # -- statements --------------------------------------------------------------------------------------

    def _run(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            if self._builder.block.is_terminated:  # behind a return
                return
            try:
                getattr(self, f"_run_{type(statement).__name__.lower()}")(statement)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                error.add_note(f"in {self._code.name}: {ast.unparse(statement)}")
                raise

    def _blocks(self, count: int) -> list[Any]:
        return [self._builder.append_basic_block() for _ in range(count)]

    def _go_on(self, block: Any) -> None:
        """Go to a block, unless what runs has returned, and write on there."""
        if not self._builder.block.is_terminated:
            self._builder.branch(block)
        self._builder.position_at_end(block)

    def _run_expr(self, statement: ast.Expr) -> None:
        self._value(statement.value)

    def _run_return(self, statement: ast.Return) -> None:
        if statement.value is not None:
            value = self._value(statement.value)
            self._gives_tuple = isinstance(value, tuple)
            values = value if self._gives_tuple else (value,)
            self._results = self._results or [_Variable() for _ in values]
            for result, one in zip(self._results, values, strict=True):
                result.store(self._builder, one, "what is returned")
        self._builder.branch(self._end)

    def _run_assign(self, statement: ast.Assign) -> None:
        value = self._value(statement.value)
        for target in statement.targets:
            self._assign(target, value)

    def _run_augassign(self, statement: ast.AugAssign) -> None:
        target, value, kind = statement.target, self._value(statement.value), type(statement.op)
        if isinstance(target, ast.Name):
            before = self._variables[target.id].load(self._builder)
            self._assign(target, arithmetic.binary(self._builder, kind, before, value))
        elif isinstance(target, ast.Subscript):
            array, index = self._found(target)
            array.put(
                self._stored(array, arithmetic.binary(self._builder, kind, array.get(index), value), index),
                index,
            )

    def _run_if(self, statement: ast.If) -> None:
        condition = self._truth(statement.test)
        if isinstance(condition, bool):
            self._run(statement.body if condition else statement.orelse)
            return
        yes, no, end = self._blocks(3)
        self._builder.cbranch(condition, yes, no)
        self._builder.position_at_end(yes)
        self._run(statement.body)
        self._go_on(end)
        self._builder.position_at_end(no)
        self._run(statement.orelse)
        self._go_on(end)

    def _run_while(self, statement: ast.While) -> None:
        head, body, end = self._blocks(3)
        self._go_on(head)
        self._builder.cbranch(self._truth(statement.test), body, end)
        self._builder.position_at_end(body)
        self._run(statement.body)
        self._go_on(head)
        self._builder.position_at_end(end)

    def _run_for(self, statement: ast.For) -> None:
        assert isinstance(statement.iter, ast.Call)
        function = self._value(statement.iter.func)
        if function is lanes:
            more = {str(keyword.arg): self._value(keyword.value) for keyword in statement.iter.keywords}
            self._run_lanes(statement, *map(self._value, statement.iter.args), **more)
            return
        if function is not range:
            raise TypeError(f"{ast.unparse(statement.iter)} is no range")
        bounds = [self._value(bound) for bound in statement.iter.args]
        start, stop, step = [*((0, *bounds) if len(bounds) == 1 else bounds), 1][:3]
        order = ">" if isinstance(step, int) and step < 0 else "<"
        start, stop, step = (at_run_time(self._builder, value) for value in (start, stop, step))
        with self._builder.counted(stop, start, step, order) as index:
            self._assign(statement.target, index)
            self._run(statement.body)

    def _run_lanes(self, statement: ast.For, count: Any, registers: int = 1) -> None:
        assert isinstance(statement.target, ast.Name)
        lanes = self._builder.lanes(registers)
        width = self._builder.integer(lanes)
        whole = self._builder.sub(count, self._builder.srem(count, width))
        inside = [name for name, variable in self._variables.items() if variable.is_new]
        with self._builder.counted(whole, step=width) as index:
            self._fixed[statement.target.id] = Lanes(index, lanes)
            self._run(statement.body)
        self._variables |= {name: _Variable() for name in inside}  # numbers that were vectors
        with self._builder.counted(count, start=whole) as index:
            self._fixed[statement.target.id] = index
            self._run(statement.body)

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Tuple):
            if isinstance(value, Array):
                value = [value.scalar(self._builder.integer(k)) for k in range(len(target.elts))]
            for one, part in zip(target.elts, value, strict=True):
                self._assign(one, part)
        elif isinstance(target, ast.Name):
            self._variables[target.id].store(self._builder, value, target.id)
        elif isinstance(target, ast.Subscript):
            array, index = self._found(target)
            value = self._stored(array, value, index)
            if isinstance(index, Array):  # every number of a row
                with self._builder.counted(index.shape[0]) as k:
                    index.put(value, k)
            else:
                array.put(value, index)
        else:
            raise TypeError(f"{ast.unparse(target)} is nothing to assign to")

    def _stored(self, array: Array, value: Any, index: Any) -> Any:
        """A value in the type of an array's numbers; bits that were added up as numbers as a byte."""
        if array.number == BYTE and isinstance(value, ir.Value) and arithmetic.number_of(value) in FLOATS:
            vector = isinstance(value.type, ir.VectorType)
            return self._builder.fptoui(value, ir.VectorType(BYTE, value.type.count) if vector else BYTE)
        kind = ir.VectorType(array.number, index.width) if isinstance(index, Lanes) else array.number
        return arithmetic.like(self._builder, value, kind)

    # -- expressions -------------------------------------------------------------------------------------

    def _value(self, node: ast.expr) -> Any:
        return getattr(self, f"_value_{type(node).__name__.lower()}")(node)

    def _truth(self, node: ast.expr) -> Any:
        return arithmetic.truth(self._builder, self._value(node))

    def _value_constant(self, node: ast.Constant) -> Any:
        return node.value

    def _value_name(self, node: ast.Name) -> Any:
        if node.id in self._fixed:
            return self._fixed[node.id]
        found = self._variables.get(node.id)
        return self._around[node.id] if found is None else found.load(self._builder)

    def _value_tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self._value(one) for one in node.elts)

    def _value_attribute(self, node: ast.Attribute) -> Any:
        return getattr(self._value(node.value), node.attr)

    def _value_subscript(self, node: ast.Subscript) -> Any:
        array, index = self._found(node)
        return array.get(index) if isinstance(array, Array) and not isinstance(index, Array) else index

    def _found(self, node: ast.Subscript) -> tuple[Any, Any]:
        """The array, and the index of a number in it or a part of it; of a tuple its part."""
        array, last = self._value(node.value), node.slice
        if isinstance(array, tuple):
            return array, array[self._slice(last) if isinstance(last, ast.Slice) else self._value(last)]
        *before, last = last.elts if isinstance(last, ast.Tuple) else [last]
        indices, rest, length = [self._value(index) for index in before], array.shape[len(before) + 1 :], None
        if isinstance(last, ast.Slice):
            low, high = (None if b is None else self._value(b) for b in (last.lower, last.upper))
            indices.append(low or 0)
            high = array.shape[len(before)] if high is None else high
            length = at_run_time(self._builder, arithmetic.binary(self._builder, ast.Sub, high, indices[-1]))
        else:
            indices.append(self._value(last))
            if isinstance(indices[-1], Lanes):
                (index,) = indices
                return array, index
        at = array.index(*(arithmetic.like(self._builder, index, INTEGER) for index in indices))
        if length is None and not rest:
            return array, at
        data = self._builder.gep(array.data, [at])
        return array, array.part(data, rest if length is None else (length, *rest))

    def _slice(self, node: ast.Slice) -> slice:
        return slice(*(None if bound is None else self._value(bound) for bound in (node.lower, node.upper)))

    def _value_unaryop(self, node: ast.UnaryOp) -> Any:
        if not isinstance(node.op, ast.Not):
            return arithmetic.negative(self._builder, self._value(node.operand))
        value = self._truth(node.operand)
        return not value if isinstance(value, bool) else self._builder.not_(value)

    def _value_binop(self, node: ast.BinOp) -> Any:
        return arithmetic.binary(self._builder, type(node.op), self._value(node.left), self._value(node.right))

    def _value_compare(self, node: ast.Compare) -> Any:
        (kind,), (right,) = map(type, node.ops), node.comparators
        return arithmetic.compared(self._builder, kind, self._value(node.left), self._value(right))

    def _value_boolop(self, node: ast.BoolOp) -> Any:
        kind = ast.BitAnd if isinstance(node.op, ast.And) else ast.BitOr
        join = functools.partial(arithmetic.binary, self._builder, kind)
        return functools.reduce(join, map(self._truth, node.values))

    def _value_ifexp(self, node: ast.IfExp) -> Any:
        condition = self._truth(node.test)
        if isinstance(condition, bool):
            return self._value(node.body if condition else node.orelse)
        result = _Variable()
        yes, no, end = self._blocks(3)
        self._builder.cbranch(condition, yes, no)
        for block, one in ((yes, node.body), (no, node.orelse)):
            self._builder.position_at_end(block)
            result.store(self._builder, self._value(one), ast.unparse(node))
            self._go_on(end)
        return result.load(self._builder)

    def _value_call(self, node: ast.Call) -> Any:
        function, arguments = self._value(node.func), [self._value(one) for one in node.args]
        if function in (min, max):
            return arithmetic.chosen(self._builder, "<" if function is min else ">", *arguments)
        if function is abs:
            return self._builder.intrinsic("fabs", *arguments)
        if function is int or function in _NUMBERS:
            (value,) = arguments
            return arithmetic.like(self._builder, value, _NUMBERS.get(function, INTEGER))
        if hasattr(function, "is_built"):
            return function(self._builder, *(at_run_time(self._builder, value) for value in arguments))
        return call(self._builder, function, arguments)
