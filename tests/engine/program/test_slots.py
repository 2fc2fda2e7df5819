"""Two numbers of a spike in the room of one: who has them, how much is kept, and what lies at the edges."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from snnlib import LIF, LIFParameters, LSNNParameters, lif_feed_forward_step, lsnn_feed_forward_step
from snnlib.engine import scan
from snnlib.engine.kernel import KERNELS
from snnlib.engine.later import later_step
from snnlib.engine.step import state_type
from snnlib.engine.trace import KEEPS, Keep, trace
from snnlib.functional import spike
from tests.engine.equality import FUSED_BACKENDS, assert_equal, device_of, kept_by, recurrent_case
from tests.neurons import SPIKING, Neuron, draw_input, draw_state, generator, name_of

SAVED = {
    "lif": 1,
    "lif_box": 1,
    "iaf": 1,
    "lsnn": 2,
    "lif_refrac": 2,
    "lif_ex": 2,
    "lif_adex": 2,
    "izhikevich": 2,
}
"""Numbers, and bytes, that a neuron keeps for a step beside its output."""
SLOTTED = {"lif", "lif_box"}


class Currents(NamedTuple):
    i: Tensor
    v: Tensor

    @classmethod
    def initial(cls, p: Any) -> "Currents":
        return cls(i=0.0, v=0.0)  # type: ignore[arg-type]


class Own(NamedTuple):
    to: Any = 0.25
    method: str = "adjoint"
    alpha: Any = None


def _risen(input: Tensor, state: Currents, dt: float) -> Currents:
    i = state.i + input
    return Currents(i - 200 * dt * i, state.v + 100 * dt * (i - state.v))


def resetting_step(input: Tensor, state: Currents, p: Own = Own(), dt: float = 0.001):
    i, v = _risen(input, state, dt)
    z = spike(v - 1.0, p.method, p.alpha)
    return z, Currents(i, (1 - z) * v + z * p.to)


def lowering_step(input: Tensor, state: Currents, p: Own = Own(), dt: float = 0.001):
    i, v = _risen(input, state, dt)
    z = spike(v - 1.0, p.method, p.alpha)
    return z, Currents(i, v - z * p.to * v)


OWN = SPIKING[0]._replace(
    name="own", step=resetting_step, parameters=Own, state=Currents, start={"i": (-0.5, 0.5), "v": (-0.5, 1.2)}
)


@pytest.fixture(params=FUSED_BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A backend that keeps as much for every step: the CPU's does where torch.compile asks for it."""
    monkeypatch.setitem(KEEPS, "cpu", "steps")
    return str(request.param)


def traced(step: Any, p: Any, keep: Keep = "steps", *learned: str):
    given = p._replace(**dict.fromkeys(learned))
    return trace(later_step(step), given, learned, learned, 0.001, torch.float32, keep)


@pytest.mark.parametrize("neuron", SPIKING, ids=name_of)
def test_who_has_them(neuron: Neuron):
    found = traced(neuron.step, neuron.parameters(method="adjoint"))
    assert len(found.saved) == SAVED[neuron.name]
    assert (found.slot is not None) == (neuron.name in SLOTTED)


def test_a_step_of_ones_own_has_them_where_its_reset_is_known():
    found = traced(resetting_step, Own())
    assert (len(found.saved), found.slot) == (1, 1)
    assert traced(resetting_step, Own(), "steps", "to").slot == 1
    lower = traced(lowering_step, Own())
    assert (len(lower.saved), lower.slot) == (2, None)


def test_what_all_steps_need_is_kept_for_all():
    p = LIFParameters(method="adjoint")
    assert traced(lif_feed_forward_step, p, "steps", "v_th", "v_reset").slot == 0
    assert traced(lif_feed_forward_step, p, "steps", "tau_mem_inv").slot is None


