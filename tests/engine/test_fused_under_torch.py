"""Fused loops under what torch has around operators: compile, autocast, dispatch modes, torch.func."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from snnlib import LI, LIF, LIFParameters, LIFRecurrent, LIFRefrac, LIFRefracParameters, lif_feed_forward_step
from snnlib.engine import scan
from snnlib.engine.step import state_type
from tests.engine.equality import device_of, everything, moved, recurrent_case
from tests.neurons import generator

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.mark.parametrize("method", ["super", "adjoint"])
def test_autocast_leaves_recurrent_layers_in_float32(backend: str, method: str):
    neuron, *values = recurrent_case((6, 2, 8), torch.float32)
    device = device_of(backend)
    x, state, weights = (moved(value, device) for value in values)
    for one in ("reference", backend):
        given = one, neuron.step, x, state, LIFParameters(method=method)
        wanted = everything(*given, recurrent_weights=weights)
        with torch.autocast(device, torch.bfloat16):  # around the way back too
            got = everything(*given, recurrent_weights=weights)
        # the way back by autograd alone is autocast's wherever that is on
        count = 1 + len(state) if (one, method) == ("reference", "super") else len(wanted)
        for ours, theirs in zip(got[:count], wanted[:count], strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(("kind", "parameters"), [(LIF, LIFParameters), (LIFRefrac, LIFRefracParameters)])
def test_torch_compile_without_a_graph_break(backend: str, kind: Any, parameters: Any):
    """LIF, and a neuron that keeps bits too."""
    p = parameters(method="arctan", tau_mem_inv=torch.nn.Parameter(torch.tensor(100.0)))
    layer = kind(p, backend=backend).to(device_of(backend))
    x = 3 * torch.randn(15, 2, 5, generator=generator(0)).to(device_of(backend))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    counted: list[str] = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        counted.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch.compile(layer, fullgraph=True, backend=count)(x)
    assert sum("snnlib.fused_forward" in target for target in counted) == 1  # one operator, not T steps
    results = []
    for run in (layer, compiled):
        layer.zero_grad()
        inputs = x.clone().requires_grad_()
        output, _ = run(inputs)
        output.sum().backward()
        results.append((output, inputs.grad, layer.tau_mem_inv.grad))
    assert float(results[0][0].detach().sum()) > 0
    torch.testing.assert_close(results[0], results[1])


def test_results_lie_in_memory_as_the_compiler_is_told(backend: str):
    """Inductor's code checks the strides that the fake implementation promised: those of ``new_empty``."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((6, 3, 5), (4, 4), (4, 5))
    x, recurrent, inward = (
        torch.randn(*shape, generator=generator).to(device_of(backend)).requires_grad_() for shape in shapes
    )
    output, _ = scan(
        lif_feed_forward_step, x, recurrent_weights=recurrent, input_weights=inward, backend=backend
    )
    for gradient in torch.autograd.grad(output.sum(), (x, recurrent, inward)):
        assert gradient.is_contiguous()


class Seen(TorchDispatchMode):
    """The operators that torch calls."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


class Own(torch.Tensor):
    """A type of tensor of somebody's own, which sees the functions that it is given to."""

    names: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.names.append(str(function))
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.mark.parametrize("method", ["arctan", "adjoint"])
def test_who_looks_at_operators_sees_them_and_the_same_numbers(backend: str, method: str):
    """Without anybody a call goes past torch's dispatcher."""
    p, source = LIFParameters(method=method), generator(0)
    given = [3 * torch.randn(15, 2, 5, generator=source), torch.randn(5, 5, generator=source)]

    def gradients(x: Tensor, weights: Tensor) -> list[Tensor]:
        leaves = [value.clone().to(device_of(backend)).requires_grad_() for value in (x, weights)]
        output, state = scan(
            lif_feed_forward_step, leaves[0], None, p, recurrent_weights=leaves[1], backend=backend
        )
        (output.sum() + state.v.sum()).backward()
        return [output, *state, *(leaf.grad for leaf in leaves)]

    wanted = gradients(*given)
    with Seen() as seen:
        watched = gradients(*given)
    assert sum("snnlib.fused_forward" in name for name in seen.names) == 1
    assert sum("snnlib.fused_backward" in name for name in seen.names) == 1
    Own.names.clear()
    owned = gradients(given[0].as_subclass(Own), given[1])
    assert sum("snnlib.fused_forward" in name for name in Own.names) == 1
    for found in (watched, owned):
        for one, other in zip(found, wanted, strict=True):
            if method == "adjoint":  # keeps numbers of every step, not of spikes alone
                torch.testing.assert_close(one, other)
            else:
                assert torch.equal(one, other)


def test_torch_func_grad_takes_the_plain_loop():
    x = 3 * torch.randn(15, 2, 5, generator=generator(0))
    p = LIFParameters(method="arctan")
    got = torch.func.grad(lambda a: scan(lif_feed_forward_step, a, None, p)[0].sum())(x)
    x.requires_grad_()
    scan(lif_feed_forward_step, x, None, p)[0].sum().backward()
    torch.testing.assert_close(got, x.grad)


def test_gradients_of_gradients_are_refused_and_the_reference_has_them(backend: str):
    x = torch.randn(5, 2, 3, generator=generator(0)).to(device_of(backend)).requires_grad_()
    p = LIFParameters(method="arctan")
    for one in ("reference", backend):
        output, _ = scan(lif_feed_forward_step, x, None, p, backend=one)
        (gradient,) = torch.autograd.grad(output.sum(), x, create_graph=True)
        if one == "reference":
            assert float(torch.autograd.grad(gradient.square().sum(), x)[0].abs().sum()) > 0
        else:
            with pytest.raises(RuntimeError, match="fused_backward"):
                torch.autograd.grad(gradient.square().sum(), x)


