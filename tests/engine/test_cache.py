"""Generated sources on disk."""

from pathlib import Path

import pytest

from snnlib.engine.cache import load


@pytest.mark.parametrize("damage", [b"", b"value = 2\n", b"\xff\xfe value = 1\n"])
def test_a_damaged_source_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = "value = 1  # \N{GREEK SMALL LETTER TAU}\n"
    assert load(text, "none-1").value == 1
    (path,) = tmp_path.rglob("*.py")
    path.write_bytes(damage)
    assert load(text, "none-1").value == 1
    assert path.read_bytes() == text.encode()
