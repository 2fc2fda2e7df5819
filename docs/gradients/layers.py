"""Print the tables of layers of docs/gradients.md: time and memory of the adjoint beside a surrogate.

    python -m docs.gradients.layers [--device=cuda] [--features=16384]

Each layer runs forward and backward, T=500, B=16, N=512 or as many as asked for (recurrent: T=1000, B=128,
N=128); medians of 20 passes after 5, both methods in turn in one process, times in ms. Saved: what autograd
keeps beside input and output, in floats a neuron and step. The second table has the time of the adjoint,
forward and backward, as a multiple of the surrogate's, also where fewer inputs spike and so fewer neurons.
"""

import argparse
from typing import NamedTuple

import torch
from torch import Tensor

from docs.timed import in_turn
from snnlib import (
    IAF,
    LIF,
    LSNN,
    IAFParameters,
    Izhikevich,
    IzhikevichParameters,
    LIFAdEx,
    LIFAdExParameters,
    LIFBox,
    LIFBoxParameters,
    LIFEx,
    LIFExParameters,
    LIFParameters,
    LIFRecurrent,
    LIFRefrac,
    LIFRefracParameters,
    LSNNParameters,
    LSNNRecurrent,
)
from snnlib.benchmark.measure import saved_bytes
from snnlib.engine import keep_memory

FEED_FORWARD = {
    LIF: LIFParameters,
    LIFBox: LIFBoxParameters,
    IAF: IAFParameters,
    LIFRefrac: LIFRefracParameters,
    LSNN: LSNNParameters,
    LIFEx: LIFExParameters,
    LIFAdEx: LIFAdExParameters,
    Izhikevich: IzhikevichParameters,
}
DRIVE = {IAF: 0.4, LIFBox: 20.0, Izhikevich: 100.0}
"""Size of an input spike, so that some percent of steps have a spike; 4 for the others."""
SHARES = (0.1, 0.05, 0.02)
"""Of the inputs that spike in a step."""
METHODS = ("super", "adjoint")


class Cost(NamedTuple):
    """Of a layer, by one method."""

    forward: float
    """ms"""
    backward: float
    """ms"""
    saved: float
    """Floats a neuron and step."""
    rate: float
    """The share of steps with a spike."""


def costs(layers: dict[str, torch.nn.Module], x: Tensor) -> dict[str, Cost]:
    """Of each method, measured in turn."""
    size = getattr(layers["super"], "hidden_size", x.shape[2])
    gradient = torch.randn(*x.shape[:2], size, device=x.device)
    runs = {method: lambda leaf, layer=layer: layer(leaf)[0] for method, layer in layers.items()}
    times = in_turn(runs, x, gradient, passes=20, before=5)
    return {method: Cost(*times[method], *saved(layer, x)) for method, layer in layers.items()}


def saved(layer: torch.nn.Module, x: Tensor) -> tuple[float, float]:
    """Floats a neuron and step, and the share of steps with a spike."""
    leaf = x.detach().requires_grad_()
    z, kept = saved_bytes(lambda: layer(leaf)[0], (leaf, *layer.parameters()))
    z.sum().backward()  # what went through hooks is only given back on the way back
    return kept / 4 / z.numel(), float(z.detach().mean())


def row(name: str, found: dict[str, Cost]) -> None:
    cells = [f"{c.forward:.2f} | {c.backward:.2f} | {c.saved:.2f}" for c in found.values()]
    print(f"| {name} | {found['adjoint'].rate:.1%} | " + " | ".join(cells) + " |", flush=True)


def compared(name: str, found: list[dict[str, Cost]]) -> None:
    cells = []
    for each in found:
        surrogate, exact = (c.forward + c.backward for c in each.values())
        cells.append(f"{each['adjoint'].rate:.1%} | {exact / surrogate:.2f}")
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def feed_forward(
    layer: type[torch.nn.Module], share: float, features: int, device: torch.device
) -> dict[str, Cost]:
    """Where this share of the inputs spikes."""
    spikes = (torch.rand(500, 16, features, device=device) < share).float()
    made = {method: layer(FEED_FORWARD[layer](method=method)) for method in METHODS}
    return costs(made, DRIVE.get(layer, 4.0) * spikes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="where the layers run: cpu or cuda")
    parser.add_argument("--features", type=int, default=512, help="neurons of a feed-forward layer")
    arguments = parser.parse_args()
    device, features = torch.device(arguments.device), arguments.features
    keep_memory()
    print("| layer | rate | super: forward | backward | saved | adjoint: forward | backward | saved |")
    print("|---|---|---|---|---|---|---|---|")
    torch.manual_seed(0)
    most = {}
    for layer in FEED_FORWARD:
        most[layer] = feed_forward(layer, SHARES[0], features, device)
        row(layer.__name__, most[layer])
    spikes = (torch.rand(1000, 128, 128, device=device) < SHARES[0]).float()
    for layer, parameters in ((LIFRecurrent, LIFParameters), (LSNNRecurrent, LSNNParameters)):
        made = {}
        for method in METHODS:
            torch.manual_seed(1)
            made[method] = layer(128, 128, parameters(method=method)).to(device)
        row(layer.__name__, costs(made, spikes))
    print("\n| layer |" + " rate | adjoint / super |" * len(SHARES))
    print("|---|" + "---|---|" * len(SHARES))
    for layer, found in most.items():
        compared(
            layer.__name__, [found, *(feed_forward(layer, share, features, device) for share in SHARES[1:])]
        )


if __name__ == "__main__":
    main()
