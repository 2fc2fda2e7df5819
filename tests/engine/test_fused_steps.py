"""Steps of one's own are fused, with every operator that a trace may hold; or they run in the plain loop."""

import math
import warnings
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from snnlib import spike
from snnlib.engine import fused, scan
from snnlib.engine.step import UntraceableError
from tests.engine.equality import device_of, everything, moved
from tests.neurons import generator

pytestmark = pytest.mark.usefixtures("poisoned_memory")


class OwnParameters(NamedTuple):
    decay: float | Tensor = 0.9
    method: str = "arctan"


class OwnState(NamedTuple):
    v: Tensor
    w: Tensor


def own_step(input, state: OwnState, p=OwnParameters(), dt=0.001):
    """Uses what no neuron of the library does."""
    drive = torch.where(input > 0.2, torch.tanh(input), 0.5 * input) + torch.relu(state.w) ** 3
    v = (p.decay * state.v + drive).clamp(-2.0, 5.0)
    w = torch.sigmoid(state.w - v) / (1.0 + torch.sqrt(v.abs() + 1.0)) - torch.maximum(v, state.w) * 0.1
    z = spike(v - 1.0, p.method)
    return z, OwnState(v * (1 - z), w - 0.2 * z + 0.01 * torch.sin(v) * torch.log1p(v**2))


def test_a_step_of_ones_own_runs_fused(backend: str):
    x = torch.randn(25, 3, 8, generator=generator(2), dtype=torch.float64) + 0.5
    state = OwnState(*torch.rand(2, 3, 8, generator=generator(3), dtype=torch.float64))
    p = OwnParameters(decay=torch.full((8,), 0.8, dtype=torch.float64))
    x, state, p = (moved(values, device_of(backend)) for values in (x, state, p))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        got = everything(backend, own_step, x, state, p)
    assert float(got[0].detach().sum()) > 10
    for ours, theirs in zip(got, everything("reference", own_step, x, state, p), strict=True):
        torch.testing.assert_close(ours, theirs)


def every_operator_step(input, state: OwnState, p=OwnParameters(), dt=0.001):
    """All operators that a trace may hold, on values that each of them takes."""
    x, above = input, input.abs() + 0.5
    high, odd = x > 0.3, (x < -0.2) | ~(state.v >= 0.1)
    parts = [
        torch.exp(-above), torch.expm1(0.1 * x), torch.log(above), torch.log1p(above), torch.sqrt(above),
        torch.rsqrt(above), torch.reciprocal(above), torch.sin(x), torch.cos(x), torch.tanh(3 * x),
        torch.sigmoid(x), torch.floor(x), torch.sign(x), torch.relu(x), -x, x.abs(), above**1.5, above**-1.5,
        x**2, x**3, above**-2, above**0.5, above**-0.5, above**-1, x.clamp(-0.5, 0.7), x.clamp_min(0.1),
        x.clamp_max(0.1), x.clamp(min=0.2), x.clamp(max=0.3),
        torch.maximum(x, state.v), torch.minimum(x, state.w),
        torch.where(high & odd, x, state.v), x.masked_fill(high, 0.25), torch.logical_and(high, odd).to(x),
        torch.logical_or(high, odd).to(x), torch.logical_not(high).to(x), x.isnan().to(x), (x == state.v).to(x),
        (x != state.w).to(x), 1.0 / above, x / above, (x <= 0.0).to(x), torch.full_like(x, 0.3),
    ]  # fmt: skip
    v = p.decay * state.v
    for k, part in enumerate(parts):
        v = v + (0.01 + 0.001 * k) * part
    return spike(v - 1.0, p.method), OwnState(v * 0.9, torch.full_like(x, 0.25))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_every_operator_that_a_step_may_hold(backend: str, dtype: torch.dtype):
    x = torch.randn(9, 3, 8, generator=generator(2), dtype=torch.float64).to(dtype)
    state = OwnState(*torch.rand(2, 3, 8, generator=generator(3), dtype=torch.float64).to(dtype))
    p = OwnParameters(decay=torch.full((8,), 0.8, dtype=dtype))
    x, state, p = (moved(values, device_of(backend)) for values in (x, state, p))
    got, wanted = (everything(name, every_operator_step, x, state, p) for name in (backend, "reference"))
    assert float(got[0].detach().sum()) > 10
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


WEIGHTS = [f"w{k}" for k in range(12)]
ManyParameters: Any = NamedTuple("ManyParameters", [(name, Tensor) for name in WEIGHTS])  # type: ignore[misc]


def many_step(input, state: OwnState, p=None, dt=0.001):
    v = state.v
    for k, weight in enumerate(p):
        v = v * weight + input / (k + 2)
    return spike(v - 1.0, "arctan"), OwnState(v, state.w)


