"""A graph of torch's operators as the lines of a program: every operator that a fused loop knows."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from snnlib.engine.program import Line, Value
from snnlib.engine.step import UntraceableError

__all__ = ["lines_of"]

# operators that leave a value as it is
_SAME = {"alias", "clone", "detach", "lift_fresh_copy", "view", "_unsafe_view", "expand", "contiguous"}
_UNARY = {
    "abs", "exp", "log", "neg", "reciprocal", "relu", "rsqrt", "sigmoid", "sign", "sqrt", "tanh", "sin", "cos",
    "logical_not", "bitwise_not", "isnan", "expm1", "log1p", "floor",
}  # fmt: skip
_BINARY = {
    "div", "eq", "ge", "gt", "le", "lt", "maximum", "minimum", "mul", "ne", "pow",
    "logical_and", "logical_or", "bitwise_and", "bitwise_or",
}  # fmt: skip
_FILL = {"zeros_like": 0.0, "ones_like": 1.0, "new_zeros": 0.0, "new_ones": 1.0, "zeros": 0.0, "ones": 1.0}


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
    values: dict[fx.Node, Value] = {}
    known: dict[tuple[str, tuple[Value, ...]], str] = {}
    lines: list[Line] = []
    results: list[Value] = []
    fresh = iter(names)

    def named(*key: Any) -> str:
        if key not in known:
            known[key] = f"v{len(lines)}"
            lines.append(Line(known[key], *key))
        return known[key]

    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = next(fresh)
        elif node.op == "get_attr":
            values[node] = _constant(constants[str(node.target)])
        elif node.op == "output":
            results = [0.0 if v is None else values[v] for v in tree_leaves(node.args[0])]
        else:
            operator, arguments = _translate(node, values, dtype)
            if operator == "select_above":  # the condition by itself, which is less to keep than the number
                operator, arguments = "where", (named("gt", arguments[:2]), arguments[2], 0.0)
            values[node] = arguments[0] if operator == "same" else named(operator, arguments)
            if _in_place(node):
                values[node.args[0]] = values[node]
    return lines, results


def _in_place(node: fx.Node) -> bool:
    """Whether a node overwrites its first argument, which then must be its own and nobody's view."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return False
    target: Any = node.args[0]
    shared = [other for other in (target, *target.users) if _operator(other) in _SAME]
    if target.op == "placeholder" or shared:
        raise UntraceableError(f"{node.target} on a tensor that others see")
    return True


def _operator(node: fx.Node) -> str:
    """The name of the operator of a node, without its overload and the mark of what works in place."""
    target: Any = node.target
    name = target.overloadpacket.__name__ if hasattr(target, "overloadpacket") else str(target)
    return name.rstrip("_") if not name.startswith("_") else name


def _translate(
    node: fx.Node, values: dict[fx.Node, Value], dtype: torch.dtype
) -> tuple[str, tuple[Value, ...]]:
    """One node of the graph as an operator of ours."""
    target: Any = node.target
    name = _operator(node)
    args: list[Any] = [values[a] if isinstance(a, fx.Node) else a for a in node.args]
    if name in _SAME:
        return "same", (args[0],)
    if name == "_to_copy":
        source: Any = node.args[0]
        wanted = node.kwargs.get("dtype") or source.meta["val"].dtype
        if source.meta["val"].dtype == torch.bool and wanted == dtype:
            return "number", (args[0],)
        if wanted == source.meta["val"].dtype:
            return "same", (args[0],)
        raise UntraceableError(f"{target} to {wanted}")
    if name in ("add", "sub", "rsub"):
        a, b = (args[1], args[0]) if name == "rsub" else args[:2]
        factor = node.kwargs.get("alpha", args[2] if len(args) > 2 else 1)
        if factor != 1:
            raise UntraceableError(f"{target} with alpha={factor}")
        return ("add" if name == "add" else "sub"), (a, b)
    if name == "clamp" and not node.kwargs:
        value, low, high = [*args, None][:3]
        if low is None or high is None:
            return ("minimum", (value, high)) if low is None else ("maximum", (value, low))
        return name, (value, low, high)
    if name == "masked_fill":
        return "where", (args[1], args[2], args[0])
    if name == "sgn":
        return "sign", (args[0],)
    if name == "clamp_min":
        return "maximum", (args[0], args[1])
    if name == "clamp_max":
        return "minimum", (args[0], args[1])
    if name == "scalar_tensor" or name in ("full", "full_like"):
        return "same", (float(args[0 if name == "scalar_tensor" else 1]),)
    if name in _FILL:
        return "same", (_FILL[name],)
    if name == "threshold_backward":
        return "select_above", (args[1], args[2], args[0])
    if name in ("sigmoid_backward", "tanh_backward", "where") or name in _UNARY:
        return name, tuple(args)
    if name in _BINARY and len(args) == 2 and not node.kwargs:
        return name, tuple(args)
    raise UntraceableError(str(target))


def _constant(value: Tensor) -> float:
    if value.numel() == 1:
        return float(value)
    shape = list(value.shape)
    raise UntraceableError(f"a tensor of shape {shape} made outside of the step and not in its parameters")
