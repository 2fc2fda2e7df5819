"""``scan`` in the plain loop, for tests of the steps and not of the engine."""

import functools

from snnlib import engine

__all__ = ["scan"]

scan = functools.partial(engine.scan, backend="reference")
