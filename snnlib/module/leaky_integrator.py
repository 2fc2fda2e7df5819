"""The path that Norse gives to :mod:`snnlib.module.li`."""

from snnlib.module.li import LI, LICell, LILinearCell

__all__ = ["LI", "LICell", "LILinearCell"]
