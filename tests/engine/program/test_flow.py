"""The cheapest cut, against all cuts there are."""

from itertools import chain, combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from snnlib.engine.program.flow import cheapest_cut


@st.composite
def programs(
    draw: st.DrawFn,
) -> tuple[dict[str, int], dict[str, list[str]], list[str], set[str], dict[str, int]]:
    """Costs, arguments, what is given, what is read, and the work."""
    count, inputs = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    names = [f"v{k}" for k in range(count)]
    costs = {name: draw(st.sampled_from([0, 1, 100])) for name in names}
    arguments = {
        name: draw(st.lists(st.sampled_from(names[:k]), max_size=3))
        for k, name in enumerate(names)
        if k >= inputs
    }
    work = {name: draw(st.sampled_from([0, 0, 1, 30])) for name in arguments}
    return costs, arguments, names[:inputs], draw(st.sets(st.sampled_from(names))), work


def follows(kept: set[str], arguments: dict[str, list[str]], given: list[str], read: set[str]) -> bool:
    """Whether all that is read can be computed from what is kept."""

    def has(name: str) -> bool:
        return name in kept or (name not in given and all(map(has, arguments[name])))

    return all(map(has, read))


def before(name: str, arguments: dict[str, list[str]]) -> set[str]:
    """A value and all that it is computed from."""
    return {name}.union(*(before(a, arguments) for a in arguments.get(name, ())))


@settings(deadline=None)
@given(programs())
def test_no_cut_is_cheaper_and_none_as_cheap_is_nearer(program):
    costs, arguments, given, read, work = program

    def price_of(kept: set[str]) -> int:
        computed = set().union(*(before(name, arguments) for name in kept))
        return sum(costs[name] for name in kept) + sum(work.get(name, 0) for name in computed)

    found = cheapest_cut(costs, arguments, given, read, work)
    cost = price_of(found)
    assert follows(found, arguments, given, read)
    every = chain.from_iterable(combinations(costs, size) for size in range(len(costs) + 1))
    for kept in map(set, every):
        if not follows(kept, arguments, given, read):
            continue
        price = price_of(kept)
        assert price >= cost
        if price == cost:  # what the other keeps lies before what this one keeps, or is of no use
            useful = {k for k in kept if not follows(kept - {k}, arguments, given, read)}
            assert all(any(k in before(f, arguments) for f in found) for k in useful)


def test_a_tie_goes_to_what_is_read():
    arguments = {"b": ["a"], "c": ["b"]}
    assert cheapest_cut({"a": 1, "b": 1, "c": 1}, arguments, ["a"], {"c"}) == {"c"}


def test_nothing_is_read():
    assert cheapest_cut({"a": 1}, {}, ["a"], set()) == set()


def test_a_value_may_be_made_another_way_where_it_is_kept():
    costs, arguments, work = dict.fromkeys("abcr", 10), {"r": ["b", "c"], "f": ["b"]}, {"r": 30, "f": 5}
    assert cheapest_cut(costs, arguments, ["a", "b", "c"], {"r"}, work) == {"b", "c"}
    assert cheapest_cut(costs, arguments, ["a", "b", "c"], {"r"}, {"f": 5}, {"r": "f"}) == {"r"}
    assert cheapest_cut(costs, arguments, ["a", "b", "c"], {"r"}, {"f": 15}, {"r": "f"}) == {"b", "c"}
