"""What is generated, on disk under names made of its content: sources, and the machine code made of them."""

import functools
import hashlib
import importlib.util
import os
import tempfile
import threading
from pathlib import Path
from types import ModuleType

__all__ = ["keep", "kept", "load"]


def load(text: str, compiler: str) -> ModuleType:
    """Import generated source.

    Parameters:
        text: the source of a module.
        compiler: the name and version of what compiles it, a folder of the cache.
    """
    try:
        return _import_from(_folder(compiler), text)
    except (OSError, RuntimeError):  # nothing can be written there: this process has its own
        return _import_from(Path(_own_folder().name), text)


def kept(key: str, compiler: str) -> bytes | None:
    """What was given to :func:`keep` under this key, or None if it is not there, or not as it was written."""
    try:
        content = _place(key, compiler).read_bytes()
    except (OSError, RuntimeError):
        return None
    seal, value = content[:_SEAL], content[_SEAL:]
    return value if seal == _sealed(key, value) else None


def keep(key: str, compiler: str, value: bytes) -> None:
    """Write ``value`` for later processes; where nothing can be written they do without.

    Parameters:
        key: all that ``value`` was made from, and all that it is made for.
        compiler: as in :func:`load`.
        value: anything.
    """
    try:
        path = _place(key, compiler)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, _sealed(key, value) + value)
    except (OSError, RuntimeError):
        pass


_SEAL = hashlib.sha256().digest_size


def _sealed(key: str, value: bytes) -> bytes:
    """Begins a file: one that was cut off, or lies under the name of another key, is not taken for whole."""
    return hashlib.sha256(b"%d %s %s" % (len(value), key.encode(), value)).digest()


def _place(key: str, compiler: str) -> Path:
    return _folder(compiler) / f"snn_{_name(key)}.bin"


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _folder(compiler: str) -> Path:
    """A folder of the cache.

    Raises:
        RuntimeError: there is no home.
    """
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "snnlib" / compiler


def _write(path: Path, content: bytes) -> None:
    """All at once, so that other processes find the whole file or none."""
    fresh = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _import_from(folder: Path, text: str) -> ModuleType:
    path = folder / f"snn_{_name(text)}.py"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != text.encode():
        _write(path, text.encode())
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def _own_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder that lasts as long as the process."""
    return tempfile.TemporaryDirectory(prefix="snnlib-")
