"""The dtypes in which scan integrates and answers."""

import pytest
import torch

from snnlib.engine import scan
from snnlib.functional import lif_feed_forward_step
from tests.engine.cases import DT, LIF, SOME, case, weights_for
from tests.neurons import name_of, same


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("neuron", SOME, ids=name_of)
def test_half_precision_is_integrated_in_float32(neuron, dtype, recurrent):
    """As the same numbers in float32, with only the output rounded at the end."""
    p, _, x = case(neuron, 12, dtype=torch.float32)
    weights = weights_for(neuron, 3).to(dtype).float() if recurrent else None
    x = x.to(dtype)
    output, state = scan(neuron.step, x, None, p, dt=DT, recurrent_weights=weights)
    wanted, final = scan(neuron.step, x.float(), None, p, dt=DT, recurrent_weights=weights)
    assert output.dtype == dtype
    same(output, wanted.to(dtype))
    same(state, final)
    assert all(value.dtype == torch.float32 for value in state)
    same(scan(neuron.step, x[:0], None, p, dt=DT)[0], torch.zeros(0, 4, 3, dtype=dtype))


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_state_in_half_precision_is_integrated_in_float32_too(dtype, backend):
    """ "State is integrated in float32 at least", also where the caller's state is not."""
    p, state, x = case(LIF, 12, dtype=torch.float32)
    x, small = x.to(dtype), type(state)(*(value.to(dtype) for value in state))
    output, final = scan(LIF.step, x, small, p, dt=DT, backend=backend)
    wanted = scan(
        LIF.step, x.float(), type(state)(*(value.float() for value in small)), p, dt=DT, backend=backend
    )
    same(final, wanted[1])
    same(output, wanted[0].to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_recurrent_weights_in_half_precision(dtype):
    """Those of a module that was moved with ``.to(dtype)``, beside an input in the same dtype."""
    p, _, x = case(LIF, 12, dtype=torch.float32)
    weights = weights_for(LIF, 3).to(dtype)
    output, final = scan(LIF.step, x.to(dtype), None, p, recurrent_weights=weights)
    wanted = scan(LIF.step, x.to(dtype).float(), None, p, recurrent_weights=weights.float())
    assert output.dtype == dtype
    same(output, wanted[0].to(dtype))
    same(final, wanted[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_gradients_come_back_in_the_dtype_of_the_input(dtype):
    x = torch.ones(5, 2, 3, dtype=dtype, requires_grad=True)
    output, state = scan(lif_feed_forward_step, x)
    (output.sum() + state.v.sum()).backward()
    assert x.grad.dtype == dtype
    assert x.grad.abs().min() > 0


def test_float64_is_integrated_in_float64():
    _, _, x = case(LIF, 12, dtype=torch.float64)
    output, state = scan(LIF.step, x)
    assert output.dtype == torch.float64
    assert all(value.dtype == torch.float64 for value in state)
