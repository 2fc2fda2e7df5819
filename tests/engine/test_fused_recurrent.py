"""The fused backends equal the reference behind recurrent weights, and input weights in the loop."""

import pytest
import torch
from torch import Tensor

from snnlib import LIFParameters, lif_feed_forward_step
from snnlib.engine import scan
from snnlib.engine.step import recurrent_state_type
from tests.engine.equality import assert_equal, device_of, lif_case, shapes
from tests.neurons import NEURONS, Neuron, draw_input, draw_parameters, draw_state, generator, name_of

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@shapes(
    cpu=[(40, 5, 7), (1, 2, 3), (13, 1, 1), (6, 9, 130), (25, 6, 8)],
    gpu=[(10, 2, 7), (1, 2, 3), (2, 1, 20), (3, 2, 130)],
)
@pytest.mark.parametrize("neuron", NEURONS, ids=name_of)
def test_every_neuron_with_recurrent_weights(backend: str, neuron: Neuron, shape: tuple[int, ...]):
    """In float64: a spike at the very threshold, which the order of a sum could flip, does not occur."""
    source = generator(sum(shape))
    size = shape[-1]
    weights = torch.randn(size, size, generator=source, dtype=torch.float64) * neuron.input[1] / size**0.5
    state = recurrent_state_type(neuron.step)(
        (torch.rand(shape[1:], generator=source) < 0.3).double(), *draw_state(neuron, source, shape[1:])
    )
    p = draw_parameters(neuron, source, (size,))
    x = draw_input(neuron, source, shape)
    output = assert_equal(backend, neuron, x, state, p, recurrent_weights=weights)[0]
    if neuron.spikes and shape[0] > 5:
        assert 0 < float(output.detach().mean()) < 1
    if neuron.name in ("lif", "lsnn"):  # parameters that do not learn are no matter of the neuron
        frozen = p._replace(**{k: float(v.mean()) for k, v in p._asdict().items() if isinstance(v, Tensor)})
        assert_equal(backend, neuron, x, state, frozen, recurrent_weights=weights)


@pytest.mark.parametrize("inputs", [1, 7, 34, 100])
@shapes(cpu=[(30, 5, 6), (12, 11, 70), (1, 1, 32)], gpu=[(9, 3, 6), (1, 1, 32)])
def test_input_weights_in_the_loop(backend: str, shape: tuple[int, int, int], inputs: int):
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
    output = assert_equal(backend, neuron, x, state, p, recurrent_weights=within, input_weights=into)[0]
    assert steps == 1 or 0 < float(output.detach().mean()) < 1
    still = x[0].expand(steps, batch, inputs)
    assert_equal(backend, neuron, still, state, p, recurrent_weights=within, input_weights=into)


@pytest.mark.parametrize("frozen", ["input", "recurrent_weights", "input_weights", "all but the state"])
def test_what_asks_for_no_gradient_gets_none(backend: str, frozen: str):
    source = generator(2)
    given = {
        "input": torch.randn(9, 3, 4, generator=source),
        "recurrent_weights": torch.randn(5, 5, generator=source),
        "input_weights": 3 * torch.randn(5, 4, generator=source),
    }
    device, gradients = device_of(backend), []
    for name in (backend, "reference"):
        leaves = {
            k: v.to(device).clone().requires_grad_(frozen not in (k, "all but the state"))
            for k, v in given.items()
        }
        drawn = torch.rand(3, 3, 5, generator=generator(1)).to(device)
        state = recurrent_state_type(lif_feed_forward_step)(*drawn.unbind())
        state.v.requires_grad_()
        scan(lif_feed_forward_step, state=state, backend=name, **leaves)[0].sum().backward()
        gradients.append({k: v.grad for k, v in (leaves | {"v": state.v}).items()})
    for name, theirs in gradients[1].items():
        assert (theirs is None) == (name == frozen or (frozen == "all but the state" and name != "v"))
        if theirs is not None:
            torch.testing.assert_close(gradients[0][name], theirs, rtol=1e-4, atol=1e-6)
        else:
            assert gradients[0][name] is None


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (4, 2, 0)], ids=str)
def test_nothing_in_nothing_out_with_recurrent_weights(backend: str, shape: tuple[int, ...]):
    neuron, x, state = lif_case(shape, backend=backend)
    state = recurrent_state_type(neuron.step)(torch.ones(shape[1:], dtype=torch.float64), *state)
    weights = torch.ones(shape[-1], shape[-1], dtype=torch.float64)
    assert_equal(backend, neuron, x, state, LIFParameters(), recurrent_weights=weights)
    x = torch.ones(*shape[:2], 6, dtype=torch.float64)
    into = torch.ones(shape[-1], 6, dtype=torch.float64)
    assert_equal(backend, neuron, x, state, LIFParameters(), recurrent_weights=weights, input_weights=into)
