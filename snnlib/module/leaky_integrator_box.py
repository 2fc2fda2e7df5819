"""The path that Norse gives to :mod:`snnlib.module.li_box`."""

from snnlib.module.li_box import LIBox, LIBoxCell

__all__ = ["LIBox", "LIBoxCell"]
