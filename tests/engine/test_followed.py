"""Adjoint layers in programs that others than torch.compile make, with gradients and not what memory held."""

import gc
from typing import Any

import pytest
import torch
from functorch.compile import aot_function, nop
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from snnlib import LIF, LIFParameters, LIFRefrac, LIFRefracParameters
from snnlib.engine import adjoint, cpu
from snnlib.engine.fused import _compiled
from snnlib.engine.kernel import KERNELS
from snnlib.engine.later import later_step
from snnlib.engine.trace import trace
from snnlib.functional import lif_feed_forward_step
from tests.neurons import generator

pytestmark = pytest.mark.usefixtures("poisoned_memory")

# sums of the output alone have an adjoint gradient of zero
WEIGHTS = torch.rand(20, 2, 40, generator=generator(0))
X = 20 * torch.rand(20, 2, 40, generator=generator(1))


@pytest.fixture(params=[LIFParameters, LIFRefracParameters], ids=["lif", "lif_refrac"])
def layer(request: pytest.FixtureRequest) -> Any:
    kind = {LIFParameters: LIF, LIFRefracParameters: LIFRefrac}[request.param]
    return kind(request.param(method="adjoint"))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
def test_make_fx_of_a_gradient(layer: Any, mode: str, cold: bool):
    def gradient(x: Tensor, weights: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad((layer(x)[0] * weights).sum(), x)[0]

    if cold:
        adjoint._look.cache_clear()
        _compiled.cache_clear()
    wanted = None if cold else gradient(X, WEIGHTS)
    program = make_fx(gradient, tracing_mode=mode)(X, WEIGHTS)
    wanted = gradient(X, WEIGHTS) if wanted is None else wanted
    torch.testing.assert_close(program(X, WEIGHTS), wanted)
    assert float(wanted.abs().max()) > 0.1


def test_aot_autograd_without_dynamo(layer: Any):
    found = []
    for run in (layer, aot_function(layer, nop)):
        x = X.clone().requires_grad_()
        (run(x)[0] * WEIGHTS).sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(*found)
    assert float(found[0].abs().max()) > 0.1


def test_fake_tensors_meet_a_layer_first():
    adjoint._look.cache_clear()
    _compiled.cache_clear()
    with FakeTensorMode():
        x = torch.empty(5, 2, 3, requires_grad=True)
        LIF(LIFParameters(method="adjoint"))(x)[0].sum().backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape


def test_a_way_back_without_what_was_packed_is_refused():
    p = LIFParameters(method="adjoint")
    traced = trace(later_step(lif_feed_forward_step), p, (), (), 0.001, torch.float32, "events")
    kernel = cpu.build(traced, "lif", torch.float32, recurrent=False)
    x, rest = torch.ones(4, 2, 3), [torch.zeros(2, 3)] * 3
    kept = kernel.forward(x, rest, [], [])[4:]
    for fewer in ([], kept[:1]):
        with pytest.raises(RuntimeError, match="what the adjoint kept of its spikes is missing"):
            kernel.backward(x, rest, fewer, [], [], [True, False, False])


def test_kernels_are_held_by_programs_and_not_by_who_only_looks():
    """A parameter that changes at every step makes a kernel each, which nobody calls again."""

    def run(x: Tensor, v_leak: float) -> Tensor:
        return LIF(LIFParameters(v_leak=v_leak))(x)[0]

    def held() -> int:
        _compiled.cache_clear()
        gc.collect()
        return len(KERNELS)

    before = held()
    for mode in (FlopCounterMode(display=False), FakeTensorMode()):
        with mode:
            for k in range(3):
                run(torch.ones(X.shape), 0.01 * k)
        assert held() == before
    program = make_fx(run)(X, 0.0017)
    assert held() == before + 1
    assert torch.equal(program(X, 0.0017), run(X, 0.0017))