def test_a_surrogate_has_none():
    found = trace(lif_feed_forward_step, LIFParameters(), (), (), 0.001, torch.float32, "steps")
    assert found.slot is None


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(21, 2, 5), (8, 2, 3), (1, 1, 4), (0, 2, 3), (3, 0, 2)], ids=str)
@pytest.mark.parametrize("neuron", [n for n in SPIKING if n.name in SLOTTED] + [OWN], ids=name_of)
def test_spikes_one_after_another_and_in_the_first_step(
    backend: str, neuron: Neuron, shape: tuple[int, ...], dtype
):
    """Inputs so strong that many neurons spike in steps one after another, from the first on."""
    source = generator(7)
    x = 15 * draw_input(neuron, source, shape, dtype)
    state = draw_state(neuron, source, shape[1:], dtype)
    low = torch.rand(shape[1:], generator=source, dtype=dtype) / 2
    reset = "to" if neuron is OWN else "v_reset"
    for given in (0.3, low):
        p = neuron.parameters(method="adjoint", **{reset: given})
        z = assert_equal(backend, neuron, x, state, p)[0].detach()
        if z.numel():
            assert z[0].any()
            assert len(z) == 1 or (z[1:] * z[:-1]).any()
            assert len(z) == 1 or not z.all()


@pytest.mark.parametrize("made", [lambda to: 2 * to, lambda to: to + 0.2], ids=["twice", "more"])
def test_a_reset_to_what_is_made_of_a_parameter(backend: str, made: Any):
    def step(input: Tensor, state: Currents, p: Own = Own(), dt: float = 0.001):
        return resetting_step(input, state, p._replace(to=made(p.to)), dt)

    neuron, source = OWN._replace(step=step), generator(7)
    x = 15 * draw_input(neuron, source, (8, 2, 3), torch.float64)
    state = draw_state(neuron, source, (2, 3), torch.float64)
    to = torch.rand(2, 3, generator=source, dtype=torch.float64) / 2
    z = assert_equal(backend, neuron, x, state, Own(to))[0]
    assert (z[1:] * z[:-1]).any()


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("shape", [(12, 2, 6), (1, 2, 5), (6, 2, 130), (1, 3, 130)], ids=str)
def test_recurrent_layers(backend: str, shape: tuple[int, ...]):
    neuron, x, state, weights = recurrent_case(shape, torch.float64)
    p = LIFParameters(method="adjoint")
    z = assert_equal(backend, neuron, 4 * x, state, p, recurrent_weights=weights)[0]
    assert len(z) == 1 or (z[1:] * z[:-1]).any()


@pytest.mark.parametrize(("step", "p", "more"), [
    (lif_feed_forward_step, LIFParameters(method="adjoint"), {"cpu": 1, "gpu": 1}),
    (lsnn_feed_forward_step, LSNNParameters(method="adjoint"), {"cpu": 40, "gpu": 2}),
])  # fmt: skip
def test_what_is_kept(backend: str, step: Any, p: Any, more: dict[str, int]):
    """In rows of neurons, of forty steps: beside the output LIF keeps one for each and one before the first.

    Of the output, which is in the last bits of the others, a GPU keeps nothing; of LSNN's adaptation its end.
    """
    rows = 40 + more[backend]
    x = torch.ones(40, 2, 8, device=device_of(backend), requires_grad=True)
    z, sizes = kept_by(lambda: scan(step, x, p=p, backend=backend)[0])
    assert (z.data_ptr() in sizes) == (backend == "cpu")
    sizes.pop(z.data_ptr(), None)
    small = 4 * len(state_type(step)._fields) * x[0].numel()
    assert 0 <= sum(sizes.values()) - 4 * x[0].numel() * rows <= small


@pytest.mark.usefixtures("fresh_compiler")
def test_what_is_kept_by_torch_compile_on_the_cpu():
    """As little, though what is packed for spikes alone has no size that it could know."""
    neuron = LIF(LIFParameters(method="adjoint"))
    x = torch.ones(40, 2, 8, requires_grad=True)
    run = torch.compile(neuron, backend="aot_eager", fullgraph=True, dynamic=False)
    run(x)
    z, sizes = kept_by(lambda: run(x)[0])
    assert 0 <= sum(sizes.values()) - z.nbytes - 4 * x[0].numel() * 41 <= 12 * x[0].numel()


def test_a_compiler_is_told_of_the_row_more(backend: str):
    p = LIFParameters(method="adjoint")
    x = torch.randn(5, 2, 3, device=device_of(backend), requires_grad=True)
    before = set(KERNELS)
    scan(lif_feed_forward_step, x, p=p, dt=0.00073, backend=backend)
    (name,) = set(KERNELS) - before
    assert KERNELS[name].traced.slot is not None
    states = [torch.zeros_like(x[0], requires_grad=True) for _ in range(3)]
    torch.library.opcheck(
        torch.ops.snnlib.fused_forward.default, (x, states, [], [], name), test_utils=("test_faketensor",)
    )
