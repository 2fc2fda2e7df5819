"""What is written to NIR and read again gives the same spikes, bit for bit."""

import subprocess
import sys
from collections import OrderedDict
from fractions import Fraction

import nir
import numpy as np
import pytest
import torch
from torch import nn

from snnlib import (
    IAF,
    LIF,
    IAFParameters,
    Layer,
    LIFCell,
    LIFParameters,
    LIFRecurrent,
    Lift,
    RecurrentLayer,
    SequentialState,
    from_nir,
    lif_feed_forward_step,
    spike,
    to_nir,
)
from tests.exchange.nets import LIF_P, NETS, M, N, chain, conv_net, plain, run, spikes


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def through_a_file(graph: nir.NIRGraph, folder) -> SequentialState:
    nir.write(folder / "net.nir", graph)
    return from_nir(nir.read(folder / "net.nir"))


@pytest.mark.parametrize("name", NETS)
def test_round_trip(name, tmp_path):
    net, x = NETS[name](), spikes(M)
    graph = to_nir(net, x)
    wanted = run(net, x)
    assert wanted.std() > 0.1  # neither silent nor saturated
    assert torch.equal(run(from_nir(graph), x), wanted)
    assert torch.equal(run(through_a_file(graph, tmp_path), x), wanted)
    assert torch.equal(run(from_nir(tmp_path / "net.nir"), x), wanted)


def test_round_trip_of_maps(tmp_path):
    net, x = conv_net(), spikes(2, 8, 8)
    wanted = run(net, x)
    assert wanted.std() > 0.1
    nir.write(tmp_path / "net.nir", to_nir(net, x))
    assert torch.equal(run(from_nir(tmp_path / "net.nir"), x), wanted)


def test_round_trip_in_fused_loops():
    net, x = SequentialState(nn.Linear(M, N), LIF(LIF_P), LIFRecurrent(N, N, LIF_P)), spikes(M)
    read = from_nir(to_nir(net, x))
    assert isinstance(read[-1], LIFRecurrent)
    assert torch.equal(read(x)[0], net(x)[0])


def test_round_trip_in_float64():
    net, x = NETS["several"]().double(), spikes(M, dtype=torch.float64)
    read = from_nir(to_nir(net, x), dtype=torch.float64)
    assert all(p.dtype == torch.float64 for p in read.parameters())
    assert torch.allclose(run(read, x), run(net, x), rtol=0, atol=1e-12)


def test_numbers_come_back_as_they_were():
    p = LIFParameters(
        tau_syn_inv=98.0, tau_mem_inv=107.3, v_leak=0.1, v_th=0.7, v_reset=-0.3, method="arctan", alpha=3.0
    )
    net = chain(LIF(p._replace(detach_reset=False), dt=7e-4))
    layer = from_nir(to_nir(net, spikes(M)))[-1]
    assert layer.p == p._replace(detach_reset=False)
    assert layer.dt == 7e-4
    assert type(layer) is LIF


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, Fraction])
def test_numbers_of_every_kind_are_written(kind):
    p = {"v_th": 3, "v_reset": -2}
    for layer, wanted in (IAF, IAFParameters(**p)), (LIF, LIFParameters(98, 95, **p)):
        given = wanted._replace(**{name: kind(x) for name, x in wanted._asdict().items() if type(x) is int})
        read = from_nir(to_nir(chain(layer(given)), spikes(M)))[-1].p
        assert read == wanted
        assert type(read.v_th) is type(read.v_reset) is float


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("alpha", "wanted"),
    [
        (np.float32(7.5), 7.5),
        (np.int64(7), 7.0),
        (torch.tensor(7.5), torch.full((N,), 7.5)),
        (nn.Parameter(torch.tensor([7.5])), torch.full((N,), 7.5)),
        (torch.linspace(5.0, 9.0, N), torch.linspace(5.0, 9.0, N)),
    ],
    ids=["float32", "int64", "tensor", "Parameter", "several"],
)
def test_the_surrogates_alpha_comes_back(alpha, wanted, fused, tmp_path):
    net, x = chain(LIF(LIF_P._replace(alpha=alpha))), spikes(M)
    read = through_a_file(to_nir(net, x), tmp_path)
    assert type(read[-1].p.alpha) is type(wanted)
    torch.testing.assert_close(read[-1].p.alpha, wanted, rtol=0, atol=0)
    read = read if fused else plain(read)
    gradients = [torch.autograd.grad(given(x)[0].sum(), given[0].weight)[0] for given in (net, read)]
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0])


