"""Source as a template: words in braces, and lines in the place of a block's name."""

from collections.abc import Mapping, Sequence

__all__ = ["filled"]


def filled(template: str, blocks: Mapping[str, Sequence[str]], **words: object) -> str:
    """The template with its words, and with the lines of its blocks where ``<name>`` is a line of its own.

    Lines of a block, each of which may be several, are as far to the right as its name was.
    """
    text: list[str] = []
    for line in template.format(**words).splitlines():
        key = line.strip()
        margin = line.removesuffix(key)
        lines = "\n".join(blocks[key[1:-1]]).splitlines() if key.startswith("<") else [key]
        text += [(margin + one).rstrip() for one in lines]
    return "\n".join(text) + "\n"
