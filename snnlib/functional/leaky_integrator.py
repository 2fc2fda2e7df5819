"""The path that Norse gives to :mod:`snnlib.functional.li`."""

from snnlib.functional.li import LIParameters, LIState, li_feed_forward_step, li_step

__all__ = ["LIParameters", "LIState", "li_feed_forward_step", "li_step"]
