"""Training on several processes: gradients are those of one process with the joined batch."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from snnlib import LI, LIF, LIFParameters, LIFRecurrent, SequentialState
from tests.copies import COPIES

PROCESSES = 2
T, B = 8, 6


METHODS = ("sigmoid", "adjoint")


def network(method: str) -> SequentialState:
    """The same weights in every process."""
    torch.manual_seed(0)
    p = LIFParameters(v_th=0.2, tau_mem_inv=nn.Parameter(torch.full((5,), 120.0)), method=method, alpha=1.0)
    hearing = LIFParameters(v_th=0.2, method=method, alpha=1.0)
    readout_rate = nn.Parameter(torch.tensor(90.0))
    readout = LI(LI().p._replace(tau_mem_inv=readout_rate))
    net = SequentialState(
        nn.Linear(3, 5), LIF(p), LIFRecurrent(5, 4, hearing), nn.Linear(4, 2), readout, checkpoint_every=3
    )
    return net.double()


def data() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(T, B, 3, generator=source, dtype=torch.float64)
    return x, torch.randn(B, 2, generator=source, dtype=torch.float64)


def gradients(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """After two steps of descent, so that the parameters must have stayed in step too."""
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(3):
        optimiser.zero_grad()
        voltage, _ = net(x)
        (voltage[-1] - y).square().mean().backward()
        optimiser.step()
    return {name: value.grad for name, value in net.named_parameters()}


def work(rank: int, folder: str) -> None:
    """One process: its part of the batch, and what it found in a file."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=PROCESSES)
    try:
        x, y = data()
        part = slice(rank * B // PROCESSES, (rank + 1) * B // PROCESSES)
        for method in METHODS:
            found = gradients(DistributedDataParallel(network(method)), x[:, part], y[part])
            kept = {name.removeprefix("module."): value for name, value in found.items()}
            torch.save(kept, f"{folder}/{method}.{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_gradients_of_two_processes_are_those_of_the_joined_batch(tmp_path: Path) -> None:
    # first, so that the loops are on disk: each process would compile them
    alone = {method: gradients(network(method), *data()) for method in METHODS}
    mp.start_processes(work, args=(str(tmp_path),), nprocs=PROCESSES, start_method=COPIES.get_start_method())
    for method, wanted in alone.items():
        assert "1.tau_mem_inv" in wanted
        assert "4.tau_mem_inv" in wanted
        for rank in range(PROCESSES):
            found = torch.load(tmp_path / f"{method}.{rank}.pt")
            assert found.keys() == wanted.keys()
            for name, gradient in wanted.items():
                assert gradient.abs().max() > 0, name
                torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)
        # the halves differ, or averaging them would have shown nothing
        x, y = data()
        half = gradients(network(method), x[:, : B // 2], y[: B // 2])
        assert not torch.allclose(half["1.tau_mem_inv"], wanted["1.tau_mem_inv"])
