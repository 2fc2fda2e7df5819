"""What ``help`` shows of a class of one's own that is made from a neuron."""

import inspect
import pickle
import re
from typing import Any, Unpack

import pytest

import snnlib
from snnlib.module.neuron import LayerOptions


class Named(snnlib.LIF):
    """A layer with options."""

    def __init__(self, p: snnlib.LIFParameters, **options: Unpack[LayerOptions]) -> None:
        super().__init__(p, **options)


class Sized(snnlib.LIF):
    """A layer with a parameter that only it knows.

    Source:
        Anybody 2026.
    """

    def __init__(self, size: int, backend: str = "auto") -> None:
        super().__init__(backend=backend)


class Loose(snnlib.LIF):
    """A layer that takes anything."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)


class Renamed(snnlib.LIFRecurrent):
    """The same by another name."""


class Undocumented(snnlib.LIF):
    pass


class Shaped(snnlib.LIF):
    """A layer of images.

    Shapes:
        ``[T, B, C, H, W]``
    """


class Forward(snnlib.LIFCell):
    """A cell with a ``forward`` of its own."""

    def forward(self, input: Any, state: Any = None) -> Any:
        return super().forward(2 * input, state)


class Google(snnlib.LIFCell):
    """A cell.

    Args:
        size: what it is.
    """


def test_options_are_named_with_their_defaults():
    shown = inspect.signature(Named).parameters
    assert list(shown) == ["p", "backend", "checkpoint_every", "record_states"]
    assert shown["p"].default is inspect.Parameter.empty
    assert shown["backend"].default == "auto"
    assert shown["backend"].kind is inspect.Parameter.KEYWORD_ONLY
    told, usual = (inspect.getdoc(kind).split("Parameters:")[1] for kind in (Named, snnlib.LIF))
    assert told == re.sub(r"    dt: time step in s.*\n", "", usual) != usual


@pytest.mark.parametrize(("kind", "names"), [(Sized, ["size", "backend"]), (Loose, ["options"])])
def test_what_is_not_known_is_not_told(kind: type, names: list[str]):
    """Half of the parameters would be taken for all."""
    assert list(inspect.signature(kind).parameters) == names
    assert "Parameters:" not in kind.__doc__
    assert "Shapes:\n    input and output ``[T, B, *features]``" in kind.__doc__


def test_an_option_that_stands_beside_the_others_is_named_once():
    class Twice(snnlib.LIF):
        def __init__(self, backend: str = "cpu", **options: Unpack[LayerOptions]) -> None:
            super().__init__(backend=backend, **options)

    shown = inspect.signature(Twice).parameters
    assert list(shown) == ["backend", "checkpoint_every", "record_states"]
    assert shown["backend"].default == "cpu"


def test_sections_of_one_s_own_stay():
    assert "\nSource:\n    Anybody 2026.\n\nShapes:\n" in Sized.__doc__
    assert Shaped.__doc__.count("Shapes:") == 1
    assert "Shapes:\n    ``[T, B, C, H, W]``\n\nRaises:\n" in Shaped.__doc__
    assert inspect.cleandoc(Google.__doc__) == "A cell.\n\nArgs:\n    size: what it is."


def test_a_class_without_arguments_of_its_own_has_those_of_its_base():
    assert inspect.signature(Renamed) == inspect.signature(snnlib.LIFRecurrent)
    assert Renamed.__doc__.split("\n\n", 1)[1] == snnlib.LIFRecurrent.__doc__.split("\n\n", 2)[2]


def test_a_class_without_a_docstring_has_none():
    assert Undocumented.__doc__ is None
    assert list(inspect.signature(Undocumented).parameters) == list(inspect.signature(snnlib.LIF).parameters)


def test_shapes_and_errors_of_another_forward_are_not_told():
    assert "Parameters:" in Forward.__doc__
    assert "Shapes:" not in Forward.__doc__
    assert "Raises:" not in Forward.__doc__


def test_the_base_stays_as_it_was():
    assert "backend" in inspect.signature(snnlib.LIF).parameters
    assert "Anybody" not in snnlib.LIF.__doc__


def test_annotations_for_type_checkers_alone_do_no_harm():
    class Checked(snnlib.LIF):
        """A layer."""

        def __init__(self, **options: "Unpack[Nowhere]") -> None:  # noqa: F821
            super().__init__(**options)

    assert list(inspect.signature(Checked).parameters) == ["options"]
    assert Checked(backend="reference").backend == "reference"


def test_classes_of_one_s_own_are_pickled():
    layer = pickle.loads(pickle.dumps(Named(snnlib.LIFParameters(v_th=0.5), backend="reference")))
    assert isinstance(layer, Named)
    assert (layer.p.v_th, layer.backend) == (0.5, "reference")
