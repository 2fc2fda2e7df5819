"""What is measured: the workloads, their sizes, and which rows each table has."""

from typing import NamedTuple

from snnlib.engine.scan import BACKENDS

__all__ = ["NEURONS", "OURS", "PEERS", "SNNLIB", "WORKLOADS", "Spec", "Table", "tables"]

Size = tuple[int, int, int]
"""Time steps T, sequences B, neurons N."""

SNNLIB = tuple(f"snnlib-{backend}" for backend in BACKENDS)
OURS = SNNLIB[0]
"""The row that the column ``x snnlib`` divides by."""

PEERS = ("floor", *SNNLIB, "norse", "snntorch", "spikingjelly", "sinabs")

NEURONS = ("LIF", "LSNN", "LIFAdEx", "Izhikevich", "own step")

_NORSE_ENTRY = (
    "Norse's published entry in open-neuromorphic's benchmark applies one step of LIFCell to the whole "
    "[T, B, N] tensor: it does not simulate time and has no row. Every peer with a row simulates it."
)
_CONV_NET = (
    "The net of every row is Norse's ConvNet4: convolutions of 5x5 to 32 and 64 channels, each with LIF and "
    "then pooling; linear to N, LIF; linear to 10, leaky readout, maximum over time, cross entropy. Backward "
    "includes Adam's step. Convolutions and linears of snnlib's rows, the reference apart, multiply only what "
    "is not zero (SpikeConv2d, SpikeLinear); all others are torch's."
)


class Spec(NamedTuple):
    """One row: all that its process needs to know."""

    row: str
    """Its name in the table."""
    base: str
    """The row whose figure the column ``x base`` divides by."""
    net: str
    """What runs: "layer", "linear" (a Linear before the layer), "recurrent" or "conv"."""
    neuron: str
    peer: str
    seq_length: int
    batch_size: int
    features: int
    measure: str = "time"
    """"time", "memory" or "start"; "gate" is the comparison with the reference."""
    device: str = "cpu"
    threads: int | None = None
    seed: int = 0
    repeats: int = 10
    warmup: int = 2
    seconds: float = 5.0
    keep_memory: bool = False

    @property
    def backend(self) -> str:
        """The backend of a row of snnlib's; empty for the others."""
        return self.peer.removeprefix("snnlib-") if self.peer.startswith("snnlib-") else ""


class Table(NamedTuple):
    """Rows that belong together."""

    workload: str
    title: str
    measure: str
    rows: list[Spec]
    base: str
    """What the rows are compared with."""
    notes: tuple[str, ...]


class _Workload(NamedTuple):
    help: str
    net: str
    sizes: tuple[Size, ...]
    base: str
    neurons: tuple[str, ...] = ("LIF",)
    measure: str = "time"
    peers: tuple[str, ...] = PEERS
    notes: tuple[str, ...] = ()


_LAYER = ((500, 16, 512),)

WORKLOADS = {
    "lif": _Workload("one layer of LIF", "layer", _LAYER, "copy of the tensor"),
    "linear_lif": _Workload("Linear(N, N), then LIF", "linear", _LAYER, "Linear alone", notes=(_NORSE_ENTRY,)),
    "recurrent": _Workload(
        "LIF and LSNN with recurrent weights",
        "recurrent",
        ((1000, 128, 128), (1000, 8, 64)),
        "torch.nn.LSTM",
        ("LIF", "LSNN"),
    ),
    "conv": _Workload(
        "one training step of a convolutional net",
        "conv",
        ((32, 64, 1024),),
        "net without neurons",
        notes=(_CONV_NET,),
    ),
    "neurons": _Workload("other neurons beside LIF", "layer", _LAYER, "LIF", NEURONS, peers=SNNLIB),
    "memory": _Workload(
        "what LIF holds for backward, and the peak",
        "layer",
        _LAYER,
        "copy of the tensor",
        measure="memory",
    ),
    "memory_recurrent": _Workload(
        "the same with recurrent weights",
        "recurrent",
        ((500, 32, 128),),
        "torch.nn.LSTM",
        measure="memory",
    ),
    "start": _Workload(
        "a process's first call",
        "layer",
        _LAYER,
        "copy of the tensor",
        measure="start",
        peers=("floor", *SNNLIB),
    ),
}


def tables(
    names: list[str],
    peers: list[str],
    size: tuple[int | None, int | None, int | None],
    common: dict[str, object],
) -> list[Table]:
    """The tables of a run.

    Parameters:
        names: the workloads wanted.
        peers: the peers wanted; "snnlib" means all of its backends.
        size: T, B and N in place of the workload's own; None leaves that one.
        common: what all rows share: device, threads, seed, repeats, warmup, seconds.
    """
    wanted = [peer for peer in PEERS if peer in peers or (peer in SNNLIB and "snnlib" in peers)]
    found = []
    for name in names:
        work = WORKLOADS[name]
        sizes = dict.fromkeys(_merged(own, size) for own in work.sizes)
        # the neurons are the rows of one table, or there is a table for each
        groups = [work.neurons] if name == "neurons" else [(neuron,) for neuron in work.neurons]
        found += [_table(name, own, group, wanted, common) for own in sizes for group in groups]
    return found


def _merged(own: Size, given: tuple[int | None, int | None, int | None]) -> Size:
    steps, batch, features = (mine if new is None else new for mine, new in zip(own, given, strict=True))
    return steps, batch, features


def _table(
    name: str, size: Size, neurons: tuple[str, ...], wanted: list[str], common: dict[str, object]
) -> Table:
    work = WORKLOADS[name]
    base = "LIF, {}" if name == "neurons" else work.base
    named = {"floor": work.base}
    rows = [
        Spec(
            row=f"{neuron}, {peer}" if name == "neurons" else named.get(peer, peer),
            base=base.format(peer),
            net=work.net,
            neuron=neuron,
            peer=peer,
            seq_length=size[0],
            batch_size=size[1],
            features=size[2],
            measure=work.measure,
        )._replace(**common)  # type: ignore[arg-type]
        for peer in wanted
        if peer in work.peers
        for neuron in neurons
    ]
    title = ", ".join((name, *neurons[:1], "T={} B={} N={}".format(*size)))
    if name == "neurons":
        title = "{}, T={} B={} N={}".format(name, *size)
    return Table(name, title, work.measure, rows, work.base, work.notes)
