"""torch's counter of operations around layers."""

from itertools import product
from typing import Any

import pytest
import torch
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode

from snnlib import LIFParameters, LIFRecurrent, LIFState, SequentialState
from tests.neurons import generator

T, B, M, N = 7, 3, 4, 6


def counted(layer: LIFRecurrent, x: torch.Tensor, state: LIFState | None = None) -> tuple[int, ...]:
    """Operations forward and backward."""
    with FlopCounterMode(display=False) as forward:
        output = layer(x, state)[0]
    with FlopCounterMode(display=False) as backward:
        if output.requires_grad:
            output.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


@pytest.mark.parametrize("asked", list(product([False, True], repeat=4)))
@pytest.mark.parametrize("inputs", [M, None])
def test_fused_loops_count_what_the_plain_loop_does(inputs: int | None, asked: tuple[bool, ...]):
    """Whoever asks for a gradient: the input, both weights, the state."""
    by_input, recurrent, of_input, by_state = asked
    found = []
    for backend in ("reference", "cpu"):
        layer = LIFRecurrent(inputs, N, LIFParameters(v_th=0.5), backend=backend)
        layer.recurrent_weights.requires_grad_(recurrent)
        if layer.input_weights is not None:
            layer.input_weights.requires_grad_(of_input)
        x = torch.rand(T, B, inputs or N, generator=generator(0)).requires_grad_(by_input)
        found.append(counted(layer, x, LIFState(*(torch.ones(B, N, requires_grad=by_state) for _ in range(3)))))
    assert found[0] == found[1]
    assert found[0][0] == 2 * T * B * N * (N + (inputs or 0))


@pytest.mark.parametrize("options", [{}, {"checkpoint_every": 3}])
def test_chunks_and_layers_of_a_chain_count_too(options: Any):
    found = []
    for backend in ("reference", "cpu"):
        net = SequentialState(*(LIFRecurrent(N, N, backend=backend) for _ in range(2)), **options)
        found.append(counted(net, torch.rand(T, B, N, generator=generator(0))))
    assert found[0] == found[1]


def test_a_counter_that_meets_the_first_way_back_counts_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flop_counter, "flop_registry", {})
    output = LIFRecurrent(M, N)(torch.rand(T, B, M))[0]
    assert not flop_counter.flop_registry
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    assert backward.get_total_flops() == 2 * B * N * ((2 * T - 1) * N + T * M)
