"""What the README and docs/ say is so: their code runs, their links lead somewhere, their names exist."""

import re
from pathlib import Path

import pytest

import snnlib

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}:{index}")
    for page in PAGES
    for index, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL))
]


@pytest.mark.parametrize("code", BLOCKS)
def test_code_blocks_run(code: str, capsys: pytest.CaptureFixture[str]):
    exec(compile(code, "block", "exec"), {"__name__": "block"})
    assert capsys.readouterr().out.strip()  # each shows what it did


def test_the_script_of_the_readme_learns(capsys: pytest.CaptureFixture[str]):
    import torch

    torch.manual_seed(0)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    exec(compile(code, "README", "exec"), {"__name__": "block"})
    accuracy = float(capsys.readouterr().out.split()[-1])
    assert accuracy > 0.85


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_names_in_the_table_of_neurons_exist():
    for name in re.findall(r"`((?:[A-Z]|[a-z]+_)\w*)`", (ROOT / "docs" / "neurons.md").read_text()):
        if name[0].isupper() or name.endswith("_step"):
            assert hasattr(snnlib, name.rstrip("…")) or name.startswith(("X", "My")), name


def test_every_public_name_has_a_docstring():
    for name in snnlib.__all__:
        thing = getattr(snnlib, name)
        if callable(thing):
            assert thing.__doc__, name
            assert not thing.__doc__.startswith(f"{name}("), f"{name} has only the docstring of a NamedTuple"
