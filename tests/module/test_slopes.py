"""spike_slopes: of all that a layer takes."""

import pytest
import torch

from snnlib import LIF, LIFFeedForwardState, LIFParameters, LIFRecurrent, LIFState, spike_slopes
from tests.neurons import same

pytestmark = pytest.mark.usefixtures("seeded")

T, B, N = 30, 3, 4


@pytest.mark.parametrize("z", [1.0, torch.ones(()), torch.ones(N), torch.ones(B, 1)])
@pytest.mark.parametrize("size", [None, N])
def test_of_a_recurrent_layer_from_any_state_that_it_takes(z, size):
    layer = LIFRecurrent(size, N, backend="reference")
    x = 5 * torch.rand(T, B, N)
    slopes = spike_slopes(layer, x, LIFState(z=z, v=0.5, i=z))
    full = torch.ones(B, N)
    same(slopes, spike_slopes(layer, x, LIFState(z=full, v=0.5 * full, i=full)))
    assert torch.equal(slopes > 0, layer(x, LIFState(z=z, v=0.5, i=z))[0] > 0)
    assert not torch.equal(slopes, spike_slopes(layer, x, LIFState(z=0.0, v=0.5, i=z)))
    assert spike_slopes(layer, x[:0], LIFState(z=z, v=0.5, i=z)).shape == (0, B, N)


def test_of_a_layer_from_numbers():
    x = 5 * torch.rand(T, B, N)
    slopes = spike_slopes(LIF(backend="reference"), x, LIFFeedForwardState(v=0.9, i=torch.zeros(N)))
    assert torch.equal(slopes > 0, LIF(backend="reference")(x, LIFFeedForwardState(v=0.9, i=0.0))[0] > 0)


@pytest.mark.parametrize("autocast", [False, True])
def test_in_half_precision_they_are_those_of_the_spikes_of_the_layer(autocast):
    """What is heard is summed in the precision of the state, as in the layer."""
    layer = LIFRecurrent(None, 64, LIFParameters(v_th=0.5), backend="reference")
    x = (2 * torch.rand(200, B, 64)).bfloat16()
    layer = layer if autocast else layer.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output, slopes = layer(x)[0], spike_slopes(layer, x)
    assert slopes.dtype == output.dtype == torch.bfloat16
    assert torch.equal(slopes > 0, output > 0)
