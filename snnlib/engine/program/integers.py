"""How large the integers of a step may become, which a program keeps in floats.

torch computes with integers of 32 or 64 bits, and a float32 is exact below ``LARGEST``.
"""

from collections.abc import Sequence

__all__ = ["LARGEST", "size_of"]

LARGEST = float(1 << 24)
"""Every integer below this is a float32."""
_SAME = {"same", "number", "neg", "abs", "relu", "sign"}
_CHOSEN = {"where", "maximum", "minimum", "clamp"}


def size_of(operator: str, sizes: Sequence[float]) -> float:
    """The largest magnitude of what an operator makes of integers up to these; infinite if nobody knows."""
    if operator in ("add", "sub"):
        return sum(sizes)
    if operator == "mul":
        return sizes[0] * sizes[1]
    return max(sizes) if operator in _SAME or operator in _CHOSEN else float("inf")
