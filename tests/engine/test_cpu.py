"""The fused loop equals the reference: outputs, states, every gradient; on odd shapes, in threads, compiled."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from snnlib import LIF, LIFParameters, LSNNParameters, lif_feed_forward_step, lsnn_feed_forward_step, spike
from snnlib.engine import scan
from snnlib.engine.step import UntraceableError, recurrent_state_type
from snnlib.functional import SURROGATES
from tests.neurons import NEURONS, SPIKING, Neuron, draw_input, draw_parameters, draw_state, generator, name_of

FUSED = [name for name, surrogate in SURROGATES.items() if surrogate.probability is None]
"""Every surrogate but the stochastic one, which runs in the plain loop."""


@pytest.fixture(autouse=True)
def poisoned_memory():
    """``torch.empty`` is full of NaN, so that nothing unwritten passes for a result."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def everything(backend: str, step, x: Tensor, state, p, dt: float = 0.001, **options: Any) -> list[Tensor]:
    """Output, last state, and the gradients of all that can have one, of a random projection of all outputs."""

    def own(value: Tensor) -> Tensor:
        return value.detach().clone(memory_format=torch.preserve_format).requires_grad_()

    x, state = own(x), type(state)(*map(own, state))
    fields = {k: own(v) for k, v in p._asdict().items() if isinstance(v, Tensor)}
    options = {k: own(v) if isinstance(v, Tensor) else v for k, v in options.items()}
    output, last = scan(step, x, state, p._replace(**fields), dt=dt, backend=backend, **options)
    source = generator(99)
    loss = sum((v * torch.randn(v.shape, generator=source, dtype=v.dtype)).sum() for v in (output, *last))
    inputs = [x, *state, *fields.values(), *(v for v in options.values() if isinstance(v, Tensor))]
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [
        output,
        *last,
        *(torch.zeros_like(i) if g is None else g for i, g in zip(inputs, gradients, strict=True)),
    ]


def assert_equal(neuron: Neuron, x: Tensor, state, p, **options: Any) -> list[Tensor]:
    fused = everything("cpu", neuron.step, x, state, p, **options)
    plain = everything("reference", neuron.step, x, state, p, **options)
    tight = x.dtype == torch.float64
    for ours, theirs in zip(fused, plain, strict=True):
        scale = float(theirs.detach().abs().max()) if theirs.numel() else 0.0
        torch.testing.assert_close(
            ours, theirs, rtol=1e-9 if tight else 2e-5, atol=scale * (1e-12 if tight else 2e-6)
        )
    return fused


@pytest.mark.parametrize("shape", [(17, 3, 5), (1, 2, 7), (30, 1, 1), (9, 2, 3, 4, 5), (5, 3, 1500)], ids=str)
@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_every_neuron_with_every_parameter_learned(neuron: Neuron, shape: tuple[int, ...]):
    source = generator(len(shape) + shape[0])
    p = draw_parameters(neuron, source, shape[-1:])
    state = draw_state(neuron, source, shape[1:])
    output = assert_equal(neuron, draw_input(neuron, source, shape), state, p)[0]
    if neuron.spikes and shape[0] > 5:
        assert 0 < float(output.detach().mean()) < 1


@pytest.mark.parametrize("shape", [(40, 5, 7), (1, 2, 3), (13, 1, 1), (6, 9, 130), (25, 6, 8)], ids=str)
@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_every_neuron_with_recurrent_weights(neuron: Neuron, shape: tuple[int, ...]):
    """In float64: a spike at the very threshold, which the order of a sum could flip, does not occur."""
    source = generator(sum(shape))
    size = shape[-1]
    weights = torch.randn(size, size, generator=source, dtype=torch.float64) * neuron.input[1] / size**0.5
    state = recurrent_state_type(neuron.step)(
        (torch.rand(shape[1:], generator=source) < 0.3).double(), *draw_state(neuron, source, shape[1:])
    )
    p = draw_parameters(neuron, source, (size,))
    x = draw_input(neuron, source, shape)
    output = assert_equal(neuron, x, state, p, recurrent_weights=weights)[0]
    if neuron.spikes and shape[0] > 5:
        assert 0 < float(output.detach().mean()) < 1
    frozen = p._replace(**{k: float(v.mean()) for k, v in p._asdict().items() if isinstance(v, Tensor)})
    assert_equal(neuron, x, state, frozen, recurrent_weights=weights)


