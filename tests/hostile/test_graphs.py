"""Graphs of NIR from strangers."""

from pathlib import Path

import h5py

from snnlib import from_nir
from tests.hostile import graphs
from tests.hostile.attack import Attack, told
from tests.hostile.damage import damaged


def test_graphs(tmp_path: Path):
    attack, path = Attack(tmp_path), tmp_path / "net.nir"
    whole = graphs.whole_graph(tmp_path / "whole.nir").read_bytes()
    from_nir(tmp_path / "whole.nir")
    for name, change in graphs.changes():
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            change(file)
        attack.case(name, lambda: told(lambda: from_nir(path), ValueError))
    for name, content in graphs.graph_files(whole):
        path.write_bytes(content)
        attack.case(name, lambda: told(lambda: from_nir(path), ValueError))
    for name, content in damaged(whole, 9, cuts=0, flips=60):
        path.write_bytes(content)
        attack.case(name, lambda: told(lambda: from_nir(path), ValueError), may_pass=True)
    attack.end(190)
