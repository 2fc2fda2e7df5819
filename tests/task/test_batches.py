"""The batches that Lightning's trainer is given."""

from itertools import chain

import pytest
from torch import Tensor

from snnlib.task import _batches
from snnlib.task._batches import Batches, batch_sizes


def seen(batches: Batches) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


def itself(index: Tensor) -> Tensor:
    return index


def test_every_example_once_an_epoch_in_an_order_of_the_seed_and_the_epoch():
    batches = Batches(itself, 10, 4, seed=3)
    first, second = seen(batches), seen(batches)
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
    assert first != second
    assert [first, second] == [seen(again := Batches(itself, 10, 4, seed=3)), seen(again)]
    for other in (4, 3 + 2**12, 3 + 2**31):  # torch takes 32 bits of a seed
        assert seen(Batches(itself, 10, 4, seed=other)) != first


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [
        (8, 4, [4, 4]),
        (10, 4, [4, 4, 2]),
        (9, 4, [4, 5]),
        (5, 4, [5]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
        (3, 2, [3]),
    ],
)
def test_no_last_example_is_alone(count: int, size: int, sizes: list[int]):
    assert batch_sizes(count, size) == sizes
    batches = Batches(itself, count, size, seed=0)
    assert len(batches) == len(sizes)
    assert [len(batch) for batch in seen(batches)] == sizes


def test_without_a_seed_the_order_stays():
    batches = Batches(itself, 5, 2)
    assert seen(batches) == seen(batches) == [[0, 1], [2, 3], [4]]


def test_fresh_examples_are_never_seen_again():
    batches = Batches(itself, 3, 2, seed=0, fresh=True)
    assert [seen(batches), seen(batches)] == [[[0, 1], [2]], [[3, 4], [5]]]


@pytest.mark.parametrize(("limit", "count"), [(1.0, 5), (0.4, 2), (0.01, 1), (3, 3), (9, 5)])
def test_a_limit_is_a_part_or_a_number(limit: float, count: int):
    batches = Batches(itself, 10, 2, seed=0, limit=limit)
    assert len(batches) == count
    assert [len(seen(batches)), len(seen(batches))] == [count, count]


@pytest.mark.parametrize("count", [9, 10])
@pytest.mark.parametrize("taken", [0, 1, 3, 5, 6, 8])
def test_it_goes_on_where_it_stopped(taken: int, count: int):
    whole = Batches(itself, count, 4, seed=1)
    expected = [batch for _ in range(4) for batch in seen(whole)]
    stopped = Batches(itself, count, 4, seed=1)
    found: list[list[int]] = []
    while len(found) < taken:
        for batch in stopped:
            found.append(batch.tolist())
            if len(found) == taken:
                break
    resumed = Batches(itself, count, 4, seed=1)
    resumed.place = stopped.place
    while len(found) < len(expected):
        found += seen(resumed)
    assert found == expected


@pytest.mark.parametrize("count", [12, 13, 14])
def test_processes_share_a_batch(monkeypatch: pytest.MonkeyPatch, count: int):
    whole = seen(Batches(itself, count, 6, seed=5))
    shares = []
    for rank in range(2):
        monkeypatch.setattr(_batches, "place", lambda rank=rank: (rank, 2))
        shares.append(seen(Batches(itself, count, 3, seed=5)))
    assert [len(share) for share in shares[0]] == [len(share) for share in shares[1]]
    for together, a, b in zip(whole, *shares, strict=True):
        assert set(a) | set(b) >= set(together)
        assert len(a) + len(b) - len(together) in (0, 1)  # one more, so that both take an equal step


def test_examples_that_only_test_are_never_doubled(monkeypatch: pytest.MonkeyPatch):
    shares = []
    for rank in range(2):
        monkeypatch.setattr(_batches, "place", lambda rank=rank: (rank, 2))
        shares.append(seen(Batches(itself, 5, 2)))
    assert shares == [[[0, 2], [4]], [[1, 3], []]]  # and each gets as many batches as the other