class Silent(torch.autograd.Function):
    """Has no gradient for what it is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> None:
        return None


@pytest.mark.parametrize("recurrent", [False, True], ids=["", "recurrent"])
@pytest.mark.parametrize("method", ["super", "adjoint"])
def test_a_gradient_that_never_comes(backend: str, method: str, recurrent: bool):
    device = device_of(backend)
    x = torch.randn(4, 2, 3, device=device, requires_grad=True)
    weights = torch.eye(3, device=device, requires_grad=True) if recurrent else None
    p = LIFParameters(method=method)
    z, _ = scan(lif_feed_forward_step, x, p=p, recurrent_weights=weights, backend=backend)
    (Silent.apply(z).sum() + x.sum()).backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    assert weights is None or weights.grad is None


def test_gradcheck_as_it_is(backend: str):
    """With gradients that are undefined, which it tries by default."""
    x = torch.rand(5, 2, 3, dtype=torch.float64, device=device_of(backend), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: LI(backend=backend)(x)[0], x)


@pytest.mark.parametrize("method", ["super", "adjoint"])
def test_gradients_of_many_outputs_at_once(backend: str, method: str):
    """By torch.vmap of torch.autograd.grad; the older way to ask for them is refused with a sentence."""
    weights = {"input_weights": torch.eye(3), "recurrent_weights": 1 - torch.eye(3)}
    layer = LIFRecurrent(3, 3, LIFParameters(method=method), backend=backend, **weights).to(device_of(backend))
    x = (9 * torch.rand(15, 2, 3, generator=generator(2))).to(device_of(backend)).requires_grad_()
    last = layer(x)[0][-3:].flatten()
    wanted = [x, *layer.parameters()]
    each = [torch.autograd.grad(value, wanted, retain_graph=True) for value in last]
    ones = torch.eye(len(last), device=x.device)
    found = torch.vmap(lambda v: torch.autograd.grad(last, wanted, v, retain_graph=True))(ones)
    for ours, theirs in zip(found, map(torch.stack, zip(*each, strict=True)), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.any()
    with pytest.raises(RuntimeError, match=r"is_grads_batched.*torch.vmap.*backend='reference'"):
        torch.autograd.grad(last, x, ones, is_grads_batched=True)
    with pytest.raises(RuntimeError, match=r"is_grads_batched.*torch.vmap.*backend='reference'"):
        torch.autograd.grad(layer(x)[1].v, x, torch.eye(6).view(6, 2, 3).to(x), is_grads_batched=True)


def negative(value: Tensor) -> Tensor:
    """The same numbers with torch's mark that their memory has the other sign, as of ``z.conj().imag``."""
    return torch._neg_view(-value)


@pytest.mark.parametrize("method", ["super", "adjoint"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_a_sign_that_is_not_in_memory(backend: str, method: str, recurrent: bool):
    neuron, *values = recurrent_case((7, 2, 6), torch.float64)
    x, state, weights = (moved(value, device_of(backend)) for value in values)
    own = moved(torch.tensor([1.0, 0.9, 1.1, 1.0, 0.8, 1.2], dtype=torch.float64), device_of(backend))
    inward = 0.2 * weights.T + torch.eye(6, dtype=x.dtype).to(x)
    options = {"recurrent_weights": weights, "input_weights": inward} if recurrent else {}
    state = state if recurrent else state_type(neuron.step)(*state[1:])
    gradient = torch.randn(x.shape, generator=generator(3), dtype=x.dtype).to(x)
    results = []
    for shown in (lambda value: value, negative):
        leaves = [value.detach().clone().requires_grad_() for value in (x, *state, own, *options.values())]
        x_, *given = map(shown, leaves)
        p = neuron.parameters(method=method, v_th=given[len(state)])
        more = dict(zip(options, given[len(state) + 1 :], strict=True))
        output, last = scan(neuron.step, x_, type(state)(*given[: len(state)]), p, backend=backend, **more)
        ends = [output, last.v, last.i]
        starts = [shown(value) for value in (gradient, gradient[0].clone(), gradient[1].clone())]
        assert x_.is_neg() == starts[0].is_neg() == (shown is negative)
        results.append([*ends, *torch.autograd.grad(ends, leaves, starts)])
    assert float(results[0][0].detach().sum()) > 0
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("which", "shape"), [*((k, (7, 2, 6)) for k in range(9)), (5, (4, 2, 130))], ids=str)
def test_one_sign_that_is_not_in_memory(backend: str, which: int, shape: tuple[int, ...]):
    """Of input, state, a parameter, both weights and the gradients of output and state one alone."""
    neuron, *values = recurrent_case(shape, torch.float64)
    x, state, weights = (moved(value, device_of(backend)) for value in values)
    own = (0.8 + 0.4 * torch.rand(shape[1:], generator=generator(4))).to(x)
    inward = 0.2 * weights.T + torch.eye(shape[-1]).to(x)
    starts = [torch.randn(value.shape, generator=generator(3)).to(x) for value in (x, x[0])]
    results = []
    for signed in (None, which):
        leaves = [value.detach().clone().requires_grad_() for value in (x, *state, own, weights, inward)]
        shown = [negative(value) if k == signed else value for k, value in enumerate((*leaves, *starts))]
        p = neuron.parameters(v_th=shown[4])
        options = {"recurrent_weights": shown[5], "input_weights": shown[6], "backend": backend}
        output, last = scan(neuron.step, shown[0], type(state)(*shown[1:4]), p, **options)
        results.append([output, last.v, *torch.autograd.grad([output, last.v], leaves, shown[7:])])
    assert float(results[0][0].detach().sum()) > 0
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)
