"""What torch.compile gains for a net of snnlib: a training step and a forward pass, with and without it.

python docs/export/compile.py

prints the rows of the table in docs/export.md: the best of several runs in ms, and how long compiling took.
"""

import time
from collections.abc import Callable

import torch

from snnlib import LI, LIF, LIFRecurrent, SequentialState
from snnlib.engine import keep_memory

T, B = 100, 64
NETS: dict[str, Callable[[], torch.nn.Module]] = {
    "two LIF layers, 512 neurons each": lambda: SequentialState(
        torch.nn.Linear(128, 512), LIF(), torch.nn.Linear(512, 512), LIF(), torch.nn.Linear(512, 10), LI()
    ),
    "128 recurrent LIF neurons": lambda: SequentialState(
        LIFRecurrent(128, 128), torch.nn.Linear(128, 10), LI()
    ),
    "the same, with layer norm and GELU before": lambda: SequentialState(
        torch.nn.Linear(128, 512),
        torch.nn.LayerNorm(512),
        torch.nn.GELU(),
        torch.nn.Linear(512, 128),
        LIFRecurrent(128, 128),
        torch.nn.Linear(128, 10),
        LI(),
    ),
}


def best(run: Callable[[], object], times: int = 10) -> float:
    """The shortest of several runs, in ms."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(1e3 * (time.perf_counter() - start))
    return min(found)


def measure(make: Callable[[], torch.nn.Module]) -> list[float]:
    """Training step and forward pass in ms, each without and with torch.compile; the seconds of compiling."""
    torch.manual_seed(0)
    net, x = make(), 2 * torch.rand(T, B, 128)
    compiled = torch.compile(net)

    def train(net: torch.nn.Module) -> None:
        net.zero_grad()
        net(x)[0].pow(2).mean().backward()

    def infer(net: torch.nn.Module) -> None:
        with torch.no_grad():
            net(x)

    train(net)
    infer(net)
    start = time.perf_counter()
    train(compiled)
    infer(compiled)
    seconds = time.perf_counter() - start
    # in turns, so that what else the machine does meets both
    rounds = [[best(lambda f=f, n=n: f(n)) for f in (train, infer) for n in (net, compiled)] for _ in range(3)]
    return [*(min(column) for column in zip(*rounds, strict=True)), seconds]


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_memory()  # as the tasks do
    for name, make in NETS.items():
        *figures, seconds = measure(make)
        print(
            f"| {name} | " + " | ".join(f"{figure:.1f}" for figure in figures) + f" | {seconds:.0f} |",
            flush=True,
        )
