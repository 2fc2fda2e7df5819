"""A part of Python as machine code by LLVM: the language in which the CPU's loops are written."""

__all__: list[str] = []
