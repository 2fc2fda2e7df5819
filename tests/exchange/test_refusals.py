"""What NIR cannot express, and graphs that are no chain, end in a sentence that names a module or a node."""

import h5py
import nir
import numpy as np
import pytest
import torch
from torch import nn

from snnlib import (
    IAF,
    LI,
    LIF,
    LSNN,
    IAFParameters,
    LIFBox,
    LIFBoxParameters,
    LIFParameters,
    LIFRecurrent,
    LIFRefrac,
    LILinearCell,
    LIParameters,
    LSNNRecurrent,
    SequentialState,
    SpikeConv2d,
    from_nir,
    to_nir,
)

N = 4


def net(*modules: nn.Module) -> SequentialState:
    return SequentialState(nn.Linear(3, N), *modules)


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (net(LSNN()), (3,), r"module 1 \(LSNN\): NIR has no node for the neuron lsnn_feed_forward_step"),
        (net(LSNNRecurrent(N, 5)), (3,), r"module 1 \(LSNNRecurrent\): .* lsnn"),
        (net(LIFRefrac()), (3,), r"module 1 \(LIFRefrac\): .* lif_refrac"),
        (net(SequentialState(nn.ReLU()), LIF()), (3,), r"module 1.0 \(ReLU\): NIR has no node for it"),
        (net(nn.Dropout(0.5), LIF()), (3,), r"module 1 \(Dropout\): .* call eval\(\) first"),
        (net(nn.BatchNorm1d(N), LIF()), (3,), r"module 1 \(BatchNorm1d\): NIR has no node"),
        (LSNN(), (3,), r"module at the top \(LSNN\)"),
        (LILinearCell(3, 2), None, r"module at the top \(LILinearCell\)"),
        (net(LIF(LIFParameters(method="logistic"))), (3,), "spikes that are drawn, got method='logistic'"),
        (
            net(LIF(LIFParameters(method=lambda x, alpha: (x > alpha).float(), alpha=-1.0))),
            (3,),
            r"module 1 \(LIF\): alpha must be a positive number, got alpha=-1.0",
        ),
        (net(LI(LIParameters(tau_mem_inv=0.0))), (3,), r"infinite, got tau_mem_inv=0.0"),
        (
            net(LIF(LIFParameters(v_th=torch.inf))),
            (3,),
            r"module 1 \(LIF\): v_threshold must be finite, got inf",
        ),
        (net(LIFBox(LIFBoxParameters(v_reset=-torch.inf))), (3,), "v_reset must be finite, got -inf"),
        (
            net(IAF(IAFParameters(v_th=torch.full((N,), torch.inf)))),
            (3,),
            "v_threshold must be finite, got inf",
        ),
        (
            net(LIFRecurrent(N, 5, LIFParameters(v_th=torch.inf))),
            (3,),
            r"module 1 \(LIFRecurrent\): v_threshold",
        ),
        (net(LI(LIParameters(v_leak=torch.inf))), (3,), r"module 1 \(LI\): v_leak must be finite"),
        (
            net(LIF(LIFParameters(v_th=torch.ones(5)))),
            (3,),
            r"module 1 \(LIF\): p.v_th must broadcast to \[1, 4\]",
        ),
        (net(LIF()), (2,), r"module 0 \(Linear\): it does not take the shape \[2\]"),
        (net(LIF()), (2, 3), r"module 0 \(Linear\): NIR has it for one dimension"),
        (net(LIF()), (), r"sample must be \[T, B, \*features\], none of them 0, got shape \[2, 1\]"),
        (SequentialState(nn.MaxPool2d(2), LIF()), (1, 4, 4), r"module 0 \(MaxPool2d\)"),
        (SequentialState(nn.AvgPool2d(2, ceil_mode=True), LIF()), (1, 5, 5), "ceil_mode"),
        (SequentialState(nn.AvgPool2d(2, divisor_override=3), LIF()), (1, 4, 4), "divisor_override=3"),
        (SequentialState(nn.LPPool2d(2, 2), LIF()), (1, 4, 4), "norm_type=2"),
        (
            SequentialState(nn.Conv2d(1, 1, 3, padding_mode="reflect"), LIF()),
            (1, 4, 4),
            "padding_mode='reflect'",
        ),
        (SequentialState(SpikeConv2d(1, 1, 3, pool=2), LIF()), (1, 6, 6), "NIR has no max pooling, got pool=2"),
        (SequentialState(nn.Flatten(0), LIF()), (1, 4, 4), r"module 0 \(Flatten\): NIR has no batch"),
    ],
)
def test_not_to_be_written(model, shape, message):
    sample = torch.zeros(1, 3) if shape is None else torch.zeros(2, 1, *shape)
    with pytest.raises(ValueError, match=message):
        to_nir(model, sample)


