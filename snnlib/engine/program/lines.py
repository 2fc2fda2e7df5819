"""A graph of torch's operators as the lines of a program: every operator that a fused loop knows.

torch counts truth values as numbers where they are added or multiplied, and as truth values among themselves.
A program tells the two apart, so whatever is of the other kind is turned into it.
"""

import math
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from snnlib.engine.program import Line, Value
from snnlib.engine.program.bits import CONDITIONS
from snnlib.engine.program.integers import LARGEST, size_of
from snnlib.engine.step import UntraceableError

__all__ = ["knows", "lines_of"]

# operators that leave a value as it is
_FRESH = {"lift_fresh", "lift_fresh_copy"}
_SAME = {"alias", "clone", "detach", "view", "_unsafe_view", "expand", "contiguous", *_FRESH}
_UNARY = {
    "abs", "exp", "log", "neg", "reciprocal", "relu", "rsqrt", "sigmoid", "sign", "sqrt", "tanh", "sin", "cos",
    "isnan", "expm1", "log1p", "floor",
}  # fmt: skip
_COMPARISONS = {"eq", "ge", "gt", "le", "lt", "ne"}
_BINARY = {"div", "maximum", "minimum", "mul", "pow", *_COMPARISONS}
_LOGICAL = {"logical_and", "logical_or", "logical_not", "logical_xor"}
_BITWISE = {name.replace("logical", "bitwise"): name for name in _LOGICAL}
_OF_TRUTHS = {"mul": "logical_and", "minimum": "logical_and", "add": "logical_or", "maximum": "logical_or"}
"""What torch makes of an operator where both sides are truth values."""
_FILL = {"zeros_like": 0.0, "ones_like": 1.0, "new_zeros": 0.0, "new_ones": 1.0, "zeros": 0.0, "ones": 1.0}
_RENAMED = {"sgn": "sign", "clamp_min": "maximum", "clamp_max": "minimum"}
_OTHERS = {
    "_to_copy", "add", "sub", "rsub", "clamp", "masked_fill", "scalar_tensor", "full", "full_like", "new_full",
    "threshold_backward", "sigmoid_backward", "tanh_backward", "where",
}  # fmt: skip
_KNOWN = {*_SAME, *_UNARY, *_BINARY, *_LOGICAL, *_BITWISE, *_FILL, *_RENAMED, *_OTHERS}
_COUNTS = (torch.int64, torch.int32)
"""Integers, which are kept in floats: what there is of them are sums of truth values."""
_EXACT = {"add", "sub", "mul", "number", "same"}


def knows(target: Any) -> bool:
    """Whether there are lines for an operator of torch's."""
    return _named(target) in _KNOWN


def lines_of(
    graph: fx.Graph, constants: dict[str, Tensor], names: tuple[str, ...], dtype: torch.dtype
) -> tuple[list[Line], list[Value]]:
    """The graph as lines, with what is only renamed or computed twice left out.

    Parameters:
        graph: of operators, in the order in which they ran.
        constants: tensors that are no inputs, by name.
        names: of the inputs.
        dtype: of the step.

    Returns:
        The lines, and the values that the graph returns.

    Raises:
        UntraceableError: an operator is not elementwise, or random, or unknown here.
    """
    writer = _Writer(dtype)
    values: dict[fx.Node, Value] = {}
    results: list[Value] = []
    fresh = iter(names)
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = next(fresh)
        elif node.op == "output":
            results = [0.0 if v is None else values[v] for v in tree_leaves(node.args[0])]
        elif node.op == "get_attr":
            values[node] = _constant(node, constants[str(node.target)])
        else:
            operator, arguments = _translate(node, values, dtype)
            values[node] = writer.written(node, operator, arguments)
            if _in_place(node):
                values[node.args[0]] = values[node]
    return writer.lines, results


