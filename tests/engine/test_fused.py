"""The fused backends equal the reference: outputs, states, every gradient; on odd shapes, compiled by torch."""

import warnings
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from snnlib import (
    LIF,
    LIFParameters,
    LIFRefrac,
    LIFRefracParameters,
    LSNNParameters,
    lif_feed_forward_step,
    lsnn_feed_forward_step,
    spike,
)
from snnlib.engine import fused, scan, source, trace
from snnlib.engine.step import UntraceableError, recurrent_state_type
from snnlib.functional import SURROGATES
from tests.engine.equality import (
    FUSED_BACKENDS,
    assert_equal,
    device_of,
    everything,
    lif_case,
    moved,
    needs_triton,
    recurrent_case,
)
from tests.neurons import NEURONS, SPIKING, Neuron, draw_input, draw_parameters, draw_state, generator, name_of

pytestmark = pytest.mark.usefixtures("poisoned_memory")

FUSED = [name for name, surrogate in SURROGATES.items() if surrogate.probability is None]
"""Every surrogate but the stochastic one, which runs in the plain loop."""


@pytest.fixture(params=FUSED_BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def shapes(cpu: list[tuple[int, ...]], gpu: list[tuple[int, ...]]) -> Any:
    """Shapes for each backend: small ones for the GPU's kernels, which are interpreted where there is none."""
    given = [*(("cpu", shape) for shape in cpu), *(pytest.param("gpu", s, marks=needs_triton) for s in gpu)]
    return pytest.mark.parametrize(("backend", "shape"), given, ids=str)


@shapes(
    cpu=[(17, 3, 5), (1, 2, 7), (30, 1, 1), (9, 2, 3, 4, 5), (5, 3, 1500)],
    gpu=[(17, 3, 5), (1, 2, 7), (3, 2, 3, 4, 11)],
)
@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_every_neuron_with_every_parameter_learned(backend: str, neuron: Neuron, shape: tuple[int, ...]):
    source = generator(len(shape) + shape[0])
    p = draw_parameters(neuron, source, shape[-1:])
    state = draw_state(neuron, source, shape[1:])
    output = assert_equal(backend, neuron, draw_input(neuron, source, shape), state, p)[0]
    if neuron.spikes and shape[0] > 5:
        assert 0 < float(output.detach().mean()) < 1


@shapes(
    cpu=[(40, 5, 7), (1, 2, 3), (13, 1, 1), (6, 9, 130), (25, 6, 8)],
    gpu=[(10, 2, 7), (1, 2, 3), (2, 1, 20), (3, 2, 130)],
)
@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_every_neuron_with_recurrent_weights(backend: str, neuron: Neuron, shape: tuple[int, ...]):
    """In float64: a spike at the very threshold, which the order of a sum could flip, does not occur."""
    source = generator(sum(shape))
    size = shape[-1]
    weights = torch.randn(size, size, generator=source, dtype=torch.float64) * neuron.input[1] / size**0.5
    state = recurrent_state_type(neuron.step)(
        (torch.rand(shape[1:], generator=source) < 0.3).double(), *draw_state(neuron, source, shape[1:])
    )
    p = draw_parameters(neuron, source, (size,))
    x = draw_input(neuron, source, shape)
    output = assert_equal(backend, neuron, x, state, p, recurrent_weights=weights)[0]
    if neuron.spikes and shape[0] > 5:
        assert 0 < float(output.detach().mean()) < 1
    if neuron.name in ("lif", "lsnn"):  # parameters that do not learn are no matter of the neuron
        frozen = p._replace(**{k: float(v.mean()) for k, v in p._asdict().items() if isinstance(v, Tensor)})
        assert_equal(backend, neuron, x, state, frozen, recurrent_weights=weights)


@pytest.mark.parametrize("inputs", [1, 7, 34, 100])
@shapes(cpu=[(30, 5, 6), (12, 11, 70), (1, 1, 32)], gpu=[(9, 3, 6), (1, 1, 32)])
def test_input_weights_in_the_loop(backend: str, shape: tuple[int, int, int], inputs: int):
    """Sizes above and below the width of the strips in which products are summed."""
    steps, batch, size = shape
    neuron, source = next(n for n in NEURONS if n.name == "lsnn"), generator(inputs)
    into, within = (
        torch.randn(size, n, generator=source, dtype=torch.float64) * scale / n**0.5
        for n, scale in ((inputs, 2.0), (size, 1.0))
    )
    state = recurrent_state_type(neuron.step)(
        (torch.rand(batch, size, generator=source) < 0.3).double(), *draw_state(neuron, source, shape[1:])
    )
    p = draw_parameters(neuron, source)
    x = draw_input(neuron, source, (steps, batch, inputs))
    output = assert_equal(backend, neuron, x, state, p, recurrent_weights=within, input_weights=into)[0]
    assert steps == 1 or 0 < float(output.detach().mean()) < 1
    still = x[0].expand(steps, batch, inputs)
    assert_equal(backend, neuron, still, state, p, recurrent_weights=within, input_weights=into)


@pytest.mark.parametrize("frozen", ["input", "recurrent_weights", "input_weights", "all but the state"])
def test_what_asks_for_no_gradient_gets_none(backend: str, frozen: str):
    source = generator(2)
    given = {
        "input": torch.randn(9, 3, 4, generator=source),
        "recurrent_weights": torch.randn(5, 5, generator=source),
        "input_weights": 3 * torch.randn(5, 4, generator=source),
    }
    device, gradients = device_of(backend), []
    for name in (backend, "reference"):
        leaves = {
            k: v.to(device).clone().requires_grad_(frozen not in (k, "all but the state"))
            for k, v in given.items()
        }
        drawn = torch.rand(3, 3, 5, generator=generator(1)).to(device)
        state = recurrent_state_type(lif_feed_forward_step)(*drawn.unbind())
        state.v.requires_grad_()
        scan(lif_feed_forward_step, state=state, backend=name, **leaves)[0].sum().backward()
        gradients.append({k: v.grad for k, v in (leaves | {"v": state.v}).items()})
    for name, theirs in gradients[1].items():
        assert (theirs is None) == (name == frozen or (frozen == "all but the state" and name != "v"))
        if theirs is not None:
            torch.testing.assert_close(gradients[0][name], theirs, rtol=1e-4, atol=1e-6)
        else:
            assert gradients[0][name] is None


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (4, 2, 0)], ids=str)
def test_nothing_in_nothing_out_with_recurrent_weights(backend: str, shape: tuple[int, ...]):
    neuron, x, state = lif_case(shape, backend=backend)
    state = recurrent_state_type(neuron.step)(torch.ones(shape[1:], dtype=torch.float64), *state)
    weights = torch.ones(shape[-1], shape[-1], dtype=torch.float64)
    assert_equal(backend, neuron, x, state, LIFParameters(), recurrent_weights=weights)
    x = torch.ones(*shape[:2], 6, dtype=torch.float64)
    into = torch.ones(shape[-1], 6, dtype=torch.float64)
    assert_equal(backend, neuron, x, state, LIFParameters(), recurrent_weights=weights, input_weights=into)


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_float32_outputs_are_the_same_bits(backend: str, neuron: Neuron):
    """Where a step has an exp its last bit may differ, and a spike at the very threshold with it: none does."""
    source, (steps, batch) = generator(3), (60, 4) if backend == "cpu" else (25, 1)
    p = draw_parameters(neuron, source, dtype=torch.float32)
    p = p._replace(**{k: float(v) for k, v in p._asdict().items() if isinstance(v, Tensor)})
    x = draw_input(neuron, source, (steps, batch, 33), torch.float32).to(device_of(backend))
    state = moved(draw_state(neuron, source, (batch, 33), torch.float32), x.device)
    ours, _ = scan(neuron.step, x, state, p, backend=backend)
    plain, _ = scan(neuron.step, x, state, p, backend="reference")
    if neuron.name == "li":
        torch.testing.assert_close(ours, plain, rtol=0, atol=0)
    flips = int((ours != plain).sum())
    assert flips == 0
    assert_equal(backend, neuron, x, state, p)


