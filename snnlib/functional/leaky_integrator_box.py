"""The path that Norse gives to :mod:`snnlib.functional.li_box`."""

from snnlib.functional.li_box import LIBoxParameters, LIBoxState, li_box_feed_forward_step, li_box_step

__all__ = ["LIBoxParameters", "LIBoxState", "li_box_feed_forward_step", "li_box_step"]
