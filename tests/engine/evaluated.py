"""Lines of a program, computed by NumPy in float64."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from snnlib.engine.emit.expression import CALLED, INFIX, expression
from snnlib.engine.program import Line

_WORDS = INFIX | {"logical_not": "~{0}", "bitwise_not": "~{0}"}
_NAMES = {name: getattr(np, name) for name in (*CALLED, "where", "abs")} | {"F": np.float64, "np": np}


def values_of(lines: Sequence[Line], given: Mapping[str, Any]) -> dict[str, Any]:
    """All that the lines give, and what they begin with."""
    known = dict(given)
    for line in lines:
        known[line.name] = eval(expression(line, _WORDS), _NAMES, known)
    return known
