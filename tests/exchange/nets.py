"""Networks that NIR can express, each small and spiking, and what runs them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from snnlib import (
    IAF,
    LI,
    LIF,
    IAFParameters,
    LIFBox,
    LIFBoxParameters,
    LIFParameters,
    LIFRecurrent,
    LIParameters,
    RecurrentLayer,
    SequentialState,
    SpikeConv2d,
    SpikeLinear,
    iaf_feed_forward_step,
    lif_box_feed_forward_step,
)

T, B, M, N = 50, 3, 12, 20

LIF_P = LIFParameters(tau_syn_inv=250.0, tau_mem_inv=98.0, v_th=0.11)  # 1 / (1 / 98) is not 98
BOX_P = LIFBoxParameters(tau_mem_inv=200.0, v_th=0.06)


def spikes(*features: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.rand(T, B, *features) < 0.3).to(dtype)


def chain(*modules: nn.Module) -> SequentialState:
    """Neurons behind a Linear, in the plain loop: nothing to compile."""
    return plain(SequentialState(nn.Linear(M, N), *modules))


def plain(net: Any) -> Any:
    for module in net.modules():
        if hasattr(module, "backend"):
            module.backend = "reference"
    return net


def run(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return plain(net)(x)[0]


def values(low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape)


NETS: dict[str, Callable[[], SequentialState]] = {
    "LI": lambda: chain(LI(LIParameters(tau_syn_inv=300.0, v_leak=0.1))),
    "LI without a synapse": lambda: chain(LI(LIParameters(tau_syn_inv=1 / 0.0007), dt=0.0007)),
    "LI, learned": lambda: chain(LI(LIParameters(tau_mem_inv=nn.Parameter(values(50, 200, N))))),
    "LIF": lambda: chain(LIF(LIF_P)),
    "LIF, another dt": lambda: chain(LIF(LIF_P, dt=3e-4)),
    "LIF, leak and reset": lambda: chain(LIF(LIF_P._replace(v_leak=-0.05, v_reset=0.02))),
    "LIF, a value a neuron": lambda: chain(
        LIF(
            LIFParameters(
                tau_syn_inv=values(100, 500, N),
                tau_mem_inv=values(50, 300, N),
                v_leak=values(-0.1, 0.1, N),
                v_th=values(0.11, 0.3, N),
                v_reset=values(-0.2, 0.0, N),
            )
        )
    ),
    "LIF, one tensor": lambda: chain(
        LIF(LIF_P._replace(tau_mem_inv=torch.tensor(98.3), v_th=torch.tensor(0.1)))
    ),
    "LIFBox": lambda: chain(LIFBox(BOX_P)),
    "LIFBox, a value a neuron": lambda: chain(
        LIFBox(LIFBoxParameters(tau_mem_inv=values(100, 300, N), v_th=values(0.03, 0.1, N), v_reset=-0.1))
    ),
    "IAF": lambda: chain(IAF()),
    "IAF, a value a neuron": lambda: chain(
        IAF(IAFParameters(v_th=values(0.5, 1.5, N), v_reset=values(-0.5, 0.2, N)))
    ),
    "LIFRecurrent": lambda: plain(SequentialState(LIFRecurrent(M, N, LIF_P, autapses=True))),
    "LIFRecurrent of currents": lambda: chain(LIFRecurrent(None, N, LIF_P)),
    "LIFBox, recurrent": lambda: chain(RecurrentLayer(lif_box_feed_forward_step, None, N, BOX_P)),
    "IAF, recurrent": lambda: plain(SequentialState(RecurrentLayer(iaf_feed_forward_step, M, N))),
    "several": lambda: chain(
        LIF(LIF_P),
        LIFRecurrent(N, 15, LIF_P._replace(v_th=values(0.1, 0.4, 15))),
        nn.Linear(15, 9, bias=False),
        LIFBox(BOX_P),
        nn.Sequential(nn.Linear(9, 4), nn.Identity()),
        SequentialState(LI()),
    ),
}


def conv_net() -> SequentialState:
    return plain(
        SequentialState(
            nn.Conv2d(2, 4, 3, padding=1, groups=2, bias=False),
            LIF(LIF_P._replace(v_th=0.05, tau_mem_inv=values(50, 200, 4, 1, 1))),
            nn.AvgPool2d(2),
            SpikeConv2d(4, 6, (2, 3), stride=(1, 2), padding="valid", dilation=(2, 1)),
            IAF(IAFParameters(v_th=0.3)),
            nn.AvgPool2d(2, 1, padding=1, divisor_override=1),
            nn.Flatten(),
            SpikeLinear(36, 7),
            LIFBox(BOX_P),
        )
    )