@pytest.mark.parametrize(("method", "detach"), [*((name, True) for name in FUSED), ("super", False)])
def test_every_surrogate(backend: str, method: str, detach: bool):
    neuron = next(n for n in SPIKING if n.name == "lif")
    source = generator(5)
    p = draw_parameters(neuron, source, method=method, detach_reset=detach)
    assert_equal(backend, neuron, draw_input(neuron, source, (24, 2, 9)), draw_state(neuron, source, (2, 9)), p)


@pytest.mark.parametrize("where", ["scalar", "per neuron", "per sample"])
def test_parameters_broadcast(backend: str, where: str):
    neuron, x, state = lif_case(backend=backend)
    shape = {"scalar": (), "per neuron": (6,), "per sample": (3, 1)}[where]
    assert_equal(backend, neuron, x, state, draw_parameters(neuron, generator(1), shape))


def test_inputs_of_any_layout(backend: str):
    neuron, x, state = lif_case(backend=backend)
    p = moved(draw_parameters(neuron, generator(1)), x.device)
    wanted, _ = scan(neuron.step, x, state, p, backend="reference")
    for layout in (
        x.transpose(0, 2).contiguous().transpose(0, 2),
        x.repeat(1, 1, 2)[..., :6],
        x.flip(0).flip(0),
    ):
        got, _ = scan(neuron.step, layout, state, p, backend=backend)
        assert torch.equal(got, wanted)


