"""Seeds for what has one of its own in a run."""

from snnlib.task._random import own_seed


def test_seeds_differ_by_run_by_purpose_and_by_number():
    runs, things = (0, 1, 2**31, 2**32 - 1), ("order", "valid", "test")
    found = [own_seed(seed, what, number) for seed in runs for what in things for number in range(100)]
    assert len(set(found)) == len(found)
    assert all(0 <= seed < 2**32 for seed in found)
    assert own_seed(1, "order", 2) == own_seed(1, "order", 2)
