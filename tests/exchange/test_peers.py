"""Graphs of snnlib run in other libraries with the same spikes, and theirs run here.

Where they compute something else than NIR or than snnlib, ``docs/nir.md`` says so, and the last tests show it.
"""

import logging

import nir
import pytest
import torch
from torch import Tensor, nn

from snnlib import (
    IAF,
    LIF,
    LIFBox,
    LIFBoxParameters,
    LIFParameters,
    LIFRecurrent,
    RecurrentLayer,
    SequentialState,
    from_nir,
    lif_box_feed_forward_step,
    to_nir,
)
from tests.exchange.nets import M, N, plain, run, spikes

DT = 1e-4  # the one time step of snnTorch

LIF_P = LIFParameters(tau_syn_inv=2000.0, tau_mem_inv=1000.0, v_th=0.12)
BOX_P = LIFBoxParameters(tau_mem_inv=1000.0, v_th=0.03)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def over_time(module: nn.Module, x: Tensor) -> Tensor:
    """Spikes of a module that takes single steps, and returns its state unless it keeps it."""
    state, out = None, []
    with torch.no_grad():
        for step in x:
            result = module(step) if state is None else module(step, state)
            z, state = result if isinstance(result, tuple) else (result, None)
            out.append(z)
    return torch.stack(out)


def in_snntorch(graph: nir.NIRGraph) -> nn.Module:
    pytest.importorskip("snntorch", reason="snnTorch is not installed: pip install -e '.[dev]'")
    from snntorch.import_nir import import_from_nir

    return import_from_nir(graph)


def in_norse(graph: nir.NIRGraph) -> nn.Module:
    norse = pytest.importorskip("norse.torch", reason="Norse is not installed: pip install 'norse==1.1.*'")
    return norse.from_nir(graph, dt=DT)


def in_spikingjelly(graph: nir.NIRGraph) -> nn.Module:
    pytest.importorskip("spikingjelly", reason="SpikingJelly is not installed: pip install spikingjelly")
    from spikingjelly.activation_based.nir_exchange.from_nir import import_from_nir

    return import_from_nir(graph, dt=DT)


PEERS = {"snnTorch": in_snntorch, "Norse": in_norse, "SpikingJelly": in_spikingjelly}

NETS = {
    "LIF": lambda: SequentialState(nn.Linear(M, N), LIF(LIF_P, DT)),
    "LIFBox": lambda: SequentialState(nn.Linear(M, N), LIFBox(BOX_P, DT)),
    "IAF": lambda: SequentialState(nn.Linear(M, N), IAF(dt=DT)),
    "several": lambda: SequentialState(
        nn.Linear(M, N), LIF(LIF_P, DT), nn.Linear(N, 9, bias=False), LIFBox(BOX_P, DT)
    ),
    "LIFRecurrent": lambda: SequentialState(LIFRecurrent(M, N, LIF_P, DT)),
    "LIFBox, recurrent": lambda: SequentialState(
        nn.Linear(M, N), RecurrentLayer(lif_box_feed_forward_step, None, N, BOX_P, DT)
    ),
}

# snnTorch asks for r = 1 of IF, where one step then adds dt, and takes a leaky neuron for it
WRITTEN = [(net, peer) for net in NETS for peer in PEERS if (net, peer) != ("IAF", "snnTorch")]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize(("name", "peer"), WRITTEN)
def test_our_graphs_run_there(name, peer, caplog):
    caplog.set_level(logging.ERROR)
    net, x = plain(NETS[name]()), spikes(M)
    there = PEERS[peer](to_nir(net, x))
    wanted = run(net, x)
    assert wanted.std() > 0.1
    assert torch.equal(over_time(there, x), wanted)


def maps(pool: nn.Module) -> SequentialState:
    layers = (nn.Conv2d(1, 3, 3, padding=1), LIF(LIF_P, DT), pool, nn.Flatten(), nn.Linear(48, 9))
    return plain(SequentialState(*layers, LIFBox(BOX_P, DT)))


@pytest.mark.parametrize(
    ("peer", "pool", "batched"),
    [
        ("snnTorch", nn.AvgPool2d(2), False),  # flattens the batch, too
        ("Norse", nn.AvgPool2d(2, divisor_override=1), False),  # flattens the batch, too, and has the sum alone
        ("SpikingJelly", nn.AvgPool2d(2), True),
    ],
)
def test_our_maps_run_there(peer, pool, batched):
    net, x = maps(pool), spikes(1, 8, 8)
    there = PEERS[peer](to_nir(net, x))
    wanted = run(net, x)
    assert wanted.std() > 0.1
    if batched:
        assert torch.equal(over_time(there, x), wanted)
    else:
        assert torch.equal(over_time(there, x[:, 0]).reshape(-1, 9), wanted[:, 0])


def read_from_a_file(graph: nir.NIRGraph, folder, dt: float) -> SequentialState:
    nir.write(folder / "net.nir", graph)
    return from_nir(folder / "net.nir", dt=dt)


def shared(value: float) -> Tensor:
    return torch.full((N,), value)


RESET = {"reset_mechanism": "zero", "reset_delay": False, "init_hidden": True}


def snntorch_net(name: str, **options) -> nn.Module:
    snn = pytest.importorskip("snntorch", reason="snnTorch is not installed: pip install -e '.[dev]'")
    neurons = {
        "Leaky": lambda: snn.Leaky(beta=shared(0.9), threshold=shared(1.0), **options),
        "Leaky, a value a neuron": lambda: snn.Leaky(
            beta=0.4 + 0.5 * torch.rand(N), threshold=0.5 + torch.rand(N), **options
        ),
        "Synaptic": lambda: snn.Synaptic(alpha=shared(0.8), beta=shared(0.9), threshold=shared(1.0), **options),
        "RLeaky": lambda: snn.RLeaky(beta=0.9, linear_features=N, **options),
        "RLeaky, one to one": lambda: snn.RLeaky(beta=0.9, all_to_all=False, V=torch.rand(N), **options),
    }
    return nn.Sequential(nn.Linear(M, N), neurons[name]())


