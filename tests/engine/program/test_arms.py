"""What is computed for events alone: shorter, and the same."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snnlib.engine import trace as traced
from snnlib.engine.later import later_step
from snnlib.engine.program import Line, Value, closure
from snnlib.engine.program.arms import arms_of, late_names
from snnlib.functional import spike
from tests.engine.cases import Exact, Membrane
from tests.engine.evaluated import values_of
from tests.neurons import NEURONS, Neuron, name_of

SIZE = 20_000
SPIKING = [neuron for neuron in NEURONS if neuron.spikes]


class Shortened:
    """What :func:`snnlib.engine.program.arms.shortened` was given for a neuron, and what it gave."""

    def __init__(self, neuron: Neuron, tensors: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        inner = traced.shortened
        seen: list[Any] = []

        def shortened(*arguments: Any) -> Any:
            result = inner(*arguments)
            seen.append((*arguments, *result))
            return result

        monkeypatch.setattr(traced, "shortened", shortened)
        p = neuron.parameters(method="adjoint")
        traced.trace(later_step(neuron.step), p, tensors, tensors, 0.001, torch.float32, keep="events")
        self.before: list[Line]
        self.after: list[Line]
        self.grads: list[Value]
        self.before, self.tangents, self.out, self.grads, self.after, self.ahead = seen[0]


def given(neuron: Neuron, tensors: tuple[str, ...], made: Shortened) -> dict[str, Any]:
    """Numbers at which some neurons spike: membranes up to the threshold, and ten times the usual input."""
    random = np.random.default_rng(0)
    values = {"x": 10.0 * random.normal(*neuron.input, SIZE)}
    for k, (low, high) in enumerate(neuron.start.values()):
        values[f"s{k}"] = random.uniform(low, high if k else neuron.parameters().v_th, SIZE)
    values[f"s{len(neuron.start)}"] = np.zeros(SIZE)  # later, of which no number is carried
    for k, name in enumerate(tensors):
        values[f"p{k}"] = random.uniform(*neuron.ranges[name], SIZE)
    return values | {name: random.normal(size=SIZE) for name in made.tangents}


@pytest.mark.parametrize("learned", [False, True], ids=["numbers", "tensors"])
@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_the_gradients_are_the_same(neuron: Neuron, learned: bool, monkeypatch: pytest.MonkeyPatch):
    tensors = tuple(neuron.ranges) if learned else ()
    made = Shortened(neuron, tensors, monkeypatch)
    values = given(neuron, tensors, made)
    before, after = values_of(made.before, values), values_of(made.after, values)
    arms = arms_of(
        {line.name: line for line in made.before}, late_names(made.before, made.tangents), made.out[0]
    )
    assert arms.marks
    for mark in arms.marks:
        assert 10 < before[mark].sum() < SIZE - 10
    for grad in made.grads:
        if isinstance(grad, str):
            np.testing.assert_allclose(after[grad], before[grad], rtol=1e-6, atol=1e-9)
    for name, other in made.ahead.items():
        np.testing.assert_allclose(after[name], after[other], rtol=1e-6, atol=1e-9)


def long_step(input: Tensor, state: Membrane, p: Exact = Exact(), dt: float = 0.001):
    """Of many lines, each of the one before."""
    v = state.v + input
    for _ in range(400):
        v = v - dt * v * v
    z = spike(v - 1.0, p.method, p.alpha)
    return z, Membrane(v * (1 - z))


def test_a_step_may_be_long():
    found = traced.trace(later_step(long_step), Exact(), (), (), 0.001, torch.float32, keep="events")
    assert len(found.forward.lines) > 1000
    assert len(found.between.inputs) > 0


@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_it_is_shorter(neuron: Neuron, monkeypatch: pytest.MonkeyPatch):
    made = Shortened(neuron, (), monkeypatch)
    before, after = ({line.name: line for line in lines} for lines in (made.before, made.after))
    count = len(closure(before, made.grads, stop=set()))
    assert len(closure(after, made.grads, stop=set())) <= count - 4
    assert closure(after, made.out, stop=set()) == closure(before, made.out, stop=set())
