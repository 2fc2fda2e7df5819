"""Values as sums: what is written for them gives the same, and is as short as can be."""

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnlib.engine.program import Line, Value
from snnlib.engine.program.sums import Sum, Sums
from tests.engine.evaluated import values_of

INPUTS = ("a", "b", "c", "d")
NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 3.0, -0.25])


@st.composite
def programs(draw: st.DrawFn) -> list[Line]:
    lines: list[Line] = []
    for k in range(draw(st.integers(1, 12))):
        value = st.one_of(st.sampled_from([*INPUTS, *(line.name for line in lines)]), NUMBERS)
        operator = draw(
            st.sampled_from(["add", "add", "sub", "sub", "mul", "mul", "neg", "relu", "maximum", "div"])
        )
        arguments = [draw(value) for _ in range(1 if operator in ("neg", "relu") else 2)]
        if operator == "div":
            arguments[1] = draw(NUMBERS.filter(bool))
        lines.append(Line(f"v{k}", operator, tuple(arguments)))
    return lines


def made_of(lines: list[Line], free: list[str], wanted: list[Value]) -> tuple[list[Value], Sums]:
    sums = Sums(lines, free)
    of = sums.under({})
    value_of = sums.write(map(of, wanted))
    return [value_of(of(value)) for value in wanted], sums


def is_written_as(found: Value, known: dict, expected) -> None:
    got = known[found] if isinstance(found, str) else found
    np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-7)


@given(programs(), st.data())
def test_what_is_written_gives_the_same(lines: list[Line], data: st.DataObject):
    names = [line.name for line in lines]
    free = names[: data.draw(st.integers(0, len(names)))]
    wanted: list[Value] = list(data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=4)))
    found, sums = made_of(lines, free, wanted)
    numbers = dict(zip(INPUTS, np.random.default_rng(0).normal(size=(4, 50)), strict=True))
    expected = values_of(lines, numbers)
    # nothing that is not free is at hand
    known = values_of(sums.lines, numbers | {name: expected[name] for name in free})
    for value, name in zip(found, wanted, strict=True):
        is_written_as(value, known, expected[name])
    for name, other in sums.ahead.items():
        np.testing.assert_allclose(known[name], known[other], rtol=1e-7, atol=1e-7)


def test_what_cancels_is_gone():
    lines = [
        Line("v0", "add", ("a", "b")),
        Line("v1", "mul", ("v0", 0.1)),
        Line("v2", "mul", ("a", 0.1)),
        Line("v3", "sub", ("v1", "v2")),
        Line("v4", "sub", ("v3", "v3")),
    ]
    assert made_of(lines, [], ["v4"])[0] == [0.0]
    (value,), sums = made_of(lines, [], ["v3"])
    assert [line[1:] for line in sums.lines] == [("sum", (0.0, pytest.approx(0.1), "b"))]
    assert value == sums.lines[0].name


def test_terms_that_are_always_together_are_added_up_once():
    """a + b with c and without; the line that has both already is taken, and another where it is not free."""
    lines = [
        Line("v0", "add", ("a", "b")),
        Line("v1", "mul", ("v0", 2.0)),
        Line("v2", "sub", ("c", "v1")),
        Line("v3", "mul", ("v0", 3.0)),
    ]
    _, sums = made_of(lines, ["v0"], ["v2", "v3"])
    assert {a for line in sums.lines for a in line.arguments if isinstance(a, str)} == {"c", "v0"}
    found, sums = made_of(lines, [], ["v2", "v3"])
    both = {line.name for line in sums.lines if {"a", "b"} <= set(line.arguments)} - set(sums.ahead.values())
    assert len(both) == 1
    written = {line.name: set(line.arguments) for line in sums.lines}
    assert all(both <= written[str(value)] for value in found)


def test_what_a_free_line_gives_too_is_made_of_parts_and_of_that_line():
    lines = [Line("v0", "sub", ("a", "b")), Line("v1", "mul", ("b", 2.0))]
    found, sums = made_of(lines, ["v0"], ["v0", "v1"])
    assert found[0] != "v0"
    assert sums.ahead == {found[0]: "v0"}


def test_facts_decide_conditions():
    lines = [
        Line("v0", "gt", ("a", 0)),
        Line("v1", "number", ("v0",)),
        Line("v2", "mul", ("v1", "b")),
        Line("v3", "where", ("v0", "c", "v2")),
    ]
    sums = Sums(lines, [])
    assert sums.under({"v0": 1.0})("v2") == Sum(0.0, (("b", 1.0),))
    assert sums.under({"v0": 1.0})("v3") == Sum(0.0, (("c", 1.0),))
    assert sums.under({"v0": 0.0})("v3") == Sum(0.0)


@pytest.mark.parametrize(("operator", "of_0", "of_1"), [
    ("logical_and", Sum(0.0), Sum(0.0, (("c", 1.0),))),
    ("logical_or", Sum(0.0, (("c", 1.0),)), Sum(1.0)),
])  # fmt: skip
@pytest.mark.parametrize("arguments", [("v0", "c"), ("c", "v0")])
def test_facts_decide_of_two(operator: str, of_0: Sum, of_1: Sum, arguments: tuple[str, str]):
    sums = Sums([Line("v0", "gt", ("a", 0)), Line("v1", operator, arguments)], [])
    assert sums.under({"v0": 0.0})("v1") == of_0
    assert sums.under({"v0": 1.0})("v1") == of_1


def test_what_is_left_by_rounding_is_nothing_and_no_more():
    total = Sum(0.1).plus(Sum(0.2))
    assert total.plus(Sum(0.3), -1.0) == Sum(0.0)
    assert total.key() == Sum(0.3).key()
    assert total.plus(Sum(0.3 + 1e-9), -1.0).number == pytest.approx(-1e-9, rel=1e-6)
    assert total.key() != Sum(0.3 + 1e-7).key()
    assert Sum(inf).plus(total) == Sum(inf)


def test_a_sum_is_held_in_its_own_proportion():
    whole = Sum(5.0, (("a", 2.0), ("b", 4.0), ("c", 1.0)))
    assert whole.holds(Sum(0.0, (("a", 1.0), ("b", 2.0)))) == 2
    assert whole.holds(Sum(0.0, (("a", 1.0), ("b", 1.0)))) == 0
    assert whole.holds(Sum(0.0, (("d", 1.0),))) == 0


def test_a_sum_times_infinity_is_no_sum():
    """A factor of infinity would make NaN of the number that is 0."""
    sums = Sums([Line("v0", "add", ("a", "b")), Line("v1", "mul", ("v0", inf))], [])
    assert sums.under({})("v1") == Sum(0.0, (("w0", 1.0),))
