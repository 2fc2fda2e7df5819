"""Expressions in the language of :mod:`snnlib.engine.llvm.compiler`, and the names that it knows."""

import ast
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from snnlib.engine.llvm import arithmetic
from snnlib.engine.llvm.arithmetic import at_run_time
from snnlib.engine.llvm.builder import BIT, INTEGER, Array, Builder, Lanes

__all__ = ["Expressions", "Variable"]

_NUMBERS = {np.float32: ir.FloatType(), np.float64: ir.DoubleType()}


class Variable:
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


class Expressions:
    """The expressions of one call of a function, while it is compiled.

    Parameters:
        builder: where instructions are written to.
        variables: what it assigns to.
        fixed: its arguments that it does not assign to; also the index of a loop over lanes.
        around: other names that it knows.
        call: what compiles a call of another function.
    """

    def __init__(
        self,
        builder: Builder,
        variables: dict[str, Variable],
        fixed: dict[str, Any],
        around: Mapping[str, Any],
        call: Callable[[Builder, Any, Sequence[Any]], Any],
    ) -> None:
        self.builder, self.variables, self.fixed, self.around = builder, variables, fixed, around
        self._call = call

    def blocks(self, count: int) -> list[Any]:
        """New blocks of instructions."""
        return [self.builder.append_basic_block() for _ in range(count)]

    def go_on(self, block: Any) -> None:
        """Go to a block, unless what runs has returned, and write on there."""
        if not self.builder.block.is_terminated:
            self.builder.branch(block)
        self.builder.position_at_end(block)

    def value(self, node: ast.expr) -> Any:
        """What an expression gives."""
        return getattr(self, f"_value_{type(node).__name__.lower()}")(node)

    def truth(self, node: ast.expr) -> Any:
        """Whether it is other than zero."""
        return arithmetic.truth(self.builder, self.value(node))

    def _value_constant(self, node: ast.Constant) -> Any:
        return node.value

    def _value_name(self, node: ast.Name) -> Any:
        if node.id in self.fixed:
            return self.fixed[node.id]
        found = self.variables.get(node.id)
        if found is not None and found.is_new:
            raise KeyError(f"{node.id} has no value yet")
        return self.around[node.id] if found is None else found.load(self.builder)

    def _value_tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self.value(one) for one in node.elts)

    def _value_attribute(self, node: ast.Attribute) -> Any:
        return getattr(self.value(node.value), node.attr)

    def _value_subscript(self, node: ast.Subscript) -> Any:
        array, index = self.found(node)
        return array.get(index) if isinstance(array, Array) and not isinstance(index, Array) else index

    def found(self, node: ast.Subscript) -> tuple[Any, Any]:
        """The array, and the index of a number in it or a part of it; of a tuple its part."""
        array, last = self.value(node.value), node.slice
        if isinstance(array, tuple):
            return array, array[self._slice(last) if isinstance(last, ast.Slice) else self.value(last)]
        *before, last = last.elts if isinstance(last, ast.Tuple) else [last]
        indices, rest, length = [self.value(index) for index in before], array.shape[len(before) + 1 :], None
        if isinstance(last, ast.Slice):
            cut = self._slice(last)
            indices.append(0 if cut.start is None else cut.start)
            high = array.shape[len(before)] if cut.stop is None else cut.stop
            length = at_run_time(self.builder, arithmetic.binary(self.builder, ast.Sub, high, indices[-1]))
        else:
            indices.append(self.value(last))
            if isinstance(indices[-1], Lanes):
                (index,) = indices
                return array, index
        at = array.index(*(arithmetic.like(self.builder, index, INTEGER) for index in indices))
        if length is None and not rest:
            return array, at
        data = self.builder.gep(array.data, [at])
        return array, array.part(data, rest if length is None else (length, *rest))

    def _slice(self, node: ast.Slice) -> slice:
        if node.step is not None:
            raise TypeError("a slice has no step")
        return slice(*(None if bound is None else self.value(bound) for bound in (node.lower, node.upper)))

    def _value_unaryop(self, node: ast.UnaryOp) -> Any:
        if isinstance(node.op, ast.USub):
            return arithmetic.negative(self.builder, self.value(node.operand))
        if not isinstance(node.op, ast.Not):
            raise TypeError(f"{ast.unparse(node)}: there is - and not")
        value = self.truth(node.operand)
        return not value if isinstance(value, bool) else self.builder.not_(value)

    def _value_binop(self, node: ast.BinOp) -> Any:
        return arithmetic.binary(self.builder, type(node.op), self.value(node.left), self.value(node.right))

    def _value_compare(self, node: ast.Compare) -> Any:
        (kind,), (right,) = map(type, node.ops), node.comparators
        return arithmetic.compared(self.builder, kind, self.value(node.left), self.value(right))

    def _value_boolop(self, node: ast.BoolOp) -> Any:
        kind = ast.BitAnd if isinstance(node.op, ast.And) else ast.BitOr
        join = functools.partial(arithmetic.binary, self.builder, kind)
        return functools.reduce(join, map(self.truth, node.values))

    def _value_ifexp(self, node: ast.IfExp) -> Any:
        condition = self.truth(node.test)
        if isinstance(condition, bool):
            return self.value(node.body if condition else node.orelse)
        result = Variable()
        yes, no, end = self.blocks(3)
        self.builder.cbranch(condition, yes, no)
        for block, one in ((yes, node.body), (no, node.orelse)):
            self.builder.position_at_end(block)
            result.store(self.builder, self.value(one), ast.unparse(node))
            self.go_on(end)
        return result.load(self.builder)

    def _value_call(self, node: ast.Call) -> Any:
        if node.keywords:
            raise TypeError(f"{ast.unparse(node)}: arguments have no names")
        function, arguments = self.value(node.func), [self.value(one) for one in node.args]
        if function in (min, max):
            return self.builder.chosen(
                "<" if function is min else ">", *arithmetic.alike(self.builder, *arguments)
            )
        if function is abs:
            return self.builder.intrinsic("fabs", *arguments)
        if function is int or function in _NUMBERS:
            (value,) = arguments
            return arithmetic.like(self.builder, value, _NUMBERS.get(function, INTEGER))
        if hasattr(function, "is_built"):
            return function(self.builder, *(at_run_time(self.builder, value) for value in arguments))
        return self._call(self.builder, function, arguments)
