"""What docs/porting.md calls equal in snnTorch and SpikingJelly is so; runs where they are installed."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from snnlib import IAF, LIF, LIBox, LIBoxParameters, LIFBox, LIFBoxParameters, LIFParameters, spike

PAGE = (Path(__file__).parents[1] / "docs" / "porting.md").read_text()
T, B, N = 100, 4, 20


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """All names that the blocks of the page make."""
    names: dict[str, Any] = {"__name__": "porting"}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "porting", "exec"), names)
    return names


@pytest.fixture
def snn() -> Any:
    return pytest.importorskip("snntorch", reason="snnTorch is not installed: pip install snntorch")


@pytest.fixture
def jelly() -> Any:
    reason = "SpikingJelly is not installed: pip install spikingjelly"
    for name in ("neuron", "surrogate"):
        pytest.importorskip(f"spikingjelly.activation_based.{name}", reason=reason)
    return sys.modules["spikingjelly.activation_based"]


def drawn(scale: float) -> Tensor:
    return scale * torch.rand(T, B, N, generator=torch.Generator().manual_seed(0))


def differ(ours: Any, theirs: Any, x: Tensor, gain: float = 1.0) -> None:
    """Fail if spikes or gradients differ in more than membranes within rounding of their threshold explain."""
    found = []
    for run in (lambda value: ours(gain * value)[0], theirs):
        value = x.clone().requires_grad_()
        output = run(value)
        (output * torch.linspace(-1.0, 1.0, N)).sum().backward()
        found.append((output.detach(), value.grad))
    (z, dz), (wanted, dwanted) = found
    assert 0.02 < float(wanted.mean()) < 0.98
    assert float((z - wanted).abs().mean()) < 2e-3
    assert float((dz - dwanted).abs().mean()) < 5e-3 * float(dwanted.abs().mean())


def looped(neuron: Any, count: int = 1) -> Any:
    """snnTorch's neuron over a sequence: its spikes, or its membranes where it has no reset."""

    def run(x: Tensor) -> Tensor:
        state, outputs = [torch.zeros(B, N) for _ in range(count)], []
        for step in x:
            z, *state = neuron(step, *state)
            outputs.append(state[-1] if neuron.reset_mechanism == "none" else z)
        return torch.stack(outputs)

    return run


AT_ONCE = {"reset_mechanism": "zero", "reset_delay": False}


def test_leaky(page: dict[str, Any], snn: Any):
    beta = page["beta"]
    differ(page["leaky_to_zero"], looped(snn.Leaky(beta, **AT_ONCE)), drawn(0.3), 1 / (1 - beta))
    readout = LIBox(LIBoxParameters(tau_mem_inv=(1 - beta) / 0.001))
    differ(readout, looped(snn.Leaky(beta, reset_mechanism="none")), drawn(0.1), 1 / (1 - beta))


def test_synaptic(page: dict[str, Any], snn: Any):
    alpha, beta = page["alpha"], page["beta"]
    differ(page["synaptic"], looped(snn.Synaptic(alpha, beta, **AT_ONCE), 2), drawn(0.1), 1 / (1 - beta))


def test_leaky_that_subtracts_and_learns(page: dict[str, Any], snn: Any):
    theirs = snn.Leaky(torch.full((N,), 0.9), learn_beta=True)
    differ(page["leaky"], looped(theirs), drawn(0.5))
    ours = page["leaky"].beta.grad
    assert float((ours - theirs.beta.grad).abs().mean()) < 5e-3 * float(ours.abs().mean())


@pytest.mark.parametrize("options", [{}, {"decay_input": False}], ids=str)
def test_lif_node(options: dict[str, bool], page: dict[str, Any], jelly: Any):
    node = jelly.neuron.LIFNode(tau=2.0, detach_reset=True, step_mode="m", **options)
    gain = 2.0 if options else 1.0
    differ(page["lif_node"], node, drawn(2.0 / gain), gain)


def test_lif_node_that_learns(jelly: Any):
    node = jelly.neuron.ParametricLIFNode(init_tau=2.0, detach_reset=True, step_mode="m")
    rate = torch.nn.Parameter(torch.tensor(500.0))
    differ(LIFBox(LIFBoxParameters(tau_mem_inv=rate, method="sigmoid", alpha=4.0)), node, drawn(2.0))
    # 1 / tau = sigmoid(w) = rate dt
    torch.testing.assert_close(node.w.grad, rate.grad * 0.25 / 0.001, rtol=1e-2, atol=0)


def test_lif_node_that_subtracts(page: dict[str, Any], jelly: Any):
    node = jelly.neuron.LIFNode(tau=2.0, v_reset=None, detach_reset=True, step_mode="m")
    differ(page["soft"], node, drawn(2.0))


def test_if_node(jelly: Any):
    node = jelly.neuron.IFNode(detach_reset=True, step_mode="m")
    layer = IAF()
    layer.p = layer.p._replace(method="sigmoid", alpha=4.0)
    differ(layer, node, drawn(0.4))


SURROGATES = [
    ("snn", "atan", {"alpha": 2.0}, "arctan", 2.0),
    ("snn", "fast_sigmoid", {"slope": 25}, "super", 25.0),
    ("snn", "sigmoid", {"slope": 25}, "sigmoid", 25.0),
    ("jelly", "ATan", {"alpha": 2.0}, "arctan", 2.0),
    ("jelly", "Sigmoid", {"alpha": 4.0}, "sigmoid", 4.0),
    ("jelly", "PiecewiseQuadratic", {"alpha": 1.0}, "triangle", 1.0),
    ("jelly", "Erf", {"alpha": 2.0}, "heavi_erfc", 2.0),
]


def made(library: str, name: str, options: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    peer = request.getfixturevalue(library)
    row = f"`{name}({', '.join(f'{key}={value}' for key, value in options.items())})`"
    assert row in PAGE
    return getattr(peer.surrogate, name)(**options)


@pytest.mark.parametrize(("library", "name", "options", "method", "alpha"), SURROGATES)
def test_surrogates(
    library: str, name: str, options: dict[str, Any], method: str, alpha: float, request: pytest.FixtureRequest
):
    theirs = made(library, name, options, request)
    assert f'`method="{method}"' in PAGE
    x = torch.linspace(-1.5, 1.5, 301)[1:-1:2]
    gradients = []
    for function in (theirs, lambda value: spike(value, method, alpha)):
        value = x.clone().requires_grad_()
        function(value).sum().backward()
        gradients.append(value.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("library", "name", "options", "method", "alpha"), [SURROGATES[1], SURROGATES[3]])
def test_a_surrogate_of_theirs_runs_fused(
    library: str,
    name: str,
    options: dict[str, Any],
    method: str,
    alpha: float,
    request: pytest.FixtureRequest,
    recwarn: pytest.WarningsRecorder,
):
    theirs = made(library, name, options, request)
    gradients = []
    recwarn.clear()
    for p in (LIFParameters(method=lambda x, alpha: theirs(x)), LIFParameters(method=method, alpha=alpha)):
        x = drawn(2.0).requires_grad_()
        LIF(p, backend="auto")(x)[0].sum().backward()
        gradients.append(x.grad)
    assert not [w for w in recwarn if "plain loop" in str(w.message)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