def test_two_time_steps_are_not_to_be_written():
    with pytest.warns(UserWarning, match="different time steps"):
        model = net(LIF(dt=0.001), LIF(dt=0.002))
    with pytest.raises(ValueError, match=r"one time step, got dt=\[0.001, 0.002\]"):
        to_nir(model, torch.zeros(2, 1, 3))


def lif(size: int = N, **other) -> nir.LIF:
    fields = {"tau": 0.01, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.0} | other
    return nir.LIF(**{name: np.full(size, value) for name, value in fields.items()})


def linear(out: int = N, given: int = N) -> nir.Linear:
    return nir.Linear(np.ones((out, given)))


def graph(*edges: str, **nodes: nir.NIRNode) -> nir.NIRGraph:
    """A graph from edges "a b", with nodes "input" and "output" of N values, and no check of its own."""
    ends = {"input": nir.Input(np.array([N])), "output": nir.Output(np.array([N]))}
    return nir.NIRGraph(ends | nodes, [tuple(edge.split()) for edge in edges], type_check=False)


def wrong(**values) -> nir.NIRGraph:
    return graph("input lif", "lif output", lif=lif(**values))


def unequal() -> nir.NIRGraph:
    given = wrong()
    given.nodes["lif"].tau = np.full(7, 0.01)
    return given


RECURRENT = ("input lif", "lif w", "w lif", "lif output")

GRAPHS = [
    (graph("input lif", lif=lif()), "node lif leads nowhere: an edge .* is missing"),
    (graph("lif output", lif=lif()), "node input leads nowhere"),
    (graph("input lif", "lif output", lif=lif(), w=linear()), r"nodes \['w'\] are not reached"),
    (graph("input lif", "lif w", lif=lif()), "the edge from lif to w needs a node w, and there is none"),
    (
        graph("input a", "a b", "b a", "b output", a=lif(), b=lif()),
        "nodes a -> b -> a are a cycle that is no recurrent",
    ),
    (graph("input lif", "lif lif", "lif output", lif=lif()), "nodes lif -> lif are a cycle"),
    (
        graph("input a", "a b", "b c", "c a", "b output", a=linear(), b=lif(), c=lif()),
        "a -> b -> c -> a are a cycle",
    ),
    (
        graph("input a", "a w", "w a", "a output", a=nir.Scale(np.ones(N)), w=linear()),
        "a -> w -> a are a cycle",
    ),
    (
        graph(*RECURRENT, "lif v", "v lif", lif=lif(), w=linear(), v=linear()),
        "one node of recurrent weights, got w and v",
    ),
    (
        graph("input a", "input b", "a output", "b output", a=lif(), b=lif()),
        r"node input leads to \['a', 'b'\]",
    ),
    (
        graph("input a", "a output", "b output", a=lif(), b=lif()),
        r"node output is led to by \['a', 'b'\]",
    ),
    (graph("input a", "a output", "a input", a=lif()), "no edge may lead to the input input, got one from a"),
    (
        graph(*RECURRENT, lif=lif(), w=linear(N, 3)),
        r"node lif \(LIF\): recurrent weights must be square, got .*4, 3",
    ),
    (
        graph(*RECURRENT, lif=lif(), w=nir.Affine(np.ones((N, N)), np.ones(N))),
        "with a bias must have a Linear or Affine before",
    ),
    (
        graph("input w", "w lif", "lif output", w=linear(5), lif=lif()),
        r"node lif \(LIF\): it takes \[4\], got shape \[5\]",
    ),
    (graph("input w", "w output", w=linear(N, 3)), r"node w \(Linear\): it does not take the shape \[4\]"),
    (
        graph("input w", "w output", w=linear(5)),
        r"node output \(Output\): it declares the shape \[4\], got \[5\]",
    ),
    (graph("input w", "w output", w=nir.Affine(np.ones((N, N)), np.ones(1))), r"node w .* bias must be \[4\]"),
    (graph("input d", "d output", d=nir.Delay(np.ones(N))), r"node d \(Delay\): it has no counterpart"),
    (graph("input d", "d output", d=nir.Threshold(np.ones(N))), r"node d \(Threshold\): it has no counterpart"),
    (graph("input d", "d output", d=nir.I(np.ones(N))), r"node d \(I\): it has no counterpart"),
    (
        graph("input a", "a output", a=lif(), input=nir.Input(None)),
        r"node input \(Input\): it must have a shape of positive sizes, got None",
    ),
    (graph("input a", "a output", a=lif(), more=nir.Input(np.array([2]))), "must have one Input, got"),
    (graph("input a", "a output", a=graph("input b", b=lif())), "node a.b leads nowhere"),
    (unequal(), r"node lif \(LIF\): all parameters must have one shape, got .*'tau': \[7\]"),
    (
        graph("input a", "a output", a=nir.AvgPool2d(*np.ones((3, 4)))),
        "node a .* one number or .height, width., got",
    ),
    (wrong(tau=0.0), r"node lif \(LIF\): tau must be positive, got 0.0"),
    (wrong(v_leak=np.nan), r"node lif \(LIF\): v_leak must be finite, got nan"),
    (wrong(r=-1.0), r"node lif \(LIF\): r and w_in must be positive where a neuron spikes, got a gain of -1.0"),
]


