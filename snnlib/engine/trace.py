"""A step, traced once, as two straight-line programs: one forward, one backward."""

import traceback
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from snnlib._words import first_line
from snnlib.engine import adjoint
from snnlib.engine.effects import refuse_effects
from snnlib.engine.program import Line, Traced, Value
from snnlib.engine.program.arms import shortened
from snnlib.engine.program.cut import split
from snnlib.engine.program.last_bit import with_last_bit
from snnlib.engine.program.lines import knows, lines_of
from snnlib.engine.program.slots import slotted
from snnlib.engine.step import Step, StepError, UntraceableError, returned, state_type
from snnlib.engine.threads import lock
from snnlib.engine.watched import unwatched

__all__ = ["KEEPS", "Keep", "trace"]

Keep = Literal["steps", "last_bit", "retraced", "events"]
"""What the adjoint keeps: numbers of every step, two in the room of one where
:mod:`snnlib.engine.program.slots` can; the same with the spikes in their last bits, see
:mod:`snnlib.engine.program.last_bit`; and without what can be retraced, see
:mod:`snnlib.engine.program.retraced`; or what only events need, of spikes say, for these alone."""
KEEPS: dict[str, Keep] = {"cpu": "events", "gpu": "retraced"}
"""For each backend."""
_SHAPES: tuple[tuple[int, ...], ...] = ((3,), (2, 5))
"""Of the inputs with which a step is traced."""
_LOCK = lock()


def trace(
    step: Step,
    numbers: Any,
    tensors: tuple[str, ...],
    learned: tuple[str, ...],
    dt: float,
    dtype: torch.dtype,
    keep: Keep = "steps",
) -> Traced:
    """Trace a step.

    Parameters:
        step: the neuron's step.
        numbers: its parameters; fields that are tensors may hold anything.
        tensors: names of those fields, in the order of ``p0, p1, ...``.
        learned: which of them need a gradient.
        dt: time step in s.
        dtype: of the state.
        keep: what is kept for the backward pass of the adjoint.

    Raises:
        UntraceableError: an operator is not elementwise, or random, or unknown here.
        StepError: the step fails by itself.
    """
    case = _Case(step, state_type(step), numbers, tensors, learned, dt, dtype)
    with _LOCK, unwatched():
        with refuse_effects(step, list(filter(callable, numbers or ()))):
            for shape in _SHAPES:
                _try(case, shape)
            lines, results = _recorded(case, _SHAPES[0])
            again = _recorded(case, _SHAPES[1])
        if repr((lines, results)) != repr(again):  # NaN is not equal to itself
            raise UntraceableError("what it computes depends on the shape of its input")
    exact = adjoint.is_exact(numbers)
    out, grads = results[: 1 + case.fields], results[1 + case.fields :]
    lines, same = shortened(lines, case.tangents, out, grads) if exact else (lines, {})
    halves = lines, case.names, case.tangents, out, grads
    made = slotted(*halves, retrace=True) if exact and keep == "retraced" else None
    made = made or (slotted(*halves, retrace=False) if exact and keep != "events" else None)
    made = made or split(*halves, exact and keep == "events", same)
    bits = exact and keep in ("last_bit", "retraced")
    return (with_last_bit(made) if bits else made)._replace(exact=exact)


