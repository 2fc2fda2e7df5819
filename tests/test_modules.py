"""Every file of snnlib says which of its names are for others."""

import ast
import symtable
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
