"""Files of NIR by strangers: HDF5 with other values, links and groups in it than a graph has."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import h5py
import nir
import numpy as np

from tests.hostile.damage import damaged

__all__ = ["changes", "graph_files", "whole_graph"]

NODES = "node/nodes"
TYPES = (
    "Affine",
    "Linear",
    "Conv2d",
    "Flatten",
    "AvgPool2d",
    "SumPool2d",
    "Scale",
    "LIF",
    "CubaLIF",
    "IF",
    "LI",
)
Change = Callable[[h5py.File], None]


def whole_graph(path: Path) -> Path:
    """A file with a convolution, a flatten, a linear layer, and neurons with and without recurrent weights."""
    ones = np.ones(3)
    lif = nir.CubaLIF(ones * 0.01, ones * 0.01, ones, ones * 0, ones, ones * 0, ones)
    nodes = {
        "input": nir.Input(np.array([1, 4, 4])),
        "conv": nir.Conv2d((4, 4), np.ones((2, 1, 3, 3)), 1, 1, 1, 1, np.zeros(2)),
        "pool": nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flatten": nir.Flatten(np.array([2, 2, 2]), 0, -1),
        "linear": nir.Affine(np.ones((3, 8)), np.ones(3)),
        "scale": nir.Scale(ones),
        "lif": lif,
        "weights": nir.Linear(np.ones((3, 3))),
        "li": nir.LI(ones * 0.01, ones, ones * 0),
        "output": nir.Output(np.array([3])),
    }
    order = ["input", "conv", "pool", "flatten", "linear", "scale", "lif", "li", "output"]
    edges = [*pairwise(order), ("lif", "weights"), ("weights", "lif")]
    nir.write(path, nir.NIRGraph(nodes, edges, metadata={"dt": 0.001}, type_check=False))
    return path


def put(place: str, value: object) -> Change:
    def change(file: h5py.File) -> None:
        if place in file:
            del file[place]
        if value is not None:
            file[place] = value

    return change


def link(place: str, value: object) -> Change:
    def change(file: h5py.File) -> None:
        if place in file:
            del file[place]
        file[place] = file[value] if isinstance(value, str) else value

    return change


def array(place: str, shape: tuple[int, ...], **options: object) -> Change:
    """An array of which no value is there."""

    def change(file: h5py.File) -> None:
        del file[place]
        file.create_dataset(place, shape, "f4", **options)

    return change


def bomb(file: h5py.File) -> None:
    """Forty groups, each of which holds the next one twice."""
    group = file.create_group("node/metadata/bomb")
    for _ in range(40):
        inner = group.create_group("a")
        group["b"] = inner
        group = inner


def deep(file: h5py.File) -> None:
    file.create_group("node/" + "a/" * 900)


def edges(*pairs: tuple[str, str]) -> Change:
    return put("node/edges", np.array(pairs, dtype=h5py.string_dtype()))


def changes() -> Iterator[tuple[str, Change]]:
    """Names, and what is done to a file that is whole."""
    yield "no_node", put("node", None)
    yield "node_is_a_number", put("node", 3)
    for name in ("type", "nodes", "edges"):
        yield f"no_{name}", put(f"node/{name}", None)
        yield f"{name}_is_a_number", put(f"node/{name}", 3)
    yield "unknown_type", put("node/type", "Robot")
    yield "type_of_the_top", put("node/type", "LIF")
    yield "edges_are_floats", put("node/edges", np.ones((3, 2)))
    yield "edges_are_triples", put("node/edges", np.array([["a", "b", "c"]], dtype=h5py.string_dtype()))
    yield "edges_of_no_utf8", put("node/edges", np.array([[b"\xff", b"\xfe"]], dtype="S2"))
    yield "no_edges", edges()
    yield "cycle", edges(("input", "conv"), ("conv", "pool"), ("pool", "conv"), ("conv", "output"))
    yield "loop", edges(("input", "input"))
    yield "all_to_all", edges(*((a, b) for a in ("input", "conv", "lif") for b in ("conv", "lif", "output")))
    for told, value in (
        ("text", "soon"),
        ("nan", np.nan),
        ("zero", 0.0),
        ("a_list", np.ones(3)),
        ("inf", np.inf),
    ):
        yield f"dt_is_{told}", put("node/metadata/dt", value)
    wrong = {
        "text": "text",
        "bytes": np.bytes_(b"\xff\xfe"),
        "nothing": np.zeros(0),
        "a_number": 1.5,
        "complex": np.ones(3) * 1j,
        "nan": np.full((3, 3), np.nan),
        "four_dimensional": np.ones((1, 2, 3, 4)),
    }
    fields = {"conv": ("weight", "stride", "bias"), "pool": ("kernel_size",), "linear": ("weight", "bias")}
    fields |= {
        "scale": ("scale",),
        "lif": ("tau_mem", "r", "v_threshold"),
        "weights": ("weight",),
        "li": ("tau",),
    }
    allowed = {("conv", "stride", "a_number"), ("scale", "scale", "a_number"), ("scale", "scale", "nan")}
    allowed |= {(node, name, "a_number") for node in ("lif", "li") for name in fields[node]}
    allowed |= {("pool", "kernel_size", "a_number"), ("weights", "weight", "nan")}
    for node, names in fields.items():
        for name in names:
            yield f"{node}_without_{name}", put(f"{NODES}/{node}/{name}", None)
            for told, value in wrong.items():
                if (node, name, told) not in allowed:
                    yield f"{node}_{name}_is_{told}", put(f"{NODES}/{node}/{name}", value)
    for name, value in (
        ("stride", 0),
        ("stride", -1),
        ("groups", 0),
        ("groups", 7),
        ("padding", "somehow"),
        ("padding", -5),
        ("dilation", 0),
        ("input_shape", np.array([-4, 4])),
    ):
        yield f"conv_{name}_is_{value!s:.8}", put(f"{NODES}/conv/{name}", value)
    yield "conv_padding_is_huge", put(f"{NODES}/conv/padding", 10**6)
    yield "pool_of_nothing", put(f"{NODES}/pool/kernel_size", np.array([0, 0]))
    yield "flatten_of_what_is_not_there", put(f"{NODES}/flatten/start_dim", 9)
    for told, shape in (
        ("negative", [-1, 4, 4]),
        ("huge", [10**6] * 3),
        ("overflowing", [2**62] * 3),
        ("empty", []),
    ):
        yield f"input_is_{told}", put(f"{NODES}/input/shape", np.array(shape, dtype=np.int64))
    yield "input_is_text", put(f"{NODES}/input/shape", "text")
    yield "two_inputs", put(f"{NODES}/output/type", "Input")
    for kind in TYPES:
        yield (
            f"lif_is_a_{kind}" if kind != "CubaLIF" else "li_is_a_CubaLIF",
            put(f"{NODES}/{'lif' if kind != 'CubaLIF' else 'li'}/type", kind),
        )
    yield "lif_has_an_unknown_surrogate", put(f"{NODES}/lif/metadata/method", "steep")
    yield "lif_alpha_is_text", put(f"{NODES}/lif/metadata/alpha", "wide")
    yield "group_in_itself", link(f"{NODES}/lif/more", "node")
    yield "group_in_itself_as_a_node", link(f"{NODES}/again", "node")
    yield "group_with_two_names", link(f"{NODES}/again", f"{NODES}/lif")
    yield "soft_link", link(f"{NODES}/lif/tau_mem", h5py.SoftLink(f"/{NODES}/lif/tau_syn"))
    yield "soft_link_to_itself", link(f"{NODES}/lif/tau_mem", h5py.SoftLink(f"/{NODES}/lif/tau_mem"))
    yield "external_link", link(f"{NODES}/lif/tau_mem", h5py.ExternalLink("/etc/hostname", "/"))
    yield "values_of_another_file", array(f"{NODES}/lif/r", (3,), external=[("/etc/hostname", 0, 12)])
    yield "huge_array", array(f"{NODES}/linear/weight", (10**6, 10**6), chunks=(100, 100))
    yield "huge_array_with_gzip", array(f"{NODES}/linear/weight", (10**5, 10**5), compression="gzip")
    yield "bomb", bomb
    yield "deep", deep


def graph_files(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of files of HDF5 that are damaged."""
    yield from ((name, content) for name, content in damaged(whole, 6, cuts=12, flips=0))