class _Writer:
    """Writes lines, each of them once.

    Attributes:
        lines: so far.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.lines: list[Line] = []
        self._dtype = dtype
        self._known: dict[tuple[str, ...], str] = {}
        self._truths: set[str] = set()
        self._exact: set[str] = set()  # truth values, and sums of few of them
        self._sizes: dict[str, float] = {}  # of integers: how large they can be

    def written(self, node: fx.Node, operator: str, arguments: tuple[Value, ...]) -> Value:
        """An operator of ours, its arguments made of its kind: truth values, or numbers."""
        kind = node.meta["val"].dtype
        self._check(node, kind, operator, arguments)
        value = self._made(kind, operator, arguments)
        if kind in _COUNTS:
            self._count(node, operator, arguments, value)
        if kind != self._dtype and isinstance(value, str):
            self._exact.add(value)
        return value

    def _count(self, node: fx.Node, operator: str, arguments: tuple[Value, ...], value: Value) -> None:
        """Refuse integers that may be too large for a float, or wrap."""
        size = size_of(operator, [*map(self._size, arguments)])
        if size >= LARGEST:
            raise UntraceableError(f"{_said(node)} of integers that may be 2**24 or more")
        if isinstance(value, str):
            self._sizes[value] = size

    def _size(self, value: Value) -> float:
        if not isinstance(value, str):
            return abs(value)
        return 1.0 if self._is_truth(value) else self._sizes.get(value, math.inf)

    def _check(self, node: fx.Node, kind: torch.dtype, operator: str, arguments: tuple[Value, ...]) -> None:
        """Refuse arithmetic in a type that rounds otherwise than the state's."""
        if not (kind.is_floating_point or kind == torch.bool or kind in _COUNTS):
            raise UntraceableError(f"{_said(node)} in {kind}")
        number = operator == "same" and not node.meta["val"].dim()  # see _made
        if kind.is_floating_point and kind != self._dtype and not number:
            # torch takes a mask times a number to float32, where both are exact
            exact = all(a in self._exact if isinstance(a, str) else _is_short(a) for a in arguments)
            if operator not in _EXACT or not exact:
                raise UntraceableError(f"{_said(node)} in {kind}, where the state is {self._dtype}")
        if operator in _BITWISE and not all(map(self._is_truth, arguments)):
            raise UntraceableError(f"{_said(node)} of the bits of integers")

    def _made(self, kind: torch.dtype, operator: str, arguments: tuple[Value, ...]) -> Value:
        operator = _BITWISE.get(operator, operator)
        if kind == torch.bool and operator in _OF_TRUTHS:
            operator = _OF_TRUTHS[operator]
        if operator == "same":
            (value,) = arguments
            if kind in _COUNTS and not isinstance(value, str):
                return float(int(value))
            if kind.is_floating_point and not isinstance(value, str):
                return float(torch.tensor(value, dtype=kind))
            return self._truth(value) if kind == torch.bool else value
        if operator == "zero_below":  # the condition is less to keep than the number; NaN is not below
            a, b, value = map(self._number, arguments)
            return self._chosen(kind, self._line("le", a, b), 0.0, value)
        if operator == "clamp":  # in torch's order, if low is above high
            value, low, high = map(self._number, arguments)
            return self._line("minimum", self._line("maximum", value, low), high)
        if operator == "number":
            return self._number(arguments[0])
        if operator == "truth":
            return self._truth(arguments[0])
        if operator == "where":
            return self._chosen(kind, *arguments)
        if operator == "logical_xor":
            return self._line("ne", *(self._number(self._truth(value)) for value in arguments))
        if operator in _LOGICAL:
            return self._decided(operator, *map(self._truth, arguments))
        return self._line(operator, *map(self._number, arguments))

    def _chosen(self, kind: torch.dtype, condition: Value, a: Value, b: Value) -> Value:
        condition = self._truth(condition)
        if not isinstance(condition, str):
            return a if condition else b
        if kind != torch.bool:
            return self._line("where", condition, self._number(a), self._number(b))
        other = self._decided("logical_and", self._line("logical_not", condition), self._truth(b))
        return self._decided("logical_or", self._decided("logical_and", condition, self._truth(a)), other)

    def _decided(self, operator: str, *truths: Value) -> Value:
        """A logical operator, of which nothing is left where a known side decides."""
        known = [value for value in truths if not isinstance(value, str)]
        if not known:
            return self._line(operator, *truths)
        if operator == "logical_not":
            return not known[0]
        decides = operator == "logical_or"
        others = [value for value in truths if isinstance(value, str)]
        return decides if decides in known or not others else others[0]

    def _line(self, operator: str, *arguments: Value) -> Value:
        if operator in _COMPARISONS and not any(isinstance(value, str) for value in arguments):
            return bool(getattr(torch, operator)(*torch.tensor(arguments, dtype=self._dtype)))
        # 0.0 and -0.0 are equal, but not as words
        key = operator, *(value if isinstance(value, str) else str(float(value)) for value in arguments)
        if key not in self._known:
            name = self._known[key] = f"v{len(self.lines)}"
            self.lines.append(Line(name, operator, arguments))
            if operator in CONDITIONS:
                self._truths.add(name)
        return self._known[key]

    def _is_truth(self, value: Value) -> bool:
        return isinstance(value, bool) or value in self._truths

    def _number(self, value: Value) -> Value:
        if not self._is_truth(value):
            return value
        return self._line("number", value) if isinstance(value, str) else float(value)

    def _truth(self, value: Value) -> Value:
        if self._is_truth(value):
            return value
        return self._line("ne", value, 0.0) if isinstance(value, str) else bool(value)