@pytest.mark.parametrize("inputs", [1, 7, 34, 100])
@pytest.mark.parametrize("shape", [(30, 5, 6), (12, 11, 70), (1, 1, 32)], ids=str)
def test_input_weights_in_the_loop(shape: tuple[int, int, int], inputs: int):
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
    output = assert_equal(neuron, x, state, p, recurrent_weights=within, input_weights=into)[0]
    assert steps == 1 or 0 < float(output.detach().mean()) < 1
    still = x[0].expand(steps, batch, inputs)
    assert_equal(neuron, still, state, p, recurrent_weights=within, input_weights=into)


@pytest.mark.parametrize("frozen", ["input", "recurrent_weights", "input_weights", "all but the state"])
def test_what_asks_for_no_gradient_gets_none(frozen: str):
    source = generator(2)
    given = {
        "input": torch.randn(9, 3, 4, generator=source),
        "recurrent_weights": torch.randn(5, 5, generator=source),
        "input_weights": 3 * torch.randn(5, 4, generator=source),
    }
    gradients = []
    for backend in ("cpu", "reference"):
        leaves = {k: v.clone().requires_grad_(frozen not in (k, "all but the state")) for k, v in given.items()}
        state = recurrent_state_type(lif_feed_forward_step)(
            *torch.rand(3, 3, 5, generator=generator(1)).unbind()
        )
        state.v.requires_grad_()
        scan(lif_feed_forward_step, state=state, backend=backend, **leaves)[0].sum().backward()
        gradients.append({k: v.grad for k, v in (leaves | {"v": state.v}).items()})
    for name, theirs in gradients[1].items():
        assert (theirs is None) == (name == frozen or (frozen == "all but the state" and name != "v"))
        if theirs is not None:
            torch.testing.assert_close(gradients[0][name], theirs, rtol=1e-4, atol=1e-6)
        else:
            assert gradients[0][name] is None


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (4, 2, 0)], ids=str)
def test_nothing_in_nothing_out_with_recurrent_weights(shape: tuple[int, ...]):
    neuron, x, state = lif_case(shape)
    state = recurrent_state_type(neuron.step)(torch.ones(shape[1:], dtype=torch.float64), *state)
    weights = torch.ones(shape[-1], shape[-1], dtype=torch.float64)
    assert_equal(neuron, x, state, LIFParameters(), recurrent_weights=weights)
    x = torch.ones(*shape[:2], 6, dtype=torch.float64)
    into = torch.ones(shape[-1], 6, dtype=torch.float64)
    assert_equal(neuron, x, state, LIFParameters(), recurrent_weights=weights, input_weights=into)


@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_float32_outputs_are_the_same_bits(neuron: Neuron):
    """Where a step has an exp its last bit may differ, and a spike at the very threshold with it: none does."""
    source = generator(3)
    p = draw_parameters(neuron, source, dtype=torch.float32)
    p = p._replace(**{k: float(v) for k, v in p._asdict().items() if isinstance(v, Tensor)})
    x = draw_input(neuron, source, (60, 4, 33), torch.float32)
    state = draw_state(neuron, source, (4, 33), torch.float32)
    fused, _ = scan(neuron.step, x, state, p, backend="cpu")
    plain, _ = scan(neuron.step, x, state, p, backend="reference")
    if neuron.name == "li":
        torch.testing.assert_close(fused, plain, rtol=0, atol=0)
    flips = int((fused != plain).sum())
    assert flips == 0
    assert_equal(neuron, x, state, p)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("method", FUSED)
def test_every_surrogate(method: str, detach: bool):
    neuron = next(n for n in SPIKING if n.name == "lif")
    source = generator(5)
    p = draw_parameters(neuron, source, method=method, detach_reset=detach)
    assert_equal(neuron, draw_input(neuron, source, (40, 2, 9)), draw_state(neuron, source, (2, 9)), p)


def lif_case(shape=(20, 3, 6), dtype=torch.float64):
    neuron = next(n for n in SPIKING if n.name == "lif")
    source = generator(11)
    return neuron, draw_input(neuron, source, shape, dtype), draw_state(neuron, source, shape[1:], dtype)


@pytest.mark.parametrize("where", ["scalar", "per neuron", "per sample"])
def test_parameters_broadcast(where: str):
    neuron, x, state = lif_case()
    shape = {"scalar": (), "per neuron": (6,), "per sample": (3, 1)}[where]
    assert_equal(neuron, x, state, draw_parameters(neuron, generator(1), shape))


