"""The GPU's kernels: what they refuse, recurrent layers in both forms, and machine code for a Hopper GPU.

What they compute is compared with the reference in test_fused*.py: on a GPU, or in Triton's interpreter.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest
import torch

from snnlib import LIF, LIFParameters, LIFRecurrent, lif_feed_forward_step
from snnlib.engine import fused, kernel, scan, source
from snnlib.engine.plan import multiprocessors
from snnlib.engine.step import UntraceableError
from tests.engine.equality import (
    assert_equal,
    device_of,
    everything,
    lif_case,
    moved,
    needs_triton,
    recurrent_case,
)
from tests.neurons import NEURONS, Neuron, draw_input, draw_parameters, draw_state, generator, name_of, same

pytestmark = [needs_triton, pytest.mark.usefixtures("poisoned_memory")]


@pytest.fixture
def nothing_compiled():
    """What cannot be fused is remembered with its reason: not here."""
    fused._compiled.cache_clear()
    yield
    fused._compiled.cache_clear()


@pytest.mark.filterwarnings("ignore:.*plain loop")
@pytest.mark.usefixtures("nothing_compiled")
def test_tensors_on_the_cpu_need_the_interpreter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UntraceableError, match=r"takes tensors on CUDA, and the input is on cpu; move it"):
        scan(lif_feed_forward_step, torch.ones(3, 2, 2), backend="gpu")


@pytest.mark.filterwarnings("ignore:.*plain loop")
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_tensors_elsewhere_are_refused_where_a_backend_is_named(backend: str):
    x = torch.ones(3, 2, 2, device="meta")
    with pytest.raises(UntraceableError, match=r"and the input is on meta; move it"):
        scan(lif_feed_forward_step, x, backend=backend)
    assert scan(lif_feed_forward_step, x)[0].shape == x.shape


@pytest.mark.filterwarnings("ignore:.*plain loop")
@pytest.mark.usefixtures("nothing_compiled")
def test_without_triton_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UntraceableError, match="Triton, which is not installed"):
        scan(lif_feed_forward_step, torch.ones(3, 2, 2), backend="gpu")


@pytest.mark.usefixtures("nothing_compiled")
def test_what_a_backend_refuses_to_build_runs_in_the_plain_loop(monkeypatch: pytest.MonkeyPatch):
    from snnlib.engine import cpu

    def build(*_):
        raise UntraceableError("not today")

    monkeypatch.setattr(cpu, "build", build)
    monkeypatch.setattr(kernel, "KERNELS", {})
    x = torch.ones(3, 2, 2)
    with pytest.warns(UserWarning, match="runs in the plain loop, it cannot be fused: not today"):
        output, _ = scan(lif_feed_forward_step, x)
    assert torch.equal(output, scan(lif_feed_forward_step, x, backend="reference")[0])


def test_the_source_can_be_read():
    text = source(lif_feed_forward_step, LIFParameters(), backend="gpu", recurrent=True)
    names = re.findall(r"^def (\w+)", text, flags=re.MULTILINE)
    assert names == ["F", "_forward", "forward", "forward_shared", "_backward", "backward", "backward_shared"]
    with pytest.raises(ValueError, match="got 'tpu'"):
        source(lif_feed_forward_step, backend="tpu")


@pytest.mark.parametrize(
    "shape",
    [(30, 2, 3), (12, 3, 20), (6, 2, 128), (6, 2, 130), (4, 9, 150), (3, 9, 300), (3, 2, 800)],
    ids=str,
)
def test_recurrent_spikes_in_float32(shape: tuple[int, ...]):
    """The sums over weights go in another order than the reference's: no spike is so near to the threshold."""
    neuron, *values = recurrent_case(shape, torch.float32)
    x, state, weights = (moved(value, device_of("gpu")) for value in values)
    output = assert_equal("gpu", neuron, x, state, LIFParameters(), recurrent_weights=weights)[0]
    assert 0 < float(output.detach().mean()) < 1
    options = {"recurrent_weights": weights, "backend": "reference"}
    plain, _ = scan(neuron.step, x, state, LIFParameters(), **options)
    assert int((plain != output).sum()) == 0


def test_recurrent_layers_of_many_samples():
    """Where the weights do not fit into one program, several share the neurons of 8 samples at most."""
    neuron, x, state, weights = recurrent_case((3, 17, 130), torch.float64)
    p = draw_parameters(neuron, generator(3), (130,))
    assert_equal("gpu", neuron, x, state, p, recurrent_weights=weights)


