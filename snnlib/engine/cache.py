"""Generated sources on disk, each under a name made of its content; compilers keep machine code beside them."""

import functools
import hashlib
import importlib.util
import os
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType

__all__ = ["load"]


def load(text: str, compiler: str) -> ModuleType:
    """Import generated source.

    Parameters:
        text: the source of a module.
        compiler: the name and version of what compiles it, a folder of the cache.
    """
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    try:
        return _import_from(Path(root) / "snnlib" / compiler, text)
    except (OSError, RuntimeError):  # neither we nor Numba can write there: this process compiles for itself
        return _import_from(Path(_own_folder().name), text)


def _import_from(folder: Path, text: str) -> ModuleType:
    path = folder / f"snn_{hashlib.sha256(text.encode()).hexdigest()[:24]}.py"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        fresh = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # Numba finds cached functions by the name of their module
    spec.loader.exec_module(module)
    return module


@functools.cache
def _own_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder that lasts as long as the process."""
    return tempfile.TemporaryDirectory(prefix="snnlib-")