def test_inputs_of_any_layout():
    neuron, x, state = lif_case()
    p = draw_parameters(neuron, generator(1))
    wanted, _ = scan(neuron.step, x, state, p, backend="reference")
    for layout in (
        x.transpose(0, 2).contiguous().transpose(0, 2),
        x.repeat(1, 1, 2)[..., :6],
        x.flip(0).flip(0),
    ):
        got, _ = scan(neuron.step, layout, state, p, backend="cpu")
        assert torch.equal(got, wanted)


def test_without_gradients_nothing_is_kept():
    neuron, x, state = lif_case()
    kept = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        scan(neuron.step, x, state, backend="cpu")
        with torch.no_grad():
            scan(neuron.step, x.requires_grad_(), state, backend="cpu")
        assert kept == []
        scan(neuron.step, x, state, backend="cpu")
    assert [value.shape for value in kept] == [x.shape]


def test_a_constant_input_is_read_as_one_row():
    neuron, x, state = lif_case()
    p = draw_parameters(neuron, generator(1))
    still = x[0].clone().requires_grad_()
    gradients = []
    for backend in ("cpu", "reference"):
        output, _ = scan(neuron.step, still.expand(20, 3, 6), state, p, backend=backend)
        gradients.append(torch.autograd.grad((output * torch.arange(20.0)[:, None, None]).sum(), still)[0])
    assert float(output.detach().sum()) > 0
    torch.testing.assert_close(*gradients)


def test_gradients_that_are_not_contiguous_or_missing():
    neuron, x, state = lif_case()
    p = LIFParameters(method="arctan")
    results = []
    for backend in ("cpu", "reference"):
        inputs = x.clone().requires_grad_()
        output, last = scan(neuron.step, inputs, state, p, backend=backend)
        weight = torch.randn(6, 20, 3, generator=generator(0), dtype=x.dtype).permute(1, 2, 0)
        one = torch.autograd.grad(output, inputs, weight, retain_graph=True)[0]
        two = torch.autograd.grad(output.sum(), inputs, retain_graph=True)[0]
        three = torch.autograd.grad(last.i.sum(), inputs)[0]
        results.append((one, two, three))
    for ours, theirs in zip(*results, strict=True):
        assert float(theirs.abs().sum()) > 0
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (4, 2, 0)], ids=str)
def test_nothing_in_nothing_out(shape: tuple[int, ...]):
    x = torch.zeros(shape, requires_grad=True)
    output, state = scan(lif_feed_forward_step, x, backend="cpu")
    assert output.shape == shape
    assert state.v.shape == shape[1:]
    output.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == shape


def test_chunks_equal_the_whole_and_pass_gradients():
    neuron, x, state = lif_case()
    p = LIFParameters(method="arctan")
    x = x.requires_grad_()
    whole, _ = scan(neuron.step, x, state, p, backend="cpu")
    first, middle = scan(neuron.step, x[:7], state, p, backend="cpu")
    second, _ = scan(neuron.step, x[7:], middle, p, backend="cpu")
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


