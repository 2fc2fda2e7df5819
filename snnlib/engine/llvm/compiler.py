"""A part of Python as LLVM's code: the language of the loops for the CPU.

Functions are plain ones; whatever they call is compiled into them. They know

- integers of 64 bits, numbers of float32 or float64, bytes, and contiguous arrays, of which an index gives a
  number or the array behind it, and a slice as the last index a part; nobody looks at bounds, and no index is
  negative;
- assignments, ``if``, ``while``, ``for`` over a ``range``, ``return``, arithmetic, comparisons, a value that
  hangs on a condition; ``//`` and ``%`` of what is not negative; ``and`` and ``or`` of what may be computed in
  any case;
- functions like themselves, those that are :func:`snnlib.engine.llvm.builder.built`, ``abs``, ``int``, ``max``,
  ``min``, and NumPy's types of number.

A variable keeps the type of its first value. What Python knows while it compiles it computes: numbers and
tuples from around the function, and of a condition the branch that is taken.

``for j in lanes(n)`` is a loop over a range whose body is compiled for a vector of them, for shorter ones where
these are named, and once more for those that are left. LLVM may not change the order of sums, and joins a
product with a sum only where it is told to.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from snnlib.engine.llvm import arithmetic
from snnlib.engine.llvm.arithmetic import FLOATS, at_run_time
from snnlib.engine.llvm.builder import BYTE, Array, Builder, Lanes, lanes
from snnlib.engine.llvm.values import Expressions, Variable

__all__ = ["call", "defined"]

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


class _Body(Expressions):
    """One call of a function, while it is compiled."""

    def __init__(self, builder: Builder, function: Any, arguments: Sequence[Any]) -> None:
        self._code: ast.FunctionDef = getattr(function, "syntax", None) or _parsed(function)
        closed_over = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        around = _BUILTINS | function.__globals__ | {name: c.cell_contents for name, c in closed_over}
        names = (node for node in ast.walk(self._code) if isinstance(node, ast.Name))
        variables = {node.id: Variable() for node in names if isinstance(node.ctx, ast.Store)}
        super().__init__(builder, variables, {}, around, call)
        for argument, value in zip(self._code.args.args, arguments, strict=True):
            if argument.arg in variables:
                variables[argument.arg].store(builder, value, argument.arg)
            else:
                self.fixed[argument.arg] = value
        self._end: Any = None
        self._results: list[Variable] = []
        self._gives_tuple = False

    def compile(self) -> Any:
        """Compile all of it, and give what it returns."""
        (self._end,) = self.blocks(1)
        self._run(self._code.body)
        self.go_on(self._end)
        found = [result.load(self.builder) for result in self._results]
        return tuple(found) if self._gives_tuple or not found else found[0]

    # -- statements --------------------------------------------------------------------------------------

    def _run(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            if self.builder.block.is_terminated:  # behind a return
                return
            try:
                if getattr(statement, "orelse", None) and not isinstance(statement, ast.If):
                    raise TypeError("a loop has no else")
                getattr(self, f"_run_{type(statement).__name__.lower()}")(statement)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                error.add_note(f"in {self._code.name}: {ast.unparse(statement)}")
                raise

    def _run_expr(self, statement: ast.Expr) -> None:
        self.value(statement.value)

    def _run_return(self, statement: ast.Return) -> None:
        if statement.value is not None:
            value = self.value(statement.value)
            self._gives_tuple = isinstance(value, tuple)
            values = value if self._gives_tuple else (value,)
            self._results = self._results or [Variable() for _ in values]
            for result, one in zip(self._results, values, strict=True):
                result.store(self.builder, one, "what is returned")
        self.builder.branch(self._end)

    def _run_assign(self, statement: ast.Assign) -> None:
        value = self.value(statement.value)
        for target in statement.targets:
            self._assign(target, value)

    def _run_augassign(self, statement: ast.AugAssign) -> None:
        before, value = self.value(statement.target), self.value(statement.value)
        self._assign(statement.target, arithmetic.binary(self.builder, type(statement.op), before, value))

    def _run_if(self, statement: ast.If) -> None:
        condition = self.truth(statement.test)
        if isinstance(condition, bool):
            self._run(statement.body if condition else statement.orelse)
            return
        yes, no, end = self.blocks(3)
        self.builder.cbranch(condition, yes, no)
        self.builder.position_at_end(yes)
        self._run(statement.body)
        self.go_on(end)
        self.builder.position_at_end(no)
        self._run(statement.orelse)
        self.go_on(end)

    def _run_while(self, statement: ast.While) -> None:
        head, body, end = self.blocks(3)
        self.go_on(head)
        self.builder.cbranch(self.truth(statement.test), body, end)
        self.builder.position_at_end(body)
        self._run(statement.body)
        self.go_on(head)
        self.builder.position_at_end(end)

    def _run_for(self, statement: ast.For) -> None:
        assert isinstance(statement.iter, ast.Call)
        function = self.value(statement.iter.func)
        if function is lanes:
            self._run_lanes(statement, *map(self.value, statement.iter.args))
            return
        if function is not range:
            raise TypeError(f"{ast.unparse(statement.iter)} is no range")
        bounds = [self.value(bound) for bound in statement.iter.args]
        start, stop, step = [*((0, *bounds) if len(bounds) == 1 else bounds), 1][:3]
        order = ">" if isinstance(step, int) and step < 0 else "<"
        start, stop, step = (at_run_time(self.builder, value) for value in (start, stop, step))
        with self.builder.counted(stop, start, step, order) as index:
            self._assign(statement.target, index)
            self._run(statement.body)

    def _run_lanes(self, statement: ast.For, count: Any, *registers: int) -> None:
        assert isinstance(statement.target, ast.Name)
        inside = [name for name, variable in self.variables.items() if variable.is_new]
        start = self.builder.integer(0)
        for size in map(self.builder.lanes, dict.fromkeys(registers or (1,))):
            width = self.builder.integer(size)
            stop = self.builder.sub(count, self.builder.srem(self.builder.sub(count, start), width))
            with self.builder.counted(stop, start, width) as index:
                self.fixed[statement.target.id] = Lanes(index, size)
                self._run(statement.body)
            self.variables |= {name: Variable() for name in inside}  # other vectors, then numbers
            start = stop
        with self.builder.counted(count, start=start) as index:
            self.fixed[statement.target.id] = index
            self._run(statement.body)

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Tuple):
            if isinstance(value, Array):
                value = [value.scalar(self.builder.integer(k)) for k in range(len(target.elts))]
            for one, part in zip(target.elts, value, strict=True):
                self._assign(one, part)
        elif isinstance(target, ast.Name):
            self.variables[target.id].store(self.builder, value, target.id)
        elif isinstance(target, ast.Subscript):
            array, index = self.found(target)
            value = self._stored(array, value, index)
            if isinstance(index, Array):  # every number of a row
                with self.builder.counted(index.shape[0]) as k:
                    index.put(value, k)
            else:
                array.put(value, index)
        else:
            raise TypeError(f"{ast.unparse(target)} is nothing to assign to")

    def _stored(self, array: Array, value: Any, index: Any) -> Any:
        """A value in the type of an array's numbers; bits that were added up as numbers as a byte."""
        if array.number == BYTE and isinstance(value, ir.Value) and arithmetic.number_of(value) in FLOATS:
            vector = isinstance(value.type, ir.VectorType)
            return self.builder.fptoui(value, ir.VectorType(BYTE, value.type.count) if vector else BYTE)
        return arithmetic.like(self.builder, value, array.kind_at(index))
