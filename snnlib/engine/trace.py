"""A step, traced once, as two straight-line programs: one forward, one backward."""

import functools
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from snnlib.engine import adjoint
from snnlib.engine.check import is_followed
from snnlib.engine.cut import split
from snnlib.engine.program import Line, Traced, Value
from snnlib.engine.step import Step, UntraceableError, state_type

__all__ = ["trace"]

_LOCK = threading.Lock()

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
_FOLDED: dict[str, Any] = {
    **{"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div},
    **{"exp": torch.exp, "neg": torch.neg},
}
"""What is computed while tracing where its arguments are numbers."""
_FILL = {"zeros_like": 0.0, "ones_like": 1.0, "new_zeros": 0.0, "new_ones": 1.0, "zeros": 0.0, "ones": 1.0}


@functools.lru_cache(maxsize=256)
def trace(
    step: Step,
    numbers: Any,
    tensors: tuple[str, ...],
    learned: tuple[str, ...],
    dt: float,
    dtype: torch.dtype,
    sparse: bool = False,
) -> Traced:
    """Trace a step.

    Parameters:
        step: the neuron's step.
        numbers: its parameters; fields that are tensors may hold anything.
        tensors: names of those fields, in the order of ``p0, p1, ...``.
        learned: which of them need a gradient.
        dt: time step in s.
        dtype: of the state.
        sparse: whether what only events need, spikes say, may be kept for them only.

    Raises:
        UntraceableError: an operator is not elementwise, or random, or unknown here.
    """
    kind: Any = state_type(step)
    count = len(kind._fields)
    exact = adjoint.is_exact(numbers)

    def valued(*rest: Tensor) -> Any:
        return numbers._replace(**dict(zip(tensors, rest, strict=True))) if tensors else numbers

    def run(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        z, new = step(x, kind(*rest[:count]), valued(*rest[count:]), dt)
        outputs = [v if isinstance(v, Tensor) else torch.full_like(x, float(v)) for v in (z, *new)]
        for value in outputs:
            if value.dtype != dtype:
                raise UntraceableError(f"it returns {value.dtype}, not {dtype}")
        return tuple(outputs)

    def joint(inputs: list[Tensor], gradients: list[Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
        with torch.enable_grad():
            inputs = [value.detach().requires_grad_() for value in inputs]
            wanted = inputs[: 1 + count] + [inputs[1 + count + tensors.index(name)] for name in learned]
            if exact:
                x, *rest = inputs
                p, (now, *given) = valued(*rest[count:]), gradients
                outputs, ends, starts = adjoint.ends(step, x, rest[:count], p, dt, now, given)
            else:
                outputs = ends = list(run(*inputs))
                starts = gradients
            pairs = [(end, start) for end, start in zip(ends, starts, strict=True) if end.requires_grad]
            found: Any = [None] * len(wanted)
            if pairs:
                ends, starts = map(list, zip(*pairs, strict=True))
                found = list(torch.autograd.grad(_Seed.apply(starts, *ends), wanted, allow_unused=True))
            if exact:
                found[count] = gradients[0]  # what the step before hears as the gradient of the next output
        return [value.detach() for value in outputs], found

    names = ("x", *(f"s{k}" for k in range(count)), *(f"p{k}" for k in range(len(tensors))))
    tangents = ("gz", *(f"g{k}" for k in range(count)))

    def traced(*shape: int) -> tuple[list[Line], list[Value]]:
        inputs = [torch.full(shape, 0.5, dtype=dtype) for _ in names]
        gradients = [torch.full(shape, 0.5, dtype=dtype) for _ in tangents]
        try:
            run(*inputs)
        except ValueError:  # what the step itself refuses, an unknown surrogate say
            raise
        except Exception as error:
            raise UntraceableError(_brief(error)) from error
        try:
            recorder = _Recorder([*inputs, *gradients])
            with recorder:
                results = joint(inputs, gradients)
        except Exception as error:  # a step may do anything
            raise UntraceableError(_brief(error)) from error
        return _lines(recorder.finish(results), recorder.constants, (*names, *tangents), dtype, exact)

    # hooks of the caller's, torch.utils.checkpoint's say, are not for what is saved while tracing
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda value: value, lambda value: value)
    with _LOCK, _without_modes(), hooks:
        lines, results = traced(3)
        if (lines, results) != traced(2, 5):
            raise UntraceableError("what it computes depends on the shape of its input")
    out, grads = results[: 1 + count], results[1 + count :]
    return split(lines, names, tangents, out, grads, sparse and exact)._replace(exact=exact)


def _without_modes() -> AbstractContextManager[Any]:
    """Without modes of the caller's, torch.export's say: they are not for the tensors made here.

    To switch them off imports torch's compiler, which whoever sets one has imported.
    """
    return _disable_current_modes() if is_followed() else nullcontext()


def _brief(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0][:200]
    return first if isinstance(error, UntraceableError) else f"{type(error).__name__}: {first}"


class _Seed(torch.autograd.Function):
    """A scalar whose gradients to ``outputs`` are ``gradients``.

    ``torch.autograd.grad`` takes them as an argument, and imports sympy to compare shapes.
    """

    @staticmethod
    def forward(ctx: Any, gradients: tuple[Tensor, ...], *outputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return outputs[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        return None, *ctx.gradients


class _Recorder(TorchDispatchMode):
    """Writes down every operator that runs, those of autograd too.

    ``make_fx`` does as much, and imports torch's compiler for it, which takes a second.

    Attributes:
        constants: tensors that came from neither the inputs nor an operator, by name.
    """

    def __init__(self, inputs: list[Tensor]) -> None:
        super().__init__()
        self.constants: dict[str, Tensor] = {}
        self._graph = fx.Graph()
        self._nodes = {id(value): self._graph.placeholder(f"i{k}") for k, value in enumerate(inputs)}
        self._alive: list[Tensor] = list(inputs)  # an id is a name only as long as nothing else can get it

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip it imports it, and nothing here is ever compiled

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._can_decompose() and (known := func.decompose(*args, **kwargs)) is not NotImplemented:
            return known
        taken = tree_map(self._node, (args, kwargs))
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor):
            asked = "it asks for the value of a tensor, with if, bool() or .item() say"
            raise UntraceableError(asked if "scalar" in str(func) else str(func))
        node = self._graph.call_function(func, *taken)
        node.meta["val"] = result
        self._name(result, node)
        return result

    def _name(self, value: Tensor, node: fx.Node) -> None:
        self._nodes[id(value)] = node
        self._alive.append(value)

    def _node(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._nodes:
            name = f"c{len(self.constants)}"
            self.constants[name] = value
            self._name(value, self._graph.get_attr(name))
        return self._nodes[id(value)]

    def finish(self, results: Any) -> fx.Graph:
        """The graph that gives ``results``, without what they do not need."""
        self._graph.output(tree_map(self._node, results))
        self._graph.eliminate_dead_code()
        return self._graph


def _lines(
    graph: fx.Graph, constants: dict[str, Tensor], names: tuple[str, ...], dtype: torch.dtype, simple: bool
) -> tuple[list[Line], list[Value]]:
    """The graph as lines, with what is only renamed or computed twice left out.

    ``simple`` also leaves out what :func:`_simplified` finds.
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
            if simple:
                operator, arguments = _simplified(operator, arguments, lines, dtype)
            if operator == "select_above":  # the condition by itself, which is less to keep than the number
                operator, arguments = "where", (named("gt", arguments[:2]), arguments[2], 0.0)
            values[node] = arguments[0] if operator == "same" else named(operator, arguments)
            if _in_place(node):
                values[node.args[0]] = values[node]
    return lines, results


def _simplified(
    operator: str, arguments: tuple[Value, ...], lines: list[Line], dtype: torch.dtype
) -> tuple[str, tuple[Value, ...]]:
    """Arithmetic with 0, 1 and itself, which a step of no time is full of; NaN is not thought of."""
    if operator in _FOLDED and not any(isinstance(a, str) for a in arguments):
        return "same", (float(_FOLDED[operator](*(torch.tensor(float(a), dtype=dtype) for a in arguments))),)
    if len(arguments) != 2:
        return operator, arguments
    a, b = arguments
    if operator == "mul" and 0 in arguments:
        return "same", (0.0,)
    if operator in ("mul", "add") and a in (0, 1):
        a, b = b, a  # the number second
    if (operator in ("mul", "div") and b == 1) or (operator in ("add", "sub") and b == 0):
        return "same", (a,)
    if operator == "sub" and a == b:
        return "same", (0.0,)
    if operator == "div" and a == 0:
        return "same", (0.0,)
    if operator == "add":  # a + (c - a)
        found = next((line for line in lines if line.name == b and line.operator == "sub"), None)
        if found is not None and found.arguments[1] == a:
            return "same", (found.arguments[0],)
    return operator, arguments


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