def written_by_snntorch(net: nn.Module, x: Tensor) -> tuple[nir.NIRGraph, Tensor]:
    from snntorch.export_nir import export_to_nir

    graph = export_to_nir(net, x[0], ignore_dims=[0])
    for module in net.modules():
        if hasattr(module, "reset_mem"):
            module.reset_mem()
    return graph, over_time(net, x)


@pytest.mark.parametrize(
    "name", ["Leaky", "Leaky, a value a neuron", "Synaptic", "RLeaky", "RLeaky, one to one"]
)
def test_graphs_of_snntorch_run_here(name, tmp_path):
    x = spikes(M)
    graph, wanted = written_by_snntorch(snntorch_net(name, **RESET), x)
    assert wanted.std() > 0.1
    assert torch.equal(run(read_from_a_file(graph, tmp_path, DT), x), wanted)


def spikingjelly_net(name: str) -> nn.Module:
    pytest.importorskip("spikingjelly", reason="SpikingJelly is not installed: pip install spikingjelly")
    from spikingjelly.activation_based import layer, neuron

    neurons = {
        "IFNode": neuron.IFNode,
        "LIFNode": lambda: neuron.LIFNode(tau=3.0, v_threshold=0.1, v_reset=-0.1),
        "LIFNode, input as it is": lambda: neuron.LIFNode(tau=2.0, v_threshold=0.3, decay_input=False),
        "ParametricLIFNode": lambda: neuron.ParametricLIFNode(init_tau=2.5, v_threshold=0.1),
        "CUBALIFNode": lambda: neuron.CUBALIFNode(c_decay=0.5, v_decay=0.75, v_threshold=0.5),
    }
    if name in neurons:
        return nn.Sequential(layer.Linear(M, N), neurons[name](), layer.Linear(N, 7), neurons[name]())
    maps = (layer.Conv2d(1, 3, 3, padding=1), neurons["LIFNode, input as it is"](), layer.AvgPool2d(2))
    return nn.Sequential(*maps, layer.Flatten(), layer.Linear(48, 7), neurons["CUBALIFNode"]())


@pytest.mark.parametrize(
    "name", ["IFNode", "LIFNode", "LIFNode, input as it is", "ParametricLIFNode", "CUBALIFNode", "maps"]
)
def test_graphs_of_spikingjelly_run_here(name, tmp_path):
    net, x = spikingjelly_net(name), spikes(*((1, 8, 8) if name == "maps" else (M,)))
    from spikingjelly.activation_based.nir_exchange.to_nir import export_to_nir

    graph = export_to_nir(net, x[0], dt=0.001)
    wanted = over_time(net, x)
    assert wanted.std() > 0.1
    assert torch.equal(run(read_from_a_file(graph, tmp_path, 0.001), x), wanted)


def test_graphs_of_norse_run_here():
    """Norse writes dt / (1 / tau) for tau, and with dt=1 seconds."""
    norse = pytest.importorskip("norse.torch", reason="Norse is not installed: pip install 'norse==1.1.*'")
    p = norse.LIFBoxParameters(tau_mem_inv=shared(100.0), v_leak=shared(0.0), v_th=shared(0.1))
    net, x = norse.SequentialState(nn.Linear(M, N), norse.LIFBoxCell(p)), spikes(M)
    graph = norse.to_nir(net, x[0, 0], dt=1.0)
    wanted = over_time(net, x)
    assert wanted.std() > 0.1
    assert torch.equal(run(from_nir(graph, dt=0.001), x), wanted)


def share_that_differs(one: Tensor, other: Tensor) -> float:
    return float((one != other).float().mean())


def test_snntorch_forgets_its_resets_when_it_writes():
    x = spikes(M)
    graph, there = written_by_snntorch(snntorch_net("Leaky", init_hidden=True), x)
    assert 0.02 < share_that_differs(run(from_nir(graph, dt=DT), x), there) < 0.12


def test_spikingjelly_fires_at_the_threshold():
    """Weights of eighths meet a threshold of 1 exactly, now and then; NIR fires above it."""
    linear = nn.Linear(M, N, bias=False)
    linear.weight.data = torch.randint(-2, 6, (N, M)) / 8.0
    net, x = plain(SequentialState(linear, IAF(dt=DT))), spikes(M)
    there = over_time(in_spikingjelly(to_nir(net, x)), x)
    assert 0.05 < share_that_differs(run(net, x), there) < 0.3


@pytest.mark.parametrize("peer", ["snnTorch", "Norse"])
def test_some_reset_to_zero_whatever_the_graph_says(peer):
    net, x = plain(SequentialState(nn.Linear(M, N), LIFBox(BOX_P._replace(v_reset=-0.1), DT))), spikes(M)
    there = over_time(PEERS[peer](to_nir(net, x)), x)
    zero = plain(SequentialState(net[0], LIFBox(BOX_P, DT)))
    assert torch.equal(there, run(zero, x))
    assert share_that_differs(there, run(net, x)) > 0.05


def test_norse_lets_its_synapse_leak_to_the_resting_potential():
    net, x = plain(SequentialState(nn.Linear(M, N), LIF(LIF_P._replace(v_leak=0.01), DT))), spikes(M)
    assert share_that_differs(over_time(in_norse(to_nir(net, x)), x), run(net, x)) > 0.05
