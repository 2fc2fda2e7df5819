"""List the tasks: the first line of each script beside this file, what it needs, and whether that is there."""

import ast
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec

from snnlib._console import say

__all__ = ["described", "state"]


def described(script: Traversable) -> tuple[str, list[str]]:
    """The first line of a script's docstring and its NEEDS, without importing it."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    text = ast.get_docstring(tree) or ""
    needs: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NEEDS":
            needs = list(ast.literal_eval(node.value))
    return text.splitlines()[0], needs


def state(needs: list[str]) -> str:
    missing = [name for name in needs if find_spec(name) is None]
    return f"missing: {', '.join(missing)}; pip install 'snnlib[tasks]'" if missing else "installed"


if __name__ == "__main__":
    if sys.argv[1:]:
        command = " ".join(["python -m snnlib.task." + sys.argv[1], *sys.argv[2:]])
        print(f"error: this lists the tasks; to run one: {command}", file=sys.stderr)
        sys.exit(2)
    say("python -m snnlib.task.NAME --help\n")
    for place in sorted(files("snnlib.task").iterdir(), key=lambda place: place.name):
        script = place / "run.py" if place.is_dir() else place
        if place.name.startswith("_") or not script.name.endswith(".py") or not script.is_file():
            continue
        line, needs = described(script)
        name = place.name.removesuffix(".py")
        say(f"  {name:<16} {line}\n{'':<18} needs {', '.join(needs)}: {state(needs)}")