def test_without_gradients_nothing_is_kept(backend: str):
    neuron, x, state = lif_case(backend=backend)
    kept = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value)
        return value

    trace.trace.cache_clear()  # what is saved while tracing is none of the hooks' business either
    fused._compiled.cache_clear()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        scan(neuron.step, x, state, backend=backend)
        with torch.no_grad():
            scan(neuron.step, x.requires_grad_(), state, backend=backend)
        assert kept == []
        scan(neuron.step, x, state, backend=backend)
    assert [value.shape for value in kept] == [x.shape]


def test_a_constant_input_is_read_as_one_row(backend: str):
    neuron, x, state = lif_case(backend=backend)
    p = moved(draw_parameters(neuron, generator(1)), x.device)
    still = x[0].clone().requires_grad_()
    gradients = []
    for one in (backend, "reference"):
        output, _ = scan(neuron.step, still.expand(20, 3, 6), state, p, backend=one)
        weight = torch.arange(20.0, device=x.device)[:, None, None]
        gradients.append(torch.autograd.grad((output * weight).sum(), still)[0])
    assert float(output.detach().sum()) > 0
    torch.testing.assert_close(*gradients)


def test_gradients_that_are_not_contiguous_or_missing(backend: str):
    neuron, x, state = lif_case(backend=backend)
    p = LIFParameters(method="arctan")
    results = []
    for name in (backend, "reference"):
        inputs = x.clone().requires_grad_()
        output, last = scan(neuron.step, inputs, state, p, backend=name)
        weight = torch.randn(6, 20, 3, generator=generator(0), dtype=x.dtype).permute(1, 2, 0).to(x.device)
        one = torch.autograd.grad(output, inputs, weight, retain_graph=True)[0]
        two = torch.autograd.grad(output.sum(), inputs, retain_graph=True)[0]
        three = torch.autograd.grad(last.i.sum(), inputs)[0]
        results.append((one, two, three))
    for ours, theirs in zip(*results, strict=True):
        assert float(theirs.abs().sum()) > 0
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (4, 2, 0)], ids=str)
def test_nothing_in_nothing_out(backend: str, shape: tuple[int, ...]):
    x = torch.zeros(shape, requires_grad=True, device=device_of(backend))
    output, state = scan(lif_feed_forward_step, x, backend=backend)
    assert output.shape == shape
    assert state.v.shape == shape[1:]
    output.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == shape


