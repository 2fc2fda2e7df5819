"""The fused loop on the CPU beside other threads and devices, and with a cache that cannot be written."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snnlib import (
    LIF,
    Layer,
    LIFFeedForwardState,
    LIFParameters,
    LIFRecurrent,
    SpikeConv2d,
    SpikeLinear,
    lif_feed_forward_step,
)
from snnlib.engine import adjoint, cpu, scan
from snnlib.engine.loops.packed import Packed, _of
from snnlib.engine.sizes import LINE
from tests.copies import Copied
from tests.engine.equality import everything
from tests.neurons import SPIKING, Neuron, draw_input, draw_parameters, draw_state, generator, name_of


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


def test_two_threads_give_the_same_numbers_run_after_run():
    """Bit for bit; the gradients of recurrent weights, which grow in each thread, too."""
    torch.set_num_threads(2)
    x = torch.randn(100, 32, 64, generator=generator(1))
    weights = torch.randn(64, 64, generator=generator(2)) / 8
    found = []
    for _ in range(5):
        w = weights.clone().requires_grad_()
        z, _ = scan(lif_feed_forward_step, x, recurrent_weights=w, backend="cpu")
        z.sum().backward()
        found.append((z.detach(), w.grad))
    torch.set_num_threads(1)
    assert all(torch.equal(ours, first) for run in found for ours, first in zip(run, found[0], strict=True))


def spikes() -> None:
    print(float(LIF()(torch.full((50, 1, 3), 2.0))[0].sum()))


@pytest.mark.parametrize("home", ["missing", "a file"])
def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, home: str):
    if home == "a file":
        (tmp_path / "cache").write_text("in the way")
    place = tmp_path / "cache" if home == "a file" else "/proc/nowhere"
    code, said, error = Copied(spikes, cwd=tmp_path, environment={"XDG_CACHE_HOME": str(place)}).end(60)
    assert code == 0, error
    assert float(said) > 0


def made_step(input: Tensor, state: LIFFeedForwardState, p: LIFParameters = LIFParameters(), dt: float = 0.001):
    """A step that makes a tensor of its own."""
    return lif_feed_forward_step(input * torch.ones(()), state, p, dt)


@pytest.mark.parametrize(
    "made",
    [
        lambda: LIF(),
        lambda: LIF(LIFParameters(method="adjoint")),
        lambda: LIF(LIFParameters(tau_mem_inv=torch.nn.Parameter(torch.tensor(100.0)))),
        lambda: Layer(made_step, LIFParameters(method="adjoint")),
        lambda: LIFRecurrent(64, 64),
        lambda: SpikeLinear(64, 512),
        lambda: SpikeConv2d(64, 64, 3, padding=1, pool=2),
    ],
    ids=["surrogate", "adjoint", "learned", "own", "recurrent", "linear", "convolution"],
)
def test_tensors_stay_where_they_are_whatever_the_default_device(made):
    """Of no other device's memory does a loop know the address."""
    layer = made()
    shape = (64, 64, 8, 8) if isinstance(layer, SpikeConv2d) else (64, 8, 64)
    x = (torch.rand(shape) < 0.1).float().requires_grad_()

    def run() -> list[torch.Tensor]:
        found = layer(x)
        output = found[0] if isinstance(found, tuple) else found
        return [output, *torch.autograd.grad(output.sum(), [x, *layer.parameters()])]

    adjoint._look.cache_clear()  # what it has seen it does not look at again
    with torch.device("meta"):
        found = run()
    for value, wanted in zip(found, run(), strict=True):
        torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("method", ["super", "adjoint"])