@pytest.mark.parametrize("neuron", [n for n in NEURONS if n.name in ("lif", "lsnn", "lif_refrac")], ids=name_of)
@pytest.mark.parametrize("each", [1, 600, 1030], ids="{} on a multiprocessor".format)
def test_few_and_many_neurons(neuron: Neuron, each: int):
    """For each number of neurons there is a form of kernel: how many a thread takes, how early it reads.

    Among so many some adjoint is divided by a slope near zero, where float32 knows only its first digits.
    """
    source, size = generator(5), each * multiprocessors(torch.device(device_of("gpu"))) + 7
    values = draw_input(neuron, source, (19, 1, size), torch.float32), draw_state(neuron, source, (1, size))
    x, state = (moved(value, device_of("gpu")) for value in values)
    for method in ("super", "adjoint"):
        p = neuron.parameters(method=method)
        found, wanted = (everything(backend, neuron.step, x, state, p) for backend in ("gpu", "reference"))
        assert 0 < float(found[0].detach().mean()) < 1
        assert torch.equal(found[0], wanted[0])
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.detach().abs().max()))
            assert float((ours - theirs).detach().norm()) <= 1e-4 * float(theirs.detach().norm())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: graphs are CUDA's")
@pytest.mark.parametrize("layer", [
    LIF(), LIF(LIFParameters(method="adjoint")), LIFRecurrent(16, 16), LIFRecurrent(16, 300),
], ids=["lif", "adjoint", "recurrent", "recurrent, shared"])  # fmt: skip
def test_a_captured_graph_gives_the_same(layer: torch.nn.Module):
    torch.manual_seed(0)
    layer, x = layer.cuda(), 3 * (torch.rand(20, 4, 16, device="cuda") < 0.3).float()
    weight = torch.randn(20, 4, 1, device="cuda")

    def step(x: torch.Tensor) -> list[torch.Tensor]:
        leaf = x.detach().requires_grad_()
        output = layer(leaf)[0]
        return [output, *torch.autograd.grad((weight * output).sum(), (leaf, *layer.parameters()))]

    wanted = step(x)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(x)
    torch.cuda.current_stream().wait_stream(side)
    graph, still = torch.cuda.CUDAGraph(), torch.zeros_like(x)
    with torch.cuda.graph(graph):
        found = step(still)
    still.copy_(x)
    for _ in range(2):
        graph.replay()
        assert torch.equal(found[0], wanted[0])
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.detach().abs().max()))
    assert float(wanted[0].detach().sum()) > 0


def test_a_constant_input_into_recurrent_weights():
    neuron, *values = recurrent_case((9, 2, 5), torch.float64)
    x, state, weights = (moved(value, device_of("gpu")) for value in values)
    still = x[:1].expand(9, 2, 5)
    got, wanted = (
        scan(neuron.step, still, state, LIFParameters(), recurrent_weights=weights, backend=backend)[0]
        for backend in ("gpu", "reference")
    )
    assert torch.equal(got, wanted)


def test_kernels_compile_for_a_hopper_gpu():
    """Down to machine code. No product is joined with a sum, but within exp and in products of matrices."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.hopper"],
        env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    joined = json.loads(done.stdout)
    assert len(joined) == 26
    for name in ("forward", "forward, large", "forward with bits", "forward with slots", "forward recurrent"):
        assert joined[name] == joined[name.replace("forward", "backward")] == 0
    assert joined["forward with exp"] > 0


def test_gradients_that_are_given_stay_as_they_are():
    neuron, *values = recurrent_case((3, 2, 800), torch.float32)
    x, state, weights = (moved(value, device_of("gpu")) for value in values)
    z, last = scan(neuron.step, x, state, recurrent_weights=weights.requires_grad_(), backend="gpu")
    given = [torch.randn(value.shape, generator=generator(k)).to(x) for k, value in enumerate((z, *last))]
    before = [value.clone() for value in given]
    torch.autograd.grad((z, *last), weights, given)
    assert all(map(torch.equal, given, before))


def test_shared_neurons_begin_at_rest():
    """What is one number before the first step is one of each neuron after it."""
    neuron, *values = recurrent_case((5, 2, 130), torch.float64)
    x, _, weights = (moved(value, device_of("gpu")) for value in values)
    options = {"p": LIFParameters(v_th=0.3), "recurrent_weights": weights}
    (z, state), wanted = (scan(neuron.step, x, backend=backend, **options) for backend in ("gpu", "reference"))
    assert 0 < float(z.mean()) < 1
    same((z, state), wanted, rtol=1e-9, atol=1e-9)


def test_a_parameter_of_each_sample():
    """One number for all neurons of a sample is more than one number."""
    neuron, x, state = lif_case((9, 3, 6), backend="gpu")
    p = LIFParameters(v_th=torch.tensor([[0.3], [0.7], [1.1]]).to(x).expand(3, 6))
    found, wanted = (scan(neuron.step, x, state, p, backend=backend)[0] for backend in ("gpu", "reference"))
    assert torch.equal(found, wanted)
    assert found.any()