def test_more_than_ten_parameters_keep_their_order(backend: str):
    source = generator(4)
    p = ManyParameters(*(0.9 + 0.2 * torch.rand(12, 5, generator=source, dtype=torch.float64)))
    x = torch.randn(6, 2, 5, generator=source, dtype=torch.float64)
    state = OwnState(*torch.rand(2, 2, 5, generator=source, dtype=torch.float64))
    x, state, p = (moved(values, device_of(backend)) for values in (x, state, p))
    plain = everything("reference", many_step, x, state, p)
    for ours, theirs in zip(everything(backend, many_step, x, state, p), plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def random_step(input, state: OwnState, p=OwnParameters(), dt=0.001):
    v = state.v + input * torch.rand_like(input)
    return spike(v - 1.0), OwnState(v, state.w)


@pytest.mark.filterwarnings("ignore:random_step runs in the plain loop")
def test_what_cannot_be_fused_runs_in_the_plain_loop_with_one_warning(backend: str):
    x = torch.ones(3, 2, 2, device=device_of(backend))
    fused._compiled.cache_clear()
    with pytest.warns(UserWarning, match=r"random_step runs in the plain loop.*rand_like"):
        scan(random_step, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan(random_step, x)
    with pytest.raises(UntraceableError, match="random_step cannot be fused"):
        scan(random_step, x, backend=backend)


def test_where_nothing_can_be_compiled_the_plain_loop_runs(monkeypatch: pytest.MonkeyPatch):
    def new_step(input: Tensor, state: OwnState, p=OwnParameters(), dt=0.001):
        return input, state

    monkeypatch.setattr(fused, "unavailable", lambda: "no such CPU")
    with pytest.warns(UserWarning, match="new_step runs in the plain loop.*no machine code here.*no such CPU"):
        output, _ = scan(new_step, torch.ones(3, 2, 4))
    assert torch.equal(output, torch.ones(3, 2, 4))


class Ends(NamedTuple):
    low: float | Tensor = 0.2
    high: float | Tensor = -0.1


def clamped_step(input, state: OwnState, p=Ends(), dt=0.001):
    low = p.low + 0 * p.low  # of infinity no number; a parameter that is none is refused
    return torch.clamp(input, low, p.high), state


@pytest.mark.parametrize("low", [0.2, torch.tensor([0.5, -0.5, math.inf])], ids=["numbers", "tensors"])
def test_clamp_with_bounds_that_cross(backend: str, low: float | Tensor):
    """The upper one wins, as in torch, and one that is not a number is the result."""
    x = torch.randn(6, 2, 3, generator=generator(1))
    p = Ends(low, torch.full((3,), -0.1)) if isinstance(low, Tensor) else Ends(low)
    x, p = moved(x, device_of(backend)), moved(p, device_of(backend))
    results = [scan(clamped_step, x, p=p, backend=name)[0] for name in (backend, "reference")]
    assert results[1][0, 0].isnan().tolist() == [False, False, isinstance(low, Tensor)]
    torch.testing.assert_close(*results, equal_nan=True, rtol=0, atol=0)


def test_what_torch_makes_of_simpler_operators_is_fused(backend: str):
    """softplus and its kin have no line of their own; what sgn gives to lerp on the way back has no memory."""
    of = torch.nn.functional

    def made_step(input, state: OwnState, p=Ends(), dt=0.001):
        v = 0.5 * state.v + of.softplus(input) - of.silu(state.v) + of.leaky_relu(input - 0.2) + of.elu(input)
        w = of.hardtanh(v) + of.logsigmoid(state.w) + of.mish(input) + torch.lerp(v, input, 0.3)
        w = w + torch.sgn(torch.lerp(w, state.v, 0.2))
        return v + torch.logaddexp(v, w) + torch.addcmul(v, w, input), OwnState(torch.tanh(v), torch.tanh(w))

    device = device_of(backend)
    x = torch.randn(9, 2, 3, generator=generator(1), dtype=torch.float64).to(device)
    state = OwnState(*torch.rand(2, 2, 3, generator=generator(3), dtype=torch.float64).to(device))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        got = everything(backend, made_step, x, state, Ends())
    for ours, theirs in zip(got, everything("reference", made_step, x, state, Ends()), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_gradient_passes_relu_at_nan(backend: str):
    """As in torch, which sets to zero what comes from below."""

    def relu_step(input, state: OwnState, p=Ends(), dt=0.001):
        v = torch.relu(input) + 0.5 * torch.nn.functional.threshold(input, 0.2, 0.1)
        return v, OwnState(state.v + v, state.w)

    x = torch.tensor([[-1.0, 0.0, 0.1, 1.0], [0.3, math.nan, -0.0, math.inf]]).view(2, 1, 4)
    found = []
    for name in (backend, "reference"):
        given = x.to(device_of(name)).requires_grad_()
        output, state = scan(relu_step, given, p=Ends(), backend=name)
        found.append(torch.autograd.grad((3 * output).sum() + state.v.sum(), given)[0].cpu())
    assert found[0][1, 0].tolist() == [6.0, 6.0, 0.0, 6.0]
    assert torch.equal(*found)
