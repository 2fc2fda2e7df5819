"""What must hold of a file of NIR before nir reads it: it may come from a stranger."""

from os import PathLike

import h5py

__all__ = ["check_file"]

_DEPTH = 100
"""Groups within groups; a graph within a graph is two."""
_SMALL, _RATIO = 2**20, 1100
"""Bytes that any array may have, and how much smaller than its values gzip can be."""


def check_file(path: str | PathLike[str]) -> None:
    """Refuse links, groups with two names, which may hold themselves, and arrays that are not there.

    HDF5 has all of these. nir follows the first two, to other files or without an end, and takes memory for the
    last.

    Raises:
        ValueError: names what is refused.
        OSError: it is no file of HDF5.
    """
    with h5py.File(path, "r") as file:
        _check_group(file, 0, {file.id})


def _check_group(group: h5py.Group, depth: int, seen: set[h5py.h5g.GroupID | h5py.h5d.DatasetID]) -> None:
    for name in group:
        place = f"{group.name.rstrip('/')}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{place} is a link")
        item = group[name]
        if item.id in seen or depth > _DEPTH:
            raise ValueError(f"{place} has a second name, or lies within more than {_DEPTH} groups")
        seen.add(item.id)
        if isinstance(item, h5py.Dataset):
            _check_array(item, place)
        elif isinstance(item, h5py.Group):
            _check_group(item, depth + 1, seen)


def _check_array(item: h5py.Dataset, place: str) -> None:
    if item.external or item.is_virtual:
        raise ValueError(f"the values of {place} are in another file")
    there = item.id.get_storage_size()
    if item.nbytes > max(_SMALL, _RATIO * there):
        raise ValueError(f"{place} declares {item.dtype} of shape {list(item.shape)} and has {there} bytes")