def test_what_stands_beside_a_function_as_method_comes_back():
    p = LIFParameters(method=lambda x, alpha: spike(x, "tanh", alpha), alpha=3.0, detach_reset=False)
    read = from_nir(to_nir(chain(LIF(p)), spikes(M)))[-1]
    assert read.p == p._replace(method="super")


def test_a_second_round_trip_changes_nothing():
    x = spikes(M)
    first = to_nir(NETS["several"](), x)
    second = to_nir(from_nir(first), x)
    assert list(first.nodes) == list(second.nodes)
    for name, node in first.nodes.items():
        for field, value in vars(node).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(value, vars(second.nodes[name])[field], rtol=1e-14)


def test_recurrent_weights_without_effect_are_not_written():
    layer, x = plain(LIFRecurrent(M, N, LIF_P)), spikes(M)
    with torch.no_grad():
        layer.recurrent_weights.fill_diagonal_(1.0)
    assert torch.equal(run(from_nir(to_nir(layer, x)), x), run(layer, x))


def test_a_recurrent_bias_acts_beside_the_input_weights():
    layer, x = LIFRecurrent(M, N, LIF_P), spikes(M)
    graph = to_nir(layer, x)
    inner = next(node for node in graph.nodes.values() if isinstance(node, nir.NIRGraph))
    inner.nodes["w_rec"] = nir.Affine(inner.nodes["w_rec"].weight, np.full(N, 0.05, np.float32))
    net = SequentialState(nn.Linear(M, N), LIFRecurrent(None, N, LIF_P))
    with torch.no_grad():
        net[0].weight.copy_(layer.input_weights)
        net[0].bias.fill_(0.05)
        net[1].recurrent_weights.copy_(layer.recurrent_weights)
    assert torch.equal(run(from_nir(graph), x), run(net, x))
    assert not torch.equal(run(net, x), run(layer, x))


def test_a_gain_that_is_almost_one_is_not_one():
    node = nir.LIF(*(np.array([value]) for value in (0.01, 1.005, 0.0, 1.0)))
    assert from_nir(nir.NIRGraph.from_list(node), dt=0.001)[0].p.v_th == pytest.approx(1 / 1.005, rel=1e-12)


def test_an_edge_that_is_named_twice_is_one():
    graph = to_nir(LIF(), torch.zeros(1, 1, N))
    graph.edges = [*graph.edges, *graph.edges]
    assert type(from_nir(graph)[0]) is LIF


