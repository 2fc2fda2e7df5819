"""``torch.export`` and ONNX: a sequence becomes plain operators that other programs know."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from snnlib import (
    LI,
    LIF,
    Layer,
    LIFCell,
    LIFFeedForwardState,
    LIFParameters,
    LIFRecurrent,
    LIFRecurrentCell,
    SequentialState,
    SpikeConv2d,
    SpikeLinear,
    lif_feed_forward_step,
)

T, B = 4, 3
P = LIFParameters(v_th=0.05)
SPIKING = (1, 2)
"""Where :func:`net` has its spiking layers."""


class Output(nn.Module):
    """A net whose state stays inside, as docs/export.md has it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, input: Tensor) -> Any:
        return self.net(input)[0]


def net(method: str = "super") -> SequentialState:
    """Feed-forward and recurrent layers, and a readout."""
    torch.manual_seed(0)
    p = P._replace(method=method)
    layers = nn.Linear(5, 6), LIF(p), LIFRecurrent(6, 4, p), nn.Linear(4, 2), LI()
    return SequentialState(*layers, return_hidden=True).eval()


@pytest.fixture
def x() -> Tensor:
    return 3 * torch.rand(T, B, 5, generator=torch.Generator().manual_seed(0))


def check_outputs(found: Any, expected: list[Tensor]) -> None:
    """Spikes are equal; what is not 0 or 1 may differ by rounding."""
    assert len(found) == len(expected)
    for index, (a, b) in enumerate(zip(found, expected, strict=True)):
        if index in SPIKING:
            assert torch.equal(torch.as_tensor(a), b)
            assert 5 < b.sum() < b.numel()
        else:
            torch.testing.assert_close(torch.as_tensor(a), b, rtol=1e-5, atol=1e-6)


def operators(program: torch.export.ExportedProgram) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("method", ["super", "adjoint"])
def test_an_exported_program_gives_the_same_spikes_and_states(method: str, x: Tensor):
    with torch.no_grad():
        expected, states = net(method)(x)
    program = torch.export.export(net(method), (x,))
    assert not [name for name in operators(program) if "snnlib" in name]
    with torch.no_grad():
        found, last = program.module()(x)
    check_outputs(found, expected)
    for a, b in zip(tree_leaves(last), tree_leaves(states), strict=True):
        torch.testing.assert_close(a, b)


def test_a_backend_that_is_named_stays_one_operator(x: Tensor):
    layer = Output(LIF(P, backend="cpu"))
    program = torch.export.export(layer, (x,))
    assert "snnlib.fused_forward.default" in operators(program)
    assert torch.equal(program.module()(x), layer(x))


def test_a_step_may_be_traced_while_it_is_exported(x: Tensor):
    """Torch's modes saw the tensors that it was traced with, and the process ended."""

    def step(input: Tensor, state: LIFFeedForwardState, p: Any = P, dt: float = 0.001) -> Any:
        return lif_feed_forward_step(input, state, p, dt)  # nobody has traced this one

    layer = Output(Layer(step, P, backend="cpu"))
    assert torch.equal(torch.export.export(layer, (x,)).module()(x), layer(x))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("chain", "shape"),
    [
        (lambda: (LIF(), SpikeLinear(5, 4)), (6, 2, 5)),
        (lambda: (LIF(), SpikeConv2d(2, 4, 3)), (6, 2, 2, 8, 8)),
        (lambda: (nn.Linear(5, 8), LIF(checkpoint_every=4)), (6, 2, 5)),
    ],
    ids=["linear", "convolution", "checkpoints"],
)
def test_the_batch_stays_open(chain: Any, shape: tuple[int, ...], strict: bool):
    layer, batch = Output(SequentialState(*chain())).eval(), torch.export.Dim("batch")
    example, other = torch.rand(shape), torch.rand(shape[0], 70, *shape[2:])
    program = torch.export.export(layer, (example,), dynamic_shapes=({1: batch},), strict=strict)
    torch.testing.assert_close(program.module()(other), layer(other))


def test_a_saved_program_needs_no_snnlib_and_takes_any_batch(x: Tensor, tmp_path: Path):
    layer = Output(LIFRecurrent(5, 6, P))
    program = torch.export.export(layer, (x,), dynamic_shapes=({1: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "net.pt2")
    wide = torch.cat([x, x.flip(1)], 1)
    torch.save((wide, layer(wide).detach()), tmp_path / "example.pt")
    code = (
        "import sys, torch\n"
        "x, expected = torch.load('example.pt')\n"
        "assert torch.equal(torch.export.load('net.pt2').module()(x), expected)\n"
        "assert 'snnlib' not in sys.modules\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=120)


def onnx_session(net: nn.Module, example: tuple[Any, ...], path: Path, **options: Any) -> Any:
    """The net in onnxruntime."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install -e '.[onnx]'")
    runtime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is not installed: pip install -e '.[onnx]'"
    )
    torch.onnx.export(net, example, dynamo=True, verbose=False, **options).save(path)
    return runtime.InferenceSession(path)


def test_onnxruntime_gives_the_same_spikes(x: Tensor, tmp_path: Path):
    batch = torch.export.Dim("batch")
    session = onnx_session(Output(net()).eval(), (x,), tmp_path / "net.onnx", dynamic_shapes=({1: batch},))
    wide = torch.cat([x, x.flip(1)], 1)
    with torch.no_grad():
        expected, _ = net()(wide)
    check_outputs(session.run(None, {session.get_inputs()[0].name: wide.numpy()}), expected)


def test_one_step_is_an_onnx_model_of_its_own(x: Tensor, tmp_path: Path):
    """Cells take and return their state: a model of one step runs for ever."""
    torch.manual_seed(0)
    cells = SequentialState(nn.Linear(5, 6), LIFCell(P), LIFRecurrentCell(6, 4, P)).eval().requires_grad_(False)
    _, state = cells(x[0])
    session = onnx_session(cells, (x[0], state), tmp_path / "step.onnx")
    names = [argument.name for argument in session.get_inputs()]
    values = [value.numpy() for value in tree_leaves(state) if value is not None]
    fired = 0.0
    for step in x.repeat(3, 1, 1):
        found, *values = session.run(None, dict(zip(names, [step.numpy(), *values], strict=True)))
        expected, state = cells(step, state)
        assert torch.equal(torch.from_numpy(found), expected)
        fired += float(expected.sum())
    assert fired > 5
