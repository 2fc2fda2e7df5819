"""What the README and docs/ say is so: their code runs, their links lead somewhere, their names exist."""

import inspect
import re
from pathlib import Path
from types import FunctionType
from typing import get_origin

import pytest

import snnlib
from docs._ext.declared import Declared, declared
from docs._ext.drawn import ON, SPIKES, response
from snnlib import dataset, engine, exchange

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}:{index}")
    for page in PAGES
    for index, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL))
]


@pytest.mark.parametrize("code", BLOCKS)
def test_code_blocks_run(
    code: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # where a block saves its net
    exec(compile(code, "block", "exec"), {"__name__": "block"})
    assert capsys.readouterr().out.strip()  # each shows what it did


def test_the_script_of_the_readme_learns(capsys: pytest.CaptureFixture[str]):
    import torch

    torch.manual_seed(0)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    exec(compile(code, "README", "exec"), {"__name__": "block"})
    accuracy = float(capsys.readouterr().out.split()[-1])
    assert accuracy > 0.85


def test_the_net_of_the_start_page_learns_and_is_read_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "start.md").read_text(), flags=re.DOTALL)[0]
    exec(compile(code, "start", "exec"), {"__name__": "block"})
    assert float(capsys.readouterr().out.partition("%")[0]) > 90.0
    assert [path.name for path in tmp_path.iterdir()] == ["rows.pt"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_file_of_the_engine_is_on_its_map():
    page = (ROOT / "docs" / "engine.md").read_text()
    (table,) = re.findall(r"## Where it is\n(.*?)\n## ", page, flags=re.DOTALL)
    named = []
    for row in table.splitlines():
        room = next(iter(re.findall(r"`(\w+/)`:", row)), "")
        named += [room + name for name in re.findall(r"`(\w+\.py)`", row)]
    engine = ROOT / "snnlib" / "engine"
    files = [str(path.relative_to(engine)) for path in engine.rglob("*.py") if path.name != "__init__.py"]
    assert sorted(named) == sorted(files)


def test_names_in_the_table_of_neurons_exist():
    """A name that ends in … stands for all four modules of a neuron."""
    page = (ROOT / "docs" / "neurons.md").read_text()
    names = re.findall(r"`((?:[A-Z]|[a-z]+_)\w*)(…?)`", page)
    assert ("LIFRefrac", "…") in names
    for name, more in names:
        if name[0].isupper() or name.endswith("_step"):
            for kind in ("", "Cell", "Recurrent", "RecurrentCell") if more else ("",):
                assert hasattr(snnlib, name + kind) or name.startswith(("X", "My")), name + kind


def test_every_public_name_has_a_docstring():
    for name in snnlib.__all__:
        thing = getattr(snnlib, name)
        if callable(thing) and not get_origin(thing):  # an alias of a type has that type's
            assert thing.__doc__, name
            assert not thing.__doc__.startswith(f"{name}("), f"{name} has only the docstring of a NamedTuple"


PACKAGES = (snnlib, engine, dataset, exchange)
FUNCTIONS = {name: getattr(package, name) for package in PACKAGES for name in package.__all__}
FUNCTIONS = {name: thing for name, thing in FUNCTIONS.items() if inspect.isfunction(thing)}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_that_says_what_its_parameters_are_says_so_of_all(function: FunctionType):
    """Or its first line names another function that says it."""
    text = inspect.getdoc(function)
    if "\nParameters:\n" in text and "arguments as in" not in text:
        told = re.findall(r"^ {4}([\w, ]+): ", text, flags=re.MULTILINE)
        assert not inspect.signature(function).parameters.keys() - set(", ".join(told).split(", "))


@pytest.mark.parametrize("function", [snnlib.gate, snnlib.reset, engine.recurrent_step])
def test_parts_of_a_step_of_one_s_own_say_what_they_take_and_return(function: FunctionType):
    assert all(f"\n\n{section}:\n" in inspect.getdoc(function) for section in ("Parameters", "Returns"))


@pytest.mark.parametrize("path", sorted((ROOT / "snnlib").rglob("*.py")), ids=lambda path: str(path.name))
def test_what_is_returned_begins_with_no_colon(path: Path):
    """Sphinx would take the words before it for a type."""
    for text in re.findall(r"\n +(?:Returns|Yields):\n +(.*)", path.read_text()):
        assert not re.match(r"[\w`.\[\], ]+(?<!:):(?![:\w])", text), text


NEURONS = [thing for thing in map(vars(snnlib).get, snnlib.__all__) if isinstance(thing, type)]
NEURONS = [kind for kind in NEURONS if issubclass(kind, snnlib.Neuron)]


@pytest.mark.parametrize("kind", NEURONS)
def test_help_names_the_options_of_a_neuron(kind: type):
    """With what they are, and the shapes and errors, once each."""
    text = inspect.getdoc(kind)
    shown = inspect.signature(kind).parameters
    assert all(p.kind is not p.VAR_KEYWORD for p in shown.values())
    parameters = re.search(r"\nParameters:\n((?: .*\n)+)", text)[1]
    told = re.findall(r"^ {4}([\w, ]+): ", parameters, flags=re.MULTILINE)
    assert ", ".join(told).split(", ") == list(shown)
    for section in ("Parameters", "Shapes", "Raises"):
        assert text.count(f"\n\n{section}:\n    ") == 1, section
    assert text.index("Parameters:") < text.index("Shapes:") < text.index("Raises:")


def test_help_shows_the_defaults_of_the_options():
    assert {snnlib.Neuron, snnlib.LIFCell, snnlib.LIFRecurrent} < set(NEURONS)
    usual = inspect.signature(snnlib.RecurrentLayer).parameters
    shown = inspect.signature(snnlib.LIFRecurrent).parameters
    assert set(usual) - set(shown) == {"step", "state"}
    for name in set(shown) - {"p", "dt"}:  # a step has its own of these
        assert shown[name].default == usual[name].default


@pytest.mark.parametrize("neuron", declared(), ids=lambda neuron: neuron.name)
def test_the_page_of_neurons_finds_all_that_a_declaration_says(neuron: Declared):
    assert f"`{neuron.step.__name__}`" in (ROOT / "docs" / "neurons.md").read_text()
    assert neuron.title
    assert neuron.source
    # every name of the equation is a parameter, a state, or one of these
    known = {field.name for field in (*neuron.parameters, *neuron.state)} | {"input", "dt", "z", "H"}
    known |= {"exp", "max", "if", "else", "free"}
    assert set(re.findall(r"[A-Za-z_]\w*", neuron.equation)) <= known
    for field in (*neuron.parameters, *neuron.state):
        assert field.text.endswith("."), field


@pytest.mark.parametrize("neuron", declared(), ids=lambda neuron: neuron.name)
def test_the_figure_of_a_neuron_shows_how_it_answers(neuron: Declared):
    current, output, states = response(neuron)
    assert not output[: ON.start].any()  # at rest before the current
    assert output[ON].sum() >= SPIKES
    assert current[ON].unique().numel() == 1
    assert list(states) == [field.name for field in neuron.state]
    assert all(trace.isfinite().all() and trace.unique().numel() > 2 for trace in states.values())


def test_there_is_no_neuron_without_a_section():
    steps = {name for name in snnlib.__all__ if name.endswith("feed_forward_step")}
    assert {neuron.step.__name__ for neuron in declared()} == steps
