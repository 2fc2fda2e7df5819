"""snnlib and its peers side by side: the same sequences, forward and backward, one process each.

``python -m snnlib.benchmark --help`` shows what can be chosen, ``docs/performance.md`` says how it is measured.
"""

__all__: list[str] = []
