"""A Sphinx extension: fills in what pages leave to the build.

A line ``<!-- built: NAME ARGUMENTS -->`` of a page becomes what NAME in :mod:`docs._ext.pages` makes of it.
Figures are written beside Sphinx's own intermediate files, never among the pages.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

from docs._ext import pages

__all__ = ["setup"]

_MARK = re.compile(r"^<!-- built: (.+) -->$", flags=re.MULTILINE)


def _fill(app: Sphinx, page: str, content: list[str]) -> None:
    folder = Path(app.doctreedir) / "figures"
    figures = pages.Figures(folder, os.path.relpath(folder, Path(app.env.doc2path(page)).parent))

    def built(mark: re.Match[str]) -> str:
        name, *arguments = mark[1].split()
        if name not in pages.MADE:
            raise ValueError(f"{page}: built must be one of {sorted(pages.MADE)}, got {mark[1]!r}")
        return pages.MADE[name](figures, *arguments)

    content[0] = _MARK.sub(built, content[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}
