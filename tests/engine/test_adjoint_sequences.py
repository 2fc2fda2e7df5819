"""The adjoint over sequences: in parts, compiled, in half precision, in nets; and what it keeps."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from snnlib import (
    LIF,
    LIFFeedForwardState,
    LIFParameters,
    LIFRecurrent,
    LIFRefrac,
    LIFRefracParameters,
    SequentialState,
    lif_feed_forward_step,
)
from snnlib.engine import scan
from tests.engine.equality import (
    FUSED_BACKENDS,
    device_of,
    everything,
    kept_by,
    lif_case,
    moved,
    recurrent_case,
)
from tests.neurons import generator

EXACT = LIFParameters(method="adjoint")


@pytest.mark.parametrize("backend", ["reference", *FUSED_BACKENDS])
@pytest.mark.parametrize("every", [1, 4, 20])
def test_chunks_hear_of_each_other(backend: str, every: int):
    """A spike of the last step of a chunk may move into the next one: checkpoints change nothing."""
    neuron, x, state, weights = recurrent_case((10, 4, 6), torch.float64)
    given = [v.to(device_of(backend)) for v in (x, weights)]
    state = type(state)(*(v.to(device_of(backend)) for v in state))
    p = neuron.parameters(method="adjoint")
    whole = everything(backend, neuron.step, given[0], state, p, recurrent_weights=given[1])
    assert 0 < float(whole[0].detach().mean()) < 1
    parts = everything(
        backend, neuron.step, given[0], state, p, recurrent_weights=given[1], checkpoint_every=every
    )
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs)


def layers(**options: Any) -> SequentialState:
    """Neurons that spike, behind weights, and some that hear each other."""
    torch.manual_seed(0)
    net = SequentialState(
        torch.nn.Linear(4, 8),
        LIF(EXACT, **options),
        torch.nn.Linear(8, 6),
        LIFRecurrent(6, 6, EXACT, **options),
    )
    for weight in net.parameters():
        torch.nn.init.normal_(weight, 0.5, 2.0)
    return net


def gradients(net: torch.nn.Module, run: Any, x: Tensor) -> list[Tensor]:
    """Output, and the gradients of the parameters of a net that ``run`` runs."""
    net.zero_grad()
    z = run(x)
    (z * torch.randn(len(z), 1, 1, generator=generator(3))).sum().backward()
    return [z, *(parameter.grad for parameter in net.parameters())]


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_a_sequence_in_two_calls_is_the_whole(backend: str):
    """A state that is handed on hears of the next part; a copy of one is an ordinary state."""
    net, x = layers(backend=backend), torch.rand(30, 3, 4, generator=generator(0))

    def run(x: Tensor, hand_on: Any = lambda state: state) -> Tensor:
        first, state = net(x[:13])
        return torch.cat([first, net(x[13:], hand_on(state))[0]])

    whole = gradients(net, lambda x: net(x)[0], x)
    for ours, theirs in zip(gradients(net, run, x), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    copied = gradients(net, lambda x: run(x, lambda s: [v and type(v)(*v) for v in s]), x)
    assert torch.equal(copied[0], whole[0])
    assert not torch.allclose(copied[1], whole[1], rtol=0.01)


@pytest.mark.parametrize("backend", ["reference", *FUSED_BACKENDS])
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("lengths", [(9, 0), (9, 0, 0), (0, 9, 0), (5, 0, 4), (5, 0, 4, 0)], ids=str)
def test_a_part_without_a_step_changes_nothing(backend: str, recurrent: bool, lengths: tuple[int, ...]):
    neuron, *values = recurrent_case((9, 2, 5), torch.float64)
    x, _, weights = (moved(value, device_of(backend)) for value in values)
    options = {"recurrent_weights": weights.requires_grad_(), "input_weights": 2 * torch.eye(5).to(x)}
    options = options if recurrent else {}
    p, random = neuron.parameters(method="adjoint"), torch.randn(9, 1, 1, generator=generator(3)).to(x)
    results = []
    for parts in (x.split([9]), x.split(list(lengths))):
        leaves, outputs, last = [part.clone().requires_grad_() for part in parts], [], None
        for leaf in leaves:
            output, last = scan(neuron.step, leaf, last, p, backend=backend, **options)
            outputs.append(output)
        loss = (torch.cat(outputs) * random).sum() + last.v.sum()
        inputs = [*leaves, *([weights] if recurrent else [])]
        *given, grown = [*torch.autograd.grad(loss, inputs), *([] if recurrent else [weights])]
        results.append([torch.cat(outputs), torch.cat(given), grown])
    assert float(results[0][0][-1].detach().sum()) > 0  # whose spikes have nothing behind them
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backend", ["reference", *FUSED_BACKENDS])
def test_a_loss_of_the_first_part_alone_says_nothing_of_the_next(backend: str):
    """Autograd never comes to the second call; a term of zero is enough."""
    neuron, _, state = lif_case((10, 2, 5), torch.float64, backend)
    x = 20 * torch.rand(10, 2, 5, generator=generator(4), dtype=torch.float64).to(device_of(backend))
    p = neuron.parameters(method="adjoint")

    def gradient(later: float | None) -> Tensor:
        leaf = x.clone().requires_grad_()
        first, last = scan(neuron.step, leaf[:5], state, p, backend=backend)
        second, _ = scan(neuron.step, leaf[5:], last, p, backend=backend)
        loss = first.sum() if later is None else first.sum() + later * second.sum()
        return torch.autograd.grad(loss, leaf)[0]

    whole = x.clone().requires_grad_()
    scan(neuron.step, whole, state, p, backend=backend)[0][:5].sum().backward()
    torch.testing.assert_close(gradient(0.0), whole.grad)
    assert not torch.allclose(gradient(None), whole.grad, rtol=0.01)


@pytest.mark.parametrize("layer", [LIF(EXACT), LIFRecurrent(3, 3, EXACT)], ids=["layer", "recurrent"])
def test_a_state_is_written_and_read(layer: torch.nn.Module):
    _, state = layer(torch.rand(5, 2, 3, generator=generator(0)).requires_grad_())
    assert state.later.requires_grad
    state = type(state)(*(value.detach() for value in state))
    for read in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):
        assert type(read) is layer.state or type(read) is layer.recurrent_state
        assert all(map(torch.equal, read, state))


@pytest.mark.parametrize("backend", ["reference", *FUSED_BACKENDS])
@pytest.mark.parametrize("shape", [(0, 3, 2), (1, 3, 2), (4, 0, 2)], ids=str)
@pytest.mark.parametrize("recurrent", [False, True])
def test_short_and_empty_sequences(backend: str, shape: tuple[int, ...], recurrent: bool):
    x = torch.full(shape, 20.0, device=device_of(backend), requires_grad=True)
    weights = torch.ones(2, 2, device=x.device, requires_grad=True) if recurrent else None
    z, _ = scan(lif_feed_forward_step, x, None, EXACT, recurrent_weights=weights, backend=backend)
    z.sum().backward()
    assert z.shape == x.shape == x.grad.shape


@pytest.mark.parametrize("backend", FUSED_BACKENDS)
def test_torch_compile_sees_one_operator(backend: str):
    neuron, x, state = lif_case((12, 3, 5), torch.float32, backend)
    p = neuron.parameters(method="adjoint")

    def run(x: Tensor) -> Tensor:
        return scan(neuron.step, x, state, p, backend=backend)[0]

    gradients = []
    for function in (run, torch.compile(run, backend="aot_eager", fullgraph=True)):
        leaf = x.clone().requires_grad_()
        z = function(leaf)
        (z * torch.arange(12.0, device=z.device).view(-1, 1, 1).sin()).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0


@pytest.mark.filterwarnings("ignore:Dynamo detected a call")
def test_torch_compile_leaves_the_plain_loop_to_python_or_says_why_not():
    def run(x: Tensor) -> Tensor:
        return scan(lif_feed_forward_step, x, None, EXACT, backend="reference")[0]

    x = 20.0 * torch.rand(12, 2, 3, generator=generator(0))
    gradients = []
    for function in (run, torch.compile(run, backend="eager")):
        leaf = x.clone().requires_grad_()
        (function(leaf) * torch.arange(12.0).view(-1, 1, 1)).sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)
    assert gradients[0].abs().max() > 0
    torch._dynamo.reset()
    with pytest.raises(Exception, match=r"adjoint.* plain loop .*torch.compiler.disable"):
        torch.compile(run, backend="eager", fullgraph=True)(x.requires_grad_())


def test_torch_compile_takes_a_net_whole():
    """Also under autocast; chunks it would not connect, and says so."""
    x = torch.rand(12, 3, 4, generator=generator(0))
    net = layers()

    def half(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return net(x)[0]

    for run in (lambda x: net(x)[0], half):
        torch._dynamo.reset()
        compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
        for ours, theirs in zip(gradients(net, compiled, x), gradients(net, run, x), strict=True):
            torch.testing.assert_close(ours, theirs)
            assert ours.abs().max() > 0


@pytest.mark.parametrize("kind", ["layer", "recurrent", "chain"])
def test_torch_compile_does_not_connect_chunks_and_says_so(kind: str):
    net: Any = {
        "layer": lambda: LIF(EXACT, checkpoint_every=4),
        "recurrent": lambda: LIFRecurrent(4, 4, EXACT, checkpoint_every=4),
        "chain": lambda: SequentialState(torch.nn.Linear(4, 4), LIF(EXACT), checkpoint_every=4),
    }[kind]()
    torch._dynamo.reset()
    with pytest.raises(Exception, match=r"adjoint.* with checkpoint_every .*torch.compiler.disable"):
        torch.compile(net, backend="eager", fullgraph=True)(torch.ones(12, 2, 4, requires_grad=True))


def test_half_precision_is_the_same_by_every_backend():
    """Under autocast a Linear gives bfloat16; and a net may be in bfloat16 as a whole."""
    x = torch.rand(20, 3, 4, generator=generator(0))

    def half(net: torch.nn.Module) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return lambda x: net(x)[0]

    for cast in (torch.nn.Module.float, torch.nn.Module.bfloat16):
        nets = [cast(layers(backend=backend)) for backend in ("reference", "cpu")]
        given = x.to(next(nets[0].parameters()).dtype)
        plain, fused = (gradients(net, half(net), given) for net in nets)
        assert plain[0].sum() > 0
        for ours, theirs in zip(fused, plain, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3 * float(theirs.detach().abs().max()))


def test_layers_and_nets_take_it():
    torch.manual_seed(0)
    net = SequentialState(
        torch.nn.Linear(4, 8), LIF(EXACT), LIFRecurrent(8, 6, EXACT), torch.nn.Linear(6, 2), LIF(EXACT)
    )
    for weight in net.parameters():
        torch.nn.init.normal_(weight, 0.5, 2.0)
    out, _ = net(torch.rand(40, 3, 4))
    (out * torch.arange(40.0).view(-1, 1, 1)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("layer", "p", "dense", "events"), [(LIF, LIFParameters, 0, 2), (LIFRefrac, LIFRefracParameters, 0.25, 6)]
)
def test_what_only_events_need_is_kept_for_them(layer: Any, p: Any, dense: float, events: int):
    """LIF: two floats a spike. With a refractory period: a byte, and three floats where it begins and ends."""
    x = (0.7 * torch.rand(200, 4, 64, generator=generator(0))).requires_grad_()
    z, sizes = kept_by(lambda: layer(p(method="adjoint"), backend="cpu")(x)[0])
    sizes.pop(z.data_ptr(), None)  # an output anyway
    spikes = int(z.detach().sum())
    assert 0 < spikes < z.numel() / 8
    # a bit for each neuron and step, the bounds of blocks of neurons, and the last vectors, which go beyond
    more = z.numel() / 8 + 4 * 8 * math.ceil(x[0].numel() / 64) + 16 * 4 * events
    assert sum(sizes.values()) <= 4 * (dense * z.numel() + events * spikes) + more


def test_a_state_without_a_graph_is_of_the_neurons_own_type():
    x = torch.ones(3, 2, 4)
    for learns in (False, True):
        _, state = scan(lif_feed_forward_step, x.requires_grad_(learns), p=EXACT, backend="cpu")
        assert (type(state) is LIFFeedForwardState) != learns