@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_past_the_caches_it_is_the_same(
    neuron: Neuron, method: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    """What is kept of a large sequence: a whole word of neurons and one of which some do not belong to it."""
    source = generator(5)
    x, state = draw_input(neuron, source, (20, 5, 48), dtype), draw_state(neuron, source, (5, 48), dtype)
    p = draw_parameters(neuron, source, (), dtype, method=method)
    found = []
    for past in (False, True):
        monkeypatch.setattr(cpu, "_goes_past", lambda output, past=past: past)
        found.append(everything("cpu", neuron.step, x, state, p))
    assert 0 < found[0][0].mean() < 1
    for near, far in zip(*found, strict=True):
        assert torch.equal(near, far)


@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("size", [1, 24, 64, 4104])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nothing_is_written_behind_what_is_packed(
    past: bool, size: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    """Where every neuron spikes in every step, and the events of each are filled up to whole vectors."""
    if past and size * dtype.itemsize % LINE:
        pytest.skip("rows that are no whole lines do not go past the caches")
    rooms: list[tuple[np.ndarray, int]] = []
    empty, kept = np.empty, Packed.kept

    def guarded(count: int, kind: Any) -> np.ndarray:
        memory = empty(count + 1000, kind)
        memory[count:] = -7
        rooms.append((memory, count))
        return memory

    def checked(self: Packed) -> list[Tensor]:
        monkeypatch.setattr(np, "empty", empty)
        for memory, count in rooms:
            assert (memory[count:] == -7).all()
        for memory, first, plan in self._rooms:
            (_, (_, numbers, spare, *_)), *_ = self.own
            assert numbers == first + plan.begin
            assert memory[first + plan.end] >= 50 * size
            assert numbers + _of(self._count, memory[first + plan.end], self._size) <= spare
        return kept(self)

    monkeypatch.setattr(np, "empty", guarded)
    monkeypatch.setattr(Packed, "kept", checked)
    monkeypatch.setattr(cpu, "_goes_past", lambda output: past)
    x = torch.full((50, 1, size), 100.0, dtype=dtype, requires_grad=True)
    z, _ = scan(lif_feed_forward_step, x, p=LIFParameters(method="adjoint"), backend="cpu")
    assert rooms
    assert (z == 1).all()
    (found,) = torch.autograd.grad((z * torch.arange(50.0).view(-1, 1, 1)).sum(), x)
    assert found.isfinite().all()


@pytest.mark.parametrize("size", [5, 4104])
def test_what_was_packed_may_be_kept_elsewhere(size: int):
    """On another device, on disk, or as a part of another tensor."""
    found = []
    for pack in (
        torch.Tensor.clone,
        lambda kept: torch.cat([kept.flatten()[:1], kept.flatten()])[1:].view_as(kept),
    ):
        x = torch.full((50, 1, size), 100.0, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
            z, _ = scan(lif_feed_forward_step, x, p=LIFParameters(method="adjoint"), backend="cpu")
        found += torch.autograd.grad((z * torch.arange(50.0).view(-1, 1, 1)).sum(), x)
    assert torch.equal(*found)
    assert found[0].any()


@pytest.mark.parametrize("change", [
    lambda kept: kept.bfloat16(),
    lambda kept: kept.half(),
    lambda kept: kept[:1],
    lambda kept: kept[:-1] if kept.dtype == torch.int64 else kept,
], ids=["bfloat16", "float16", "one", "one less"])  # fmt: skip
def test_what_was_packed_may_not_be_changed(change: Callable[[Tensor], Tensor]):
    """A loop would read what is not there."""
    x = (100 * torch.rand(300, 2, 600, generator=generator(0))).requires_grad_()

    def pack(kept: Tensor) -> tuple[Tensor, torch.dtype]:
        return change(kept), kept.dtype

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept[0].to(kept[1])):
        z, _ = scan(lif_feed_forward_step, x, p=LIFParameters(method="adjoint"), backend="cpu")
    with pytest.raises(RuntimeError, match=r"kept of its spikes is bits, and was changed: .* torch\.int64"):
        z.sum().backward()


def test_large_sequences_go_past_the_caches():
    assert cpu._goes_past(torch.empty(512, 1, 4096))
    assert not cpu._goes_past(torch.empty(511, 1, 4096))
    assert not cpu._goes_past(torch.empty(1024, 1, 2048))
    assert not cpu._goes_past(torch.empty(512, 1, 4097))


def test_a_large_sequence_is_that_of_the_reference():
    source = generator(0)
    x = 6 * (torch.rand(257, 2, 4096, generator=source) < 0.1).float()
    assert cpu._goes_past(x)
    p = LIFParameters(method="adjoint")
    found = []
    for backend in ("reference", "cpu"):
        leaf = x.clone().requires_grad_()
        z, _ = scan(lif_feed_forward_step, leaf, None, p, backend=backend)
        (z * torch.linspace(0, 1, len(z)).view(-1, 1, 1)).sum().backward()
        found.append((z.detach(), leaf.grad))
    (wanted, wanted_gradient), (spikes, gradient) = found
    assert torch.equal(spikes, wanted)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-4, atol=1e-5)
