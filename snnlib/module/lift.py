"""The path that Norse gives to :mod:`snnlib.module.sequential`."""

from snnlib.module.sequential import Lift

__all__ = ["Lift"]
