"""torch.func and forward-mode differentiation around sequences, also around those that they do not know."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from snnlib import LI, LIF, LIFParameters, UntraceableError
from snnlib.engine import conv2d, linear
from tests.neurons import generator

X = 9 * torch.rand(15, 3, 4, generator=generator(0))


def transformed(kind: str, run: Callable[[], Tensor]) -> Tensor:
    """What ``run`` gives, times ones that torch.func looks at."""
    if kind == "vmap":
        return torch.func.vmap(lambda w: w * run())(torch.ones(2))[0]
    if kind == "grad":
        seen: list[Tensor] = []
        torch.func.grad(lambda w: (seen.append(run()), (w * seen[0]).sum())[1])(torch.ones(()))
        return torch.func.debug_unwrap(seen[0])
    with forward_ad.dual_level():
        return run()


@pytest.mark.parametrize("kind", ["vmap", "grad", "dual"])
@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
def test_what_is_around_a_sequence_need_not_know_it(kind: str, cold: bool):
    # numbers that no other test has
    layer = LIF(LIFParameters(v_leak=0.0301 if cold else 0.0302, tau_mem_inv=101.0 + len(kind)))
    wanted = None if cold else layer(X)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = transformed(kind, lambda: layer(X)[0])
    assert torch.equal(got, layer(X)[0] if wanted is None else wanted)
    assert torch.equal(got, LIF(layer.p, backend="cpu")(X)[0])  # nothing is remembered that forbids it


@pytest.mark.parametrize("kind", ["vmap", "grad", "dual"])
def test_who_asks_for_a_fused_loop_is_told_that_there_is_none(kind: str):
    with pytest.raises(UntraceableError, match=r"torch.func or forward-mode"):
        transformed(kind, lambda: LIF(backend="cpu")(X)[0])
    with pytest.raises(RuntimeError, match=r"adjoint.*torch.func or forward-mode"):
        transformed(kind, lambda: LIF(LIFParameters(method="adjoint"))(X)[0])


@pytest.mark.parametrize("kind", ["vmap", "grad", "dual"])
@pytest.mark.parametrize("product", [conv2d, linear])
def test_products_are_torchs_there(kind: str, product: Callable[..., Tensor]):
    spikes = (torch.rand(15, 3, 6, 6, generator=generator(1)) < 0.1).float()
    given = spikes, torch.randn(32, 3, 3, 3)
    if product is linear:
        given = spikes.flatten(1), torch.randn(40, 108)
    got = transformed(kind, lambda: product(*given, backend="cpu"))
    torch.testing.assert_close(got, product(*given, backend="reference"))


def test_tangents_pass_the_plain_loop():
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(X, torch.ones_like(X))
        tangents = [forward_ad.unpack_dual(LI(backend=one)(dual)[0]).tangent for one in ("auto", "reference")]
    assert torch.equal(*tangents)
    assert float(tangents[0].sum()) > 0