def test_a_step_of_ones_own_runs_fused():
    x = torch.randn(25, 3, 8, generator=generator(2), dtype=torch.float64) + 0.5
    state = OwnState(*torch.rand(2, 3, 8, generator=generator(3), dtype=torch.float64))
    p = OwnParameters(decay=torch.full((8,), 0.8, dtype=torch.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fused = everything("auto", own_step, x, state, p)
    assert float(fused[0].detach().sum()) > 10
    for ours, theirs in zip(fused, everything("reference", own_step, x, state, p), strict=True):
        torch.testing.assert_close(ours, theirs)


WEIGHTS = [f"w{k}" for k in range(12)]
ManyParameters: Any = NamedTuple("ManyParameters", [(name, Tensor) for name in WEIGHTS])  # type: ignore[misc]


def many_step(input, state: OwnState, p=None, dt=0.001):
    v = state.v
    for k, weight in enumerate(p):
        v = v * weight + input / (k + 2)
    return spike(v - 1.0, "arctan"), OwnState(v, state.w)


def test_more_than_ten_parameters_keep_their_order():
    source = generator(4)
    p = ManyParameters(*(0.9 + 0.2 * torch.rand(12, 5, generator=source, dtype=torch.float64)))
    x = torch.randn(6, 2, 5, generator=source, dtype=torch.float64)
    state = OwnState(*torch.rand(2, 2, 5, generator=source, dtype=torch.float64))
    plain = everything("reference", many_step, x, state, p)
    for ours, theirs in zip(everything("cpu", many_step, x, state, p), plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def random_step(input, state: OwnState, p=OwnParameters(), dt=0.001):
    v = state.v + input * torch.rand_like(input)
    return spike(v - 1.0), OwnState(v, state.w)


def test_what_cannot_be_fused_runs_in_the_plain_loop_with_one_warning():
    x = torch.ones(3, 2, 2)
    with pytest.warns(UserWarning, match=r"random_step runs in the plain loop.*rand_like"):
        scan(random_step, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan(random_step, x)
    with pytest.raises(UntraceableError, match="random_step cannot be fused"):
        scan(random_step, x, backend="cpu")


def test_nan_and_infinity_travel_as_in_the_reference():
    x = torch.randn(12, 2, 6, generator=generator(0))
    x[4, 0, 0], x[5, 1, 2], x[6, 0, 3], x[7, 1, 4] = float("nan"), float("inf"), -float("inf"), 1e30
    for step, p in ((lif_feed_forward_step, LIFParameters()), (lsnn_feed_forward_step, LSNNParameters())):
        fused, plain = (scan(step, x, None, p, backend=backend) for backend in ("cpu", "reference"))
        torch.testing.assert_close(fused, plain, rtol=0, atol=0, equal_nan=True)


def test_half_precision_input_is_integrated_in_float32():
    x = torch.randn(30, 2, 5, generator=generator(0)).bfloat16() * 3
    fused, state = scan(lif_feed_forward_step, x, backend="cpu")
    plain, _ = scan(lif_feed_forward_step, x, backend="reference")
    assert fused.dtype == torch.bfloat16
    assert state.v.dtype == torch.float32
    assert torch.equal(fused, plain)


def test_torch_compile_without_a_graph_break():
    layer = LIF(LIFParameters(method="arctan", tau_mem_inv=torch.nn.Parameter(torch.tensor(100.0))))
    x = 3 * torch.randn(15, 2, 5, generator=generator(0))
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
    assert float(results[0][0].sum()) > 0
    torch.testing.assert_close(results[0], results[1])


def test_torch_func_grad_takes_the_plain_loop():
    x = 3 * torch.randn(15, 2, 5, generator=generator(0))
    p = LIFParameters(method="arctan")
    got = torch.func.grad(lambda a: scan(lif_feed_forward_step, a, None, p)[0].sum())(x)
    x.requires_grad_()
    scan(lif_feed_forward_step, x, None, p)[0].sum().backward()
    torch.testing.assert_close(got, x.grad)


def test_several_python_threads_at_once():
    """Each with its own numbers, while torch's threads are at work too."""
    torch.set_num_threads(2)
    x = torch.randn(40, 4, 3000, generator=generator(0))
    wanted = [scan(lif_feed_forward_step, k * x, backend="reference")[0] for k in range(4)]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(5):
            if not torch.equal(scan(lif_feed_forward_step, k * x, backend="cpu")[0], wanted[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.set_num_threads(1)
    assert wrong == []


def test_a_forked_process_has_threads_of_its_own():
    """Torch's own threads do not survive a fork, so the child does no arithmetic with torch here."""
    from snnlib.engine.cpu import _in_threads

    torch.set_num_threads(2)
    done: list[tuple[int, int]] = []
    _in_threads(lambda start, stop: done.append((start, stop)), 100, 3000, 64)
    assert len(done) == 2
    child = os.fork()
    if child == 0:
        _in_threads(lambda start, stop: done.append((start, stop)), 100, 3000, 64)
        os._exit(0 if len(done) == 4 else 1)
    torch.set_num_threads(1)
    deadline = time.monotonic() + 30
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.05)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended, "the child hangs"
    assert os.waitstatus_to_exitcode(status) == 0


def test_gradients_of_gradients_are_refused_and_the_reference_has_them():
    x = torch.randn(5, 2, 3, generator=generator(0)).requires_grad_()
    p = LIFParameters(method="arctan")
    for backend in ("reference", "cpu"):
        output, _ = scan(lif_feed_forward_step, x, None, p, backend=backend)
        (gradient,) = torch.autograd.grad(output.sum(), x, create_graph=True)
        if backend == "reference":
            assert float(torch.autograd.grad(gradient.square().sum(), x)[0].abs().sum()) > 0
        else:
            with pytest.raises(RuntimeError, match="fused_backward"):
                torch.autograd.grad(gradient.square().sum(), x)


@pytest.mark.parametrize("home", ["missing", "a file"])
def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, home: str):
    if home == "a file":
        (tmp_path / "cache").write_text("in the way")
    place = tmp_path / "cache" if home == "a file" else "/proc/nowhere"
    code = "import torch, snnlib; print(float(snnlib.LIF()(torch.full((50, 1, 3), 2.0))[0].sum()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XDG_CACHE_HOME": str(place)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
