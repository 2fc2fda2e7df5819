"""Print the table of layers of docs/gradients.md: time and memory of the adjoint beside a surrogate.

    python -m docs.gradients.layers

Each layer runs forward and backward, T=500, B=16, N=512 (recurrent: T=1000, B=128, N=128); medians of 20 passes
after 5, both methods in turn in one process, times in ms. Saved: what autograd keeps beside input and output,
in floats a neuron and step.
"""

import time
from statistics import median

import torch
from torch import Tensor

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


def seconds(layer: torch.nn.Module, x: Tensor, gradient: Tensor) -> tuple[float, float]:
    leaf = x.detach().requires_grad_()
    start = time.perf_counter()
    z, _ = layer(leaf)
    half = time.perf_counter()
    z.backward(gradient)
    return half - start, time.perf_counter() - half


def saved(layer: torch.nn.Module, x: Tensor) -> tuple[float, float]:
    """Floats a neuron and step, and the share of steps with a spike."""
    sizes: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    leaf = x.detach().requires_grad_()
    own = [leaf, *layer.parameters()]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        z, _ = layer(leaf)
    for value in (*own, z):
        sizes.pop(value.untyped_storage().data_ptr(), None)
    return sum(sizes.values()) / 4 / z.numel(), float(z.detach().mean())


def row(name: str, layers: dict[str, torch.nn.Module], x: Tensor) -> None:
    gradient = torch.randn(*x.shape[:2], getattr(layers["super"], "hidden_size", x.shape[2]))
    times: dict[str, list[tuple[float, float]]] = {method: [] for method in layers}
    for turn in range(25):
        for method, layer in layers.items():
            taken = seconds(layer, x, gradient)
            times[method] += [taken] if turn >= 5 else []
    cells = []
    for method, layer in layers.items():
        forward, backward = (1e3 * median(t[k] for t in times[method]) for k in (0, 1))
        size, rate = saved(layer, x)
        cells += [f"{forward:.2f}", f"{backward:.2f}", f"{size:.2f}"]
    print(f"| {name} | {rate:.1%} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    keep_memory()
    print("| layer | rate | super: forward | backward | saved | adjoint: forward | backward | saved |")
    print("|---|---|---|---|---|---|---|---|")
    torch.manual_seed(0)
    spikes = (torch.rand(500, 16, 512) < 0.1).float()
    for layer, parameters in FEED_FORWARD.items():
        made = {method: layer(parameters(method=method)) for method in ("super", "adjoint")}
        row(layer.__name__, made, DRIVE.get(layer, 4.0) * spikes)
    spikes = (torch.rand(1000, 128, 128) < 0.1).float()
    for layer, parameters in ((LIFRecurrent, LIFParameters), (LSNNRecurrent, LSNNParameters)):
        made = {}
        for method in ("super", "adjoint"):
            torch.manual_seed(1)
            made[method] = layer(128, 128, parameters(method=method))
        row(layer.__name__, made, spikes)


if __name__ == "__main__":
    main()