@pytest.mark.parametrize(("given", "message"), GRAPHS, ids=[message[:30] for _, message in GRAPHS])
def test_not_to_be_read(given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        from_nir(given, dt=0.001)
    if given.nodes["input"].input_type["input"] is None:
        return  # cannot be written
    nir.write(tmp_path / "net.nir", given)
    with pytest.raises(ValueError, match=r"node|graph|edge|cycle"):
        from_nir(tmp_path / "net.nir", dt=0.001)


@pytest.mark.parametrize("dt", [0.0, -1.0, float("nan")])
def test_time_steps_that_are_none(dt):
    with pytest.raises(ValueError, match=f"dt must be a positive number of seconds, got dt={dt}"):
        from_nir(wrong(), dt=dt)


def test_a_graph_that_does_not_say_its_time_step():
    with pytest.raises(ValueError, match="does not say its time step: give dt="):
        from_nir(wrong())


def test_what_is_no_graph(tmp_path):
    with pytest.raises(ValueError, match="must be a NIRGraph, got LIF"):
        from_nir(lif())
    with pytest.raises(FileNotFoundError):
        from_nir(tmp_path / "none.nir")
    (tmp_path / "text.nir").write_text("no graph")
    with pytest.raises(ValueError, match=r"text.nir holds no graph of NIR that can be read"):
        from_nir(tmp_path / "text.nir")


def test_a_file_whose_arrays_do_not_fit(tmp_path):
    nir.write(tmp_path / "net.nir", wrong())
    with h5py.File(tmp_path / "net.nir", "a") as file:
        del file["node/nodes/lif/tau"]
        file["node/nodes/lif/tau"] = np.ones(7)
    with pytest.raises(ValueError, match=r"net.nir holds no graph .* All parameters must have the same shape"):
        from_nir(tmp_path / "net.nir", dt=0.001)


def test_a_surrogate_that_is_unknown():
    given = wrong()
    given.nodes["lif"].metadata["method"] = "steep"
    with pytest.raises(ValueError, match=r"node lif \(LIF\): method must be one of .* got method='steep'"):
        from_nir(given, dt=0.001)