def _in_place(node: fx.Node) -> bool:
    """Whether a node overwrites its first argument, which then must be its own and nobody's view."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return False
    if any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments[1:]):
        raise UntraceableError(f"{_said(node)} with out=")
    target: Any = node.args[0]
    shared = [other for other in (target, *target.users) if _operator(other) in _SAME]
    if target.op == "placeholder" or shared:
        raise UntraceableError(f"{_said(node)} on a tensor that others see")
    return True


def _operator(node: fx.Node) -> str:
    """The name of the operator of a node, without its overload and the mark of what works in place."""
    return _named(node.target)


def _said(node: fx.Node) -> str:
    """The operator as the step has it, which may be made of others."""
    return str(node.meta["said"])


def _named(target: Any) -> str:
    name = target.overloadpacket.__name__ if hasattr(target, "overloadpacket") else str(target)
    return name.rstrip("_") if not name.startswith("_") else name


def _translate(
    node: fx.Node, values: dict[fx.Node, Value], dtype: torch.dtype
) -> tuple[str, tuple[Value, ...]]:
    """One node of the graph as an operator of ours."""
    name = _operator(node)
    args: list[Any] = [values[a] if isinstance(a, fx.Node) else a for a in node.args]
    if name in _SAME:
        return "same", (args[0],)
    if name == "_to_copy":
        return _converted(node, dtype), (args[0],)
    if name in ("add", "sub", "rsub"):
        a, b = (args[1], args[0]) if name == "rsub" else args[:2]
        factor = node.kwargs.get("alpha", args[2] if len(args) > 2 else 1)
        if factor != 1:
            raise UntraceableError(f"{_said(node)} with alpha={factor}")
        return ("add" if name == "add" else "sub"), (a, b)
    if name == "clamp" and not node.kwargs:
        value, low, high = [*args, None][:3]
        if low is None or high is None:
            return ("minimum", (value, high)) if low is None else ("maximum", (value, low))
        return name, (value, low, high)
    if name == "masked_fill":
        return "where", (args[1], args[2], args[0])
    if name in ("scalar_tensor", "full", "full_like", "new_full"):
        return "same", (_scalar(args[{"scalar_tensor": 0, "new_full": 2}.get(name, 1)]),)
    if name in _FILL:
        return "same", (_FILL[name],)
    if name == "threshold_backward":
        return "zero_below", (args[1], args[2], args[0])
    if name in ("sigmoid_backward", "tanh_backward", "where") or name in _UNARY:
        return name, tuple(args)
    if name in _RENAMED:
        return _RENAMED[name], tuple(args[:2])
    if (name in _BINARY or name in _LOGICAL or name in _BITWISE) and not node.kwargs:
        return name, tuple(args)
    raise UntraceableError(_said(node))


def _converted(node: fx.Node, dtype: torch.dtype) -> str:
    """What a change of type is: a number, a truth value, or nothing."""
    source: Any = node.args[0]
    before = source.meta["val"].dtype if "val" in source.meta else dtype
    wanted: Any = node.kwargs.get("dtype") or before
    if wanted == torch.bool:
        return "truth"
    counted = before == torch.bool or before in _COUNTS
    if wanted in (before, dtype) or (counted and (wanted.is_floating_point or wanted in _COUNTS)):
        return "number" if before == torch.bool and wanted != before else "same"
    raise UntraceableError(f"{_said(node)} to {wanted}")


def _scalar(value: Any) -> float | bool:
    return value if isinstance(value, bool) else float(value)


def _is_short(value: float) -> bool:
    """Whether few sums and products of such numbers are exact in any type of number."""
    return abs(value) <= 1024 and float(1024 * value).is_integer()


def _constant(node: fx.Node, value: Tensor) -> float:
    """A number that the step itself wrote into a tensor; others may change, or learn."""
    if value.numel() == 1 and all(_operator(user) in _FRESH for user in node.users):
        return float(value)
    learns = ", which learns," if value.requires_grad else ""
    raise UntraceableError(
        f"a tensor of shape {list(value.shape)}{learns} made outside of the step and not in its parameters"
    )