@pytest.mark.parametrize(
    "model",
    [
        LIF(LIF_P),
        Layer(lif_feed_forward_step, LIF_P),
        RecurrentLayer(lif_feed_forward_step, M, N, LIF_P),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_single_module_is_a_model(model):
    x = spikes(M)
    assert torch.equal(from_nir(to_nir(model, x))(x)[0], model(x)[0])


def test_modules_without_time_take_single_steps():
    model, x = nn.Sequential(nn.Linear(M, N), nn.Linear(N, 2)), torch.randn(5, M)
    assert torch.equal(from_nir(to_nir(model, x))(x)[0], model(x))


def test_cells_become_layers():
    x = spikes(M)
    cells = SequentialState(nn.Linear(M, N), LIFCell(LIF_P))
    wanted = run(Lift(cells), x)
    assert torch.equal(run(from_nir(to_nir(cells, x[0])), x), wanted)
    assert torch.equal(run(from_nir(to_nir(Lift(cells), x)), x), wanted)


def test_equations_and_units():
    p = LIFParameters(tau_syn_inv=200.0, tau_mem_inv=100.0, v_leak=0.25, v_th=1.0, v_reset=-0.5)
    graph = to_nir(SequentialState(nn.Linear(M, 2), LIF(p)), spikes(M))
    node = graph.nodes["lif_1"]
    assert isinstance(node, nir.CubaLIF)
    wanted = {
        "tau_syn": 0.005,
        "tau_mem": 0.01,
        "r": 10,
        "w_in": 5,
        "v_leak": 2.5,
        "v_threshold": 10,
        "v_reset": -5,
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(getattr(node, name), [value, value], rtol=1e-14)
    assert graph.metadata == {"dt": 0.001}
    assert [type(node).__name__ for node in graph.nodes.values()] == ["Input", "Affine", "CubaLIF", "Output"]


def by_hand(node: nir.NIRNode, x: torch.Tensor, dt: float) -> torch.Tensor:
    """NIR's equations, the current first, by Euler steps in float64."""
    current, v, out = np.zeros(N), node.v_leak.copy(), []
    for s in x[:, 0].double().numpy():
        current = current + dt / node.tau_syn * (node.w_in * s - current)
        v = v + dt / node.tau_mem * (node.v_leak - v + node.r * current)
        out.append((v > node.v_threshold).astype(float) if hasattr(node, "v_threshold") else v)
        if hasattr(node, "v_threshold"):
            v = np.where(v > node.v_threshold, node.v_reset, v)
    return torch.tensor(np.array(out))


@pytest.mark.parametrize("kind", [nir.CubaLI, nir.CubaLIF])
def test_any_resistance_and_weight_is_read(kind):
    draw = lambda low, high: values64(low, high)  # noqa: E731
    given = {"tau_syn": draw(3e-3, 9e-3), "tau_mem": draw(5e-3, 2e-2), "r": draw(0.5, 3), "w_in": draw(1, 9)}
    given["v_leak"] = draw(-0.1, 0.1)
    if kind is nir.CubaLIF:
        given |= {"v_threshold": draw(0.3, 0.6), "v_reset": draw(-0.2, 0.1)}
    node = kind(**given)
    x = spikes(N, dtype=torch.float64)
    read = from_nir(nir.NIRGraph.from_list(node), dt=0.001, dtype=torch.float64)
    wanted = by_hand(node, x, 0.001)
    assert wanted.abs().mean() > 0.02
    assert torch.allclose(run(read, x)[:, 0], wanted, rtol=0, atol=1e-12)


def values64(low: float, high: float) -> np.ndarray:
    return low + (high - low) * torch.rand(N, dtype=torch.float64).numpy()


def test_another_time_step_integrates_the_same_equations():
    net = SequentialState(LIF(LIFParameters(v_th=1e9), dt=1e-3))
    x = torch.ones(40, 1, N)  # a current that lasts
    graph = to_nir(net, x)
    _, (coarse,) = net(x)
    _, (fine,) = from_nir(graph, dt=1e-4)(torch.ones(400, 1, N))
    # voltages are in units of one step's input, which is a tenth of what it was
    assert torch.allclose(coarse.v, fine.v / 10, rtol=0.01)


def test_importing_snnlib_imports_no_nir():
    code = "import sys, snnlib; assert snnlib.to_nir and snnlib.from_nir; sys.exit('nir' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_missing_nir_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(ImportError, match=r"pip install 'snnlib\[nir\]'"):
        from_nir("net.nir")
    with pytest.raises(ImportError, match=r"pip install 'snnlib\[nir\]'"):
        to_nir(LIF(), torch.zeros(1, 1, 1))


def test_names_of_modules_are_kept():
    block = nn.Sequential(OrderedDict(fc=nn.Linear(N, 15), none=nn.Identity(), fc2=nn.Linear(15, N)))
    net = SequentialState(
        OrderedDict(
            fc=nn.Linear(M, N),
            lif=Lift(LIFCell(LIF_P)),
            block=block,
            rec=LIFRecurrent(N, N, LIF_P),
            rec_in=LIFRecurrent(None, N, LIF_P),
            output=SequentialState(nn.Linear(N, 3), LIF(LIF_P)),
        )
    )
    x = spikes(M)
    names = ["fc", "lif", "block_fc", "block_fc2", "rec_in", "rec", "rec_in_", "output_0", "output_1"]
    graph = to_nir(net, x)
    assert list(graph.nodes) == ["input", *names, "output"]
    read = from_nir(graph)
    modules = [name for name, _ in read.named_children()]
    assert modules == ["fc", "lif", "block_fc", "block_fc2", "rec", "rec_in_", "output_0", "output_1"]
    assert torch.equal(read(x)[0], net(x)[0])
    assert list(to_nir(read, x).nodes) == [*graph.nodes]
    only = to_nir(SequentialState(OrderedDict(output=nn.Linear(M, 3))), x[0])
    assert list(only.nodes) == ["input", "output_", "output"]