class _Case(NamedTuple):
    """What is traced; see :func:`trace`.

    Attributes:
        kind: the NamedTuple in which the step keeps its state.
    """

    step: Step
    kind: Any
    numbers: Any
    tensors: tuple[str, ...]
    learned: tuple[str, ...]
    dt: float
    dtype: torch.dtype

    @property
    def fields(self) -> int:
        """How many the state has."""
        return len(self.kind._fields)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the inputs: x, the states, the parameters that are tensors."""
        states, parameters = range(self.fields), range(len(self.tensors))
        return ("x", *(f"s{k}" for k in states), *(f"p{k}" for k in parameters))

    @property
    def tangents(self) -> tuple[str, ...]:
        """Of the gradients of output and states."""
        return ("gz", *(f"g{k}" for k in range(self.fields)))

    def valued(self, given: Sequence[Tensor]) -> Any:
        """The parameters with these tensors."""
        return self.numbers._replace(**dict(zip(self.tensors, given, strict=True))) if given else self.numbers

    def run(self, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Output and states after a step."""
        states, given = rest[: self.fields], rest[self.fields :]
        found = self.step(x, self.kind(*states), self.valued(given), self.dt)
        z, new = returned(self.step, found, self.fields)
        outputs = [v if isinstance(v, Tensor) else torch.full_like(x, float(v)) for v in (z, *new)]
        for value in outputs:
            if value.dtype != self.dtype:
                raise UntraceableError(f"it returns {value.dtype}, not {self.dtype}")
        return tuple(outputs)

    def joint(self, inputs: list[Tensor], gradients: list[Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
        """A step and the way back: its outputs, and the gradients of input, states and what learns."""
        first = 1 + self.fields
        with torch.enable_grad():
            inputs = [value.detach().requires_grad_() for value in inputs]
            wanted = inputs[:first] + [inputs[first + self.tensors.index(name)] for name in self.learned]
            if adjoint.is_exact(self.numbers):
                x, *states = inputs[:first]
                now, *given = gradients
                p = self.valued(inputs[first:])
                ahead = adjoint.check(self.step.exact_of, p, self.tensors)  # type: ignore[attr-defined]
                outputs, ends, starts = adjoint.ends(self.step, x, states, p, self.dt, now, given, ahead)
            else:
                outputs = ends = list(self.run(*inputs))
                starts = gradients
            found = _gradients(ends, starts, wanted)
        if adjoint.is_exact(self.numbers):
            found[self.fields] = gradients[0]  # what the step before hears as the gradient of the next output
        return [value.detach() for value in outputs], found


def _gradients(ends: list[Tensor], starts: list[Tensor], wanted: list[Tensor]) -> list[Tensor | None]:
    """From those of ``ends``, which are ``starts``."""
    pairs = [(end, start) for end, start in zip(ends, starts, strict=True) if end.requires_grad]
    if not pairs:
        return [None] * len(wanted)
    ends, starts = map(list, zip(*pairs, strict=True))
    return list(torch.autograd.grad(_Seed.apply(starts, *ends), wanted, allow_unused=True))


def _try(case: _Case, shape: tuple[int, ...]) -> None:
    """Run a step as it is, for inputs of this shape.

    Raises:
        ValueError: snnlib refuses what the step does, an unknown surrogate say.
        StepError: the step fails with anything else.
    """
    try:
        case.run(*_halves(case.names, shape, case.dtype))
    except UntraceableError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and _is_refusal(error):
            raise
        raise StepError(f"{_brief(error)} (it was tried with an input of shape {list(shape)})") from error


def _is_refusal(error: Exception) -> bool:
    """Whether snnlib has raised it: ``B, N = input.shape`` fails for another shape, and is no mistake."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("snnlib.")


def _halves(names: Sequence[str], shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    return [torch.full(shape, 0.5, dtype=dtype) for _ in names]


def _recorded(case: _Case, shape: tuple[int, ...]) -> tuple[list[Line], list[Value]]:
    """The lines of a step and of the way back, for inputs of this shape, and what they result in."""
    inputs, gradients = _halves(case.names, shape, case.dtype), _halves(case.tangents, shape, case.dtype)
    try:
        recorder = _Recorder([*inputs, *gradients])
        with recorder:
            results = case.joint(inputs, gradients)
    except Exception as error:  # a step may do anything
        raise UntraceableError(_brief(error)) from error
    names = (*case.names, *case.tangents)
    return lines_of(recorder.finish(results), recorder.constants, names, case.dtype)


def _brief(error: Exception) -> str:
    first = first_line(error)
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


def _decomposition(operator: Any) -> Any:
    """Of what simpler operators torch makes this one, or None."""
    from torch._decomp import decomposition_table  # imports torch's compiler: only where a step needs it

    composite = operator.decompose if operator._can_decompose() else None
    return decomposition_table.get(operator, composite)


class _Recorder(TorchDispatchMode):
    """Writes down every operator that runs, those of autograd too.

    ``make_fx`` does as much, and imports torch's compiler for it, which takes a second.

    Attributes:
        constants: tensors that came from neither the inputs nor an operator, by name.
    """

    def __init__(self, inputs: list[Tensor]) -> None:
        super().__init__()
        self.constants: dict[str, Tensor] = {}
        self._within: Any = None  # the operator of the step's that others are now made for
        self._graph = fx.Graph()
        self._nodes = {id(value): self._graph.placeholder(f"i{k}") for k, value in enumerate(inputs)}
        self._alive: list[Tensor] = list(inputs)  # an id is a name only as long as nothing else can get it

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip it imports it, and nothing here is ever compiled

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._efficientzerotensor.default:  # of what it gives lerp's gradient crashes
            func = torch.ops.aten.zeros.default
        if not knows(func) and (simpler := _decomposition(func)) is not None:
            outermost, self._within = self._within, self._within or func
            try:
                with self:
                    return simpler(*args, **kwargs)
            finally:
                self._within = outermost
        taken = tree_map(self._node, (args, kwargs))
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor):
            asked = "it asks for the value of a tensor, with if, bool() or .item() say"
            raise UntraceableError(asked if "scalar" in str(func) else str(func))
        node = self._graph.call_function(func, *taken)
        said = str(self._within or func)
        drawn = torch.Tag.nondeterministic_seeded in func.tags
        node.meta["val"], node.meta["said"] = result, f"it draws random numbers, {said}" if drawn else said
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