def test_chunks_equal_the_whole_and_pass_gradients(backend: str):
    neuron, x, state = lif_case(backend=backend)
    p = LIFParameters(method="arctan")
    x = x.requires_grad_()
    whole, _ = scan(neuron.step, x, state, p, backend=backend)
    first, middle = scan(neuron.step, x[:7], state, p, backend=backend)
    second, _ = scan(neuron.step, x[7:], middle, p, backend=backend)
    assert torch.equal(torch.cat([first, second]), whole)
    torch.testing.assert_close(
        torch.autograd.grad(second[-1].sum(), x)[0], torch.autograd.grad(whole[-1].sum(), x)[0]
    )


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


def test_nan_and_infinity_travel_as_in_the_reference(backend: str):
    x = torch.randn(12, 2, 6, generator=generator(0))
    x[4, 0, 0], x[5, 1, 2], x[6, 0, 3], x[7, 1, 4] = float("nan"), float("inf"), -float("inf"), 1e30
    x = x.to(device_of(backend))
    for step, p in ((lif_feed_forward_step, LIFParameters()), (lsnn_feed_forward_step, LSNNParameters())):
        ours, plain = (scan(step, x, None, p, backend=one) for one in (backend, "reference"))
        torch.testing.assert_close(ours, plain, rtol=0, atol=0, equal_nan=True)


def test_half_precision_input_is_integrated_in_float32(backend: str):
    x = torch.randn(30, 2, 5, generator=generator(0)).bfloat16().to(device_of(backend)) * 3
    ours, state = scan(lif_feed_forward_step, x, backend=backend)
    plain, _ = scan(lif_feed_forward_step, x, backend="reference")
    assert ours.dtype == torch.bfloat16
    assert state.v.dtype == torch.float32
    assert torch.equal(ours, plain)


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
    x, recurrent, inward = (torch.randn(*shape, generator=generator).requires_grad_() for shape in shapes)
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
    """A type of tensor of somebody's own."""


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
    for found in (watched, gradients(given[0].as_subclass(Own), given[1])):
        for one, other in zip(found, wanted, strict=True):
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


@shapes(cpu=[(6, 3, 4, 5, 7), (1, 2, 3, 2, 2)], gpu=[(3, 2, 3, 2, 5)])
def test_channels_last_stays_so_with_the_same_numbers(backend: str, shape: tuple[int, ...]):
    """Maps whose channels lie side by side are neither copied nor turned; learned parameters follow them."""
    neuron, source = next(n for n in NEURONS if n.name == "lsnn"), generator(3)
    p = draw_parameters(neuron, source, (shape[2], 1, 1))
    state, x = draw_state(neuron, source, shape[1:]), draw_input(neuron, source, shape)
    turned = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2])
    plain = assert_equal(backend, neuron, x, state, p)
    ours = assert_equal(backend, neuron, turned, state, p)
    for one, other in zip(plain, ours, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert ours[0].movedim(2, -1).is_contiguous()
    assert not ours[0].is_contiguous()
    repeated = [moved(v[:1].expand(shape), device_of(backend)) for v in (x, turned)]
    assert torch.equal(*(scan(neuron.step, v, backend=backend)[0] for v in repeated))


def test_the_source_of_a_layer_is_that_of_its_step():
    p = LIFParameters(tau_mem_inv=50.0, method="adjoint")
    assert source(LIF) == source(LIF()) == source(lif_feed_forward_step)
    assert source(LIF(p)) == source(LIF, p) == source(lif_feed_forward_step, p) != source(LIF)
