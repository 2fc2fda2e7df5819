"""Whatever a person may combine: every fused backend against the reference, on cases that hypothesis draws."""

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snnlib.engine.step import recurrent_state_type
from snnlib.functional import SURROGATES
from tests.engine.equality import assert_equal, needs_triton
from tests.neurons import NEURONS, Neuron, draw_input, draw_parameters, draw_state, generator

pytestmark = pytest.mark.usefixtures("poisoned_memory")

METHODS = [*(name for name, surrogate in SURROGATES.items() if surrogate.probability is None), "adjoint"]


class Case(NamedTuple):
    """What is combined."""

    neuron: Neuron
    method: str
    detach_reset: bool
    shape: tuple[int, ...]
    learned: frozenset[str]
    """Parameters that are tensors and learn; the others are numbers."""
    per_neuron: bool
    inputs: int | None
    """None: no recurrent weights. 0: recurrent ones. More: as many inputs, with weights of their own."""
    layout: str
    seed: int


@st.composite
def cases(draw: Any, longest: int, widest: int) -> Case:
    neuron = draw(st.sampled_from(NEURONS))
    inputs = draw(st.sampled_from([None, None, 0, 0, 3, 33]))
    dimensions = 1 if inputs is not None else draw(st.integers(0, 3))
    return Case(
        neuron=neuron,
        method=draw(st.sampled_from(METHODS)),
        detach_reset=draw(st.booleans()),
        shape=(
            draw(st.integers(1, longest)),
            draw(st.integers(1, 6)),
            *(draw(st.integers(1, widest if dimensions == 1 else 4)) for _ in range(dimensions)),
        ),
        learned=draw(st.frozensets(st.sampled_from(sorted(neuron.ranges)))),
        per_neuron=draw(st.booleans()),
        inputs=inputs,
        layout=draw(st.sampled_from(["contiguous", "transposed", "constant", "every other"])),
        seed=draw(st.integers(0, 10**6)),
    )


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same numbers in another order of memory; "constant" repeats the first step."""
    if layout == "constant":
        return x[:1].expand(x.shape)
    if layout == "transposed":
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    return x.repeat_interleave(2, 0)[::2] if layout == "every other" else x


def check(backend: str, case: Case) -> None:
    source = generator(case.seed)
    neuron, features = case.neuron, case.shape[2:]
    shape = features[-1:] if case.per_neuron else ()
    p = draw_parameters(neuron, source, shape)
    if neuron.spikes:
        p = p._replace(method=case.method, detach_reset=case.detach_reset)
    numbers = {k: float(getattr(p, k).mean()) for k in neuron.ranges if k not in case.learned}
    p, state = p._replace(**numbers), draw_state(neuron, source, case.shape[1:])
    width = (case.inputs,) if case.inputs else features
    x = laid_out(draw_input(neuron, source, (*case.shape[:2], *width)), case.layout)
    options = {}
    if case.inputs is not None:
        size = features[0]
        scale = neuron.input[1] / size**0.5
        options["recurrent_weights"] = scale * torch.randn(size, size, generator=source, dtype=torch.float64)
        if case.inputs:
            scale = case.inputs**-0.5
            options["input_weights"] = scale * torch.randn(size, *width, generator=source, dtype=torch.float64)
        z = (torch.rand(case.shape[1:], generator=source) < 0.3).double()
        state = recurrent_state_type(neuron.step)(z, *state)
    assert_equal(backend, neuron, x, state, p, **options)


@settings(max_examples=16, deadline=None, derandomize=True)
@given(case=cases(longest=40, widest=80))
def test_cpu(case: Case):
    check("cpu", case)


@needs_triton
@settings(max_examples=12, deadline=None, derandomize=True)
@given(case=cases(longest=6, widest=20))
def test_gpu(case: Case):
    check("gpu", case)
