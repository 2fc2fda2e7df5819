"""Every file of snnlib says which of its names are for others, and packages know each other one way."""

import ast
import symtable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "snnlib"
FILES = sorted(FOLDER.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_file_lists_names_that_exist(path: Path):
    """Read without being imported: a task may need packages that are not here."""
    text = path.read_text()
    listed = [
        ast.literal_eval(line.value)
        for line in ast.parse(text).body
        if isinstance(line, ast.Assign | ast.AnnAssign)
        and "__all__" in map(ast.unparse, getattr(line, "targets", None) or [line.target])
    ]
    assert len(listed) == 1, "__all__ has to be assigned once"
    symbols = symtable.symtable(text, str(path), "exec").get_symbols()
    known = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
    assert len(set(listed[0])) == len(listed[0])
    assert set(listed[0]) <= known


def test_there_are_files():
    assert len(FILES) > 150


def imported(path: Path) -> set[str]:
    """Modules of snnlib that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name for name in names if name.startswith("snnlib.")}


@pytest.mark.parametrize("package", ["", "engine"])
def test_packages_know_each_other_one_way(package: str):
    """Those beside each other in a folder; the benchmark alone knows tasks, whose flags it shares."""
    folder = FOLDER / package
    prefix = ".".join(["snnlib", *([package] if package else [])]) + "."
    packages = {path.name for path in folder.iterdir() if (path / "__init__.py").exists()}
    knows = {
        name: {found.removeprefix(prefix).split(".")[0] for path in (folder / name).rglob("*.py")
               for found in imported(path) if found.startswith(prefix)} & packages - {name}
        for name in packages
    }  # fmt: skip
    assert len(knows) > 3
    list(TopologicalSorter(knows).static_order())  # an error if there is a circle
    assert {name for name, found in knows.items() if "task" in found} <= {"benchmark"}
    assert not knows.get("engine", set()) | (knows.get("functional", set()) - {"engine"})
