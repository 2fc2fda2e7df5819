"""What is either so or not so is kept as bits, and comes back."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from snnlib import LIFRefracParameters, lif_refrac_feed_forward_step, spike
from snnlib.engine.program import Line, Program
from snnlib.engine.program.bits import is_compared
from snnlib.engine.trace import trace
from tests.engine.equality import FUSED_BACKENDS, device_of, everything
from tests.neurons import generator

pytestmark = pytest.mark.usefixtures("poisoned_memory")


class Voltage(NamedTuple):
    v: Tensor


class Parameters(NamedTuple):
    v_th: Any = 1.0
    tau_mem_inv: Any = 100.0
    method: str = "super"
    alpha: Any = None


def stairs_step(input: Tensor, state: Voltage, p: Parameters = Parameters(), dt: float = 0.001):
    """Leaks faster with each stair that it stands on: ten conditions, of which no number is to be kept."""
    v = state.v + input
    leak = sum((v > 0.1 * k).to(v.dtype) for k in range(10))
    v = v * (1.0 - dt * p.tau_mem_inv * leak)
    z = (v > p.v_th).to(v.dtype)
    return z, Voltage(v - z * v)


def louder_step(input: Tensor, state: Voltage, p: Parameters = Parameters(), dt: float = 0.001):
    """Its output is not 0 or 1, and its reset hears it."""
    v = state.v + dt * p.tau_mem_inv * (input - state.v)
    z = 2.0 * spike(v - p.v_th, p.method, p.alpha)
    return z, Voltage(v - z * p.v_th)


def clamped_step(input: Tensor, state: Voltage, p: Parameters = Parameters(), dt: float = 0.001):
    """Its output is 0 or 1, as nobody can tell from its arithmetic."""
    v = state.v + dt * p.tau_mem_inv * (input - state.v)
    z = spike(v - p.v_th, p.method, p.alpha).clamp(0.0, 1.0)
    return z, Voltage(v - z * p.v_th)


def traced(step: Any, p: Any = Parameters()):
    return trace(step, p, (), (), 0.001, torch.float32)


def test_ten_conditions_are_two_bytes():
    found = traced(stairs_step)
    assert found.types_of_saved(torch.float32) == [torch.uint8] * 2


def clock_step(input: Tensor, state: Voltage, p: Parameters = Parameters(), dt: float = 0.001):
    """It hears nothing: of its spikes there is nothing to keep but that they are."""
    v = state.v + 4 * dt * p.tau_mem_inv
    z = spike(v - p.v_th, p.method, p.alpha)
    return z, Voltage(v - z * p.v_th)


def test_a_number_that_is_kept_says_what_follows_from_it():
    """LIF with refractory period: the voltage tells whether there is a spike, a byte whether it may move."""
    found = traced(lif_refrac_feed_forward_step, LIFRefracParameters())
    assert found.types_of_saved(torch.float32) == [torch.float32, torch.uint8]


@pytest.mark.parametrize(("operator", "jumps"), [("gt", True), ("floor", True), ("sign", True), ("exp", False)])
def test_what_may_jump_by_a_last_bit(operator: str, jumps: bool):
    lines = Line("a", "mul", ("k0", 2.0)), Line("b", operator, ("a", 1.0)[: 2 if operator == "gt" else 1])
    assert is_compared(Program(("k0", "k1"), lines, ("b",)), "k0") == jumps
    assert not is_compared(Program(("k0", "k1"), lines, ("b",)), "k1")


@pytest.mark.parametrize("backend", FUSED_BACKENDS)
@pytest.mark.parametrize(
    ("step", "method"),
    [(stairs_step, "super"), (louder_step, "super"), (clamped_step, "adjoint"), (clock_step, "adjoint")],
)
def test_gradients_are_those_of_the_reference(backend: str, step: Any, method: str):
    source = generator(0)
    x = 2 * torch.rand(12, 3, 70, generator=source, dtype=torch.float64)
    x = x if step is stairs_step else 20 * x
    p = Parameters(torch.tensor(0.8).double(), torch.rand(70, generator=source).double() + 50, method=method)
    given = x.to(device_of(backend)), Voltage(torch.zeros_like(x[0]).to(device_of(backend)))
    wanted = everything("reference", step, x, Voltage(torch.zeros_like(x[0])), p)
    assert 0.05 < float((wanted[0] > 0).double().mean()) < 0.95
    for ours, theirs in zip(everything(backend, step, *given, p), wanted, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs)
