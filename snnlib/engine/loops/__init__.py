"""What the loops for the CPU call, in their own language, and the memory that it needs."""

__all__: list[str] = []
