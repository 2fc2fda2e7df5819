"""List the tasks: the first line of each script beside this file."""

import ast
from pathlib import Path

if __name__ == "__main__":
    print("python -m snnlib.task.NAME --help\n")
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        print(f"  {path.stem:<16} {text.splitlines()[0]}")
