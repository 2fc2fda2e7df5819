"""Tasks that run from the command line: ``python -m snnlib.task`` lists them."""

__all__: list[str] = []
