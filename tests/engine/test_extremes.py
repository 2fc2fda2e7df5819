"""Numbers at the ends of float32, and a million steps."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from snnlib import LIParameters, LIState, li_feed_forward_step, lif_feed_forward_step
from snnlib.engine import scan
from tests.copies import Copied
from tests.engine.equality import FUSED_BACKENDS, device_of, everything, moved
from tests.neurons import NEURONS, draw_input, draw_parameters, draw_state, generator

LARGE = [float("nan"), float("inf"), -float("inf"), 3e38, 1e30, -1e30]
SMALL = [1e-30, 1e-38, -0.0, 1e-40, -1e-44, 1.4e-45]  # the last three are denormal
EXTREMES = LARGE + SMALL
SOME = [neuron for neuron in NEURONS if neuron.name in ("li", "lif", "lsnn", "lif_adex")]


@pytest.mark.parametrize("backend", FUSED_BACKENDS)
@pytest.mark.parametrize("neuron", SOME, ids=lambda neuron: neuron.name)
def test_the_ends_of_float32_are_those_of_the_plain_loop(backend: str, neuron):
    """One such number a neuron, the step after the first: what comes of it, infinity and NaN too."""
    source, device = generator(7), device_of(backend)
    x = draw_input(neuron, source, (12, 1, len(EXTREMES)), torch.float32)
    x[1, 0] = torch.tensor(EXTREMES)
    p = draw_parameters(neuron, source, dtype=torch.float32)
    p = p._replace(**{k: float(v) for k, v in p._asdict().items() if isinstance(v, torch.Tensor)})
    state = draw_state(neuron, source, x.shape[1:], torch.float32)
    x, state = x.to(device), moved(state, device)
    for ours, theirs in zip(
        everything(backend, neuron.step, x, state, p),
        everything("reference", neuron.step, x, state, p),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("backend", FUSED_BACKENDS)
def test_denormal_numbers_are_not_flushed(backend: str):
    x = torch.full((3, 1, 20), 1e-41, device=device_of(backend))
    voltage, _ = scan(li_feed_forward_step, x, None, LIParameters(tau_syn_inv=0.0), backend=backend)
    plain, _ = scan(li_feed_forward_step, x, None, LIParameters(tau_syn_inv=0.0), backend="reference")
    assert 0 < float(voltage.abs().max()) < 1e-40
    assert torch.equal(voltage, plain)


@pytest.mark.parametrize("backend", FUSED_BACKENDS)
def test_a_step_may_name_infinity_and_nan(backend: str):
    def step(input: Tensor, state: LIState, p: LIParameters = LIParameters(), dt: float = 0.001):
        v = torch.where(state.v + input > 1, math.inf, state.v + input).clamp(min=-math.inf)
        return torch.where(input < -2, math.nan, v), LIState(v=torch.where(v == math.inf, -1.0, v), i=state.i)

    x = torch.randn(9, 2, 20, generator=generator(1))
    made, _ = scan(step, x.to(device_of(backend)), backend=backend)
    plain, _ = scan(step, x, backend="reference")
    assert plain.isinf().any()
    assert plain.isnan().any()
    torch.testing.assert_close(made.cpu(), plain, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("backend", FUSED_BACKENDS)
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zero_has_a_sign(backend: str, zero: float):
    """Of two constants, and of a parameter."""

    def step(input: Tensor, state: LIState, p: LIParameters = LIParameters(), dt: float = 0.001):
        return 1 / (input * p.v_leak), LIState(v=1 / (input * 0.0), i=1 / (input * -0.0))

    x, p = torch.ones(1, 2, 3, device=device_of(backend)), LIParameters(v_leak=zero)
    z, (v, i) = scan(step, x, p=p, backend=backend)
    for found, wanted in ((z, math.copysign(math.inf, zero)), (v, math.inf), (i, -math.inf)):
        assert (found == wanted).all()


def resident() -> float:
    """Megabytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def test_a_million_steps_do_not_drift():
    """Rounding is forgotten as fast as the membrane forgets: float32 stays as close to float64 as early on."""
    x = (torch.rand(1_000_000, 1, 4, generator=generator(3)) < 0.05).float()
    single, last = scan(li_feed_forward_step, x, backend="cpu")
    double, _ = scan(li_feed_forward_step, x.double(), backend="cpu")
    error = (single - double).abs().view(100, -1).amax(1)
    assert float(error.max()) < 1e-6
    assert float(error[50:].max()) < 2 * float(error[:50].max())
    _, near_the_end = scan(li_feed_forward_step, x[:-2000], backend="cpu")
    plain, end = scan(li_feed_forward_step, x[-2000:], near_the_end, backend="reference")
    assert torch.equal(single[-2000:], plain)
    assert torch.equal(last.v, end.v)


def in_chunks() -> None:
    chunk = 0.8 * torch.rand(1000, 1, 64, generator=generator(4))
    state, spikes = None, torch.empty(1000, 64)  # a small tensor kept from every chunk would break up the heap
    for k in range(1000):
        z, state = scan(lif_feed_forward_step, chunk.roll(k, 0), state, backend="cpu")
        spikes[k] = z.sum((0, 1))
        if k == 100:
            before = resident()
    assert resident() - before < 2.0
    whole = torch.cat([chunk.roll(k, 0) for k in range(100)])
    z, _ = scan(lif_feed_forward_step, whole, backend="cpu")
    assert torch.equal(z.view(100, 1000, 64).sum(1), spikes[:100])
    assert float(spikes[100:].mean()) > 10


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to count a process's memory")
def test_a_million_steps_in_chunks_are_those_at_once_and_keep_no_memory(tmp_path: Path):
    """In a process of its own: the heap that other tests leave may grow by more."""
    code, _, error = Copied(in_chunks, cwd=tmp_path).end(120)
    assert code == 0, error


@pytest.mark.parametrize("made", [
    torch.relu,
    lambda v: torch.minimum(torch.ones_like(v), v),
    lambda v: torch.minimum(v, torch.ones_like(v)),
    lambda v: torch.maximum(torch.ones_like(v), v),
    lambda v: torch.maximum(v, torch.ones_like(v)),
], ids=["relu", "minimum", "minimum of it", "maximum", "maximum of it"])  # fmt: skip
@pytest.mark.parametrize("backend", FUSED_BACKENDS)
def test_what_is_no_number_stays_none(backend: str, made: Callable[[Tensor], Tensor]):
    def step(input: Tensor, state: LIState, p: LIParameters = LIParameters(), dt: float = 0.001):
        return made(input / input), state

    x = torch.tensor([0.0, 2.0, -3.0]).expand(2, 2, 3).to(device_of(backend))
    found, wanted = (scan(step, x, backend=name)[0] for name in (backend, "reference"))
    assert wanted[0, 0].isnan().tolist() == [True, False, False]
    torch.testing.assert_close(found, wanted, equal_nan=True, rtol=0, atol=0)
