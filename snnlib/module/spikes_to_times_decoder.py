"""The path that Norse gives to :mod:`snnlib.module.decode`."""

from snnlib.module.decode import SpikesToTimesDecoder

__all__ = ["SpikesToTimesDecoder"]
