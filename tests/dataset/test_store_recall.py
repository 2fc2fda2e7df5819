"""Store and recall: who spikes how often, when commands come, and that the target is what was stored."""

import pytest
import torch

from snnlib.dataset.store_recall import NO_RECALL, STREAMS, StoreRecall, Trials, draw_trials

SIZES = {
    "batch_size": 64,
    "periods": 20,
    "period": 0.2,
    "expected_delay": 10.0,
    "population_size": 5,
    "poisson_rate": 50.0,
    "dt": 0.001,
}


def trials(seed: int = 0, **changed: float) -> Trials:
    return draw_trials(**{**SIZES, **changed}, generator=torch.Generator().manual_seed(seed))


def populations(batch: Trials, size: int = 5, steps: int = 200) -> torch.Tensor:
    """Spikes of each population in each period, ``[P, B, 4]``."""
    _, sequences, _ = batch.spikes.shape
    return batch.spikes.view(-1, steps, sequences, 4, size).sum((1, 4))


def test_shapes_and_types():
    batch = trials()
    assert batch.spikes.shape == (4000, 64, 20)
    assert batch.spikes.dtype == torch.float32
    assert set(batch.spikes.unique().tolist()) == {0.0, 1.0}
    assert batch.target.shape == batch.delay.shape == (20, 64)
    assert set(batch.target.unique().tolist()) == {NO_RECALL, 0, 1}


def test_what_a_reader_of_the_spikes_would_answer():
    """The target, worked out from the spikes alone: one sequence and one period after the other."""
    batch = trials(seed=1)
    spikes = populations(batch)
    recalls = 0
    for sequence in range(64):
        kept, at = None, 0
        for now in range(20):
            symbol_0, symbol_1, store, recall = spikes[now, sequence].tolist()
            if store:
                assert kept is None
                assert not recall
                kept, at = int(symbol_1 > 0), now
            if recall:
                assert symbol_0 == symbol_1 == 0
                assert batch.target[now, sequence] == kept
                assert batch.delay[now, sequence] == now - at
                kept, recalls = None, recalls + 1
            else:
                assert (symbol_0 > 0) != (symbol_1 > 0)
                assert batch.target[now, sequence] == NO_RECALL
                assert batch.delay[now, sequence] == 0
    assert recalls >= 64


def test_a_population_that_is_on_spikes_at_its_rate():
    spikes = populations(trials(seed=2, poisson_rate=80.0))
    for population in range(4):
        counts = spikes[..., population]
        on = counts[counts > 0]  # 5 neurons for 0.2 s at 80 Hz: 80 spikes, none at all is out of the question
        error = (80.0 * 0.92 / len(on)) ** 0.5
        assert on.mean().item() == pytest.approx(80.0, abs=4 * error)
        # of a binomial distribution
        assert on.var().item() == pytest.approx(80.0 * 0.92, rel=4 * (2 / len(on)) ** 0.5)


def test_neurons_of_a_population_spike_independently():
    batch = trials(seed=3, dt=0.01, poisson_rate=50.0, batch_size=500)
    on = populations(batch, steps=20)[..., 0].repeat_interleave(20, 0) > 0
    first, second = batch.spikes[..., 0][on], batch.spikes[..., 1][on]
    assert (first * second).mean().item() == pytest.approx(0.25, abs=4 * (0.1875 / len(first)) ** 0.5)
    assert not torch.equal(first, second)


def test_symbols_are_equally_frequent_and_so_are_targets():
    batch = trials(seed=4, batch_size=2000, dt=0.02)
    asked = batch.target[batch.target != NO_RECALL].double()
    assert asked.mean().item() == pytest.approx(0.5, abs=4 * 0.5 / len(asked) ** 0.5)
    spikes = populations(batch, steps=10)
    symbol_1 = (spikes[..., 1] > 0)[(spikes[..., :2] > 0).any(-1)].double()
    assert symbol_1.mean().item() == pytest.approx(0.5, abs=4 * 0.5 / len(symbol_1) ** 0.5)


@pytest.mark.parametrize("expected", [3.0, 10.0])
def test_delays_are_geometric(expected: float):
    # in sequences of 40 periods, few delays are cut off where the STORE is early
    batch = trials(seed=5, periods=40, expected_delay=expected, batch_size=4000, dt=0.1, poisson_rate=1.0)
    delay = batch.delay[batch.target != NO_RECALL]
    assert delay.min() == 1
    # the end cuts all delays alike up to where a STORE can stand: shares of neighbours fall by 1 - 1/expected,
    # and by what the end takes, which two exact sums over the places of the STORE give
    short = torch.stack([(delay == d).sum() for d in range(1, 5)]).double()
    wanted = _delays(expected, 40)[:4]
    share = short / len(delay)
    error = (wanted * (1 - wanted) / len(delay)) ** 0.5
    assert ((share - wanted).abs() < 5 * error).all()


def _delays(expected: float, periods: int) -> torch.Tensor:
    """How often each delay from 1 on is among the recalls of a sequence, by the chain that draws commands."""
    p = 1.0 / expected
    stores = torch.zeros(periods, dtype=torch.float64)
    idle = 1.0  # the probability that a STORE comes next
    for now in range(periods):
        stores[now] = idle * p
        recalled = sum(stores[s] * p * (1 - p) ** (now - s - 1) for s in range(now))
        idle = idle - idle * p + recalled
    count = [sum(stores[s] for s in range(periods - d)) * p * (1 - p) ** (d - 1) for d in range(1, periods)]
    found = torch.tensor(count, dtype=torch.float64)
    return found / found.sum()


def test_every_sequence_has_a_recall():
    batch = trials(seed=6, periods=3, expected_delay=30.0)
    assert (batch.target != NO_RECALL).any(0).all()


def test_the_same_batch_for_the_same_seed_stream_and_index():
    one, again = (StoreRecall(5, 7, "train", **SIZES) for _ in range(2))
    again[0]  # nothing that was drawn before has an influence
    for first, second in zip(one[3], again[3], strict=True):
        assert torch.equal(first, second)


def test_other_seeds_streams_and_indices_are_other_trials():
    sets = [StoreRecall(2, seed, stream, **SIZES) for seed in (0, 1) for stream in STREAMS]
    drawn = [batches[index] for batches in sets for index in range(2)]
    for k, first in enumerate(drawn):
        for second in drawn[:k]:
            # independent: equal spikes are chance
            assert not torch.equal(first.spikes[:200], second.spikes[:200])
            assert not torch.equal(first.target, second.target)


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    StoreRecall(1, 0, "train", **SIZES)[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_streams_of_a_seed_never_start_alike(monkeypatch: pytest.MonkeyPatch):
    seeds: list[int] = []

    def drawn(generator: torch.Generator, **trials: float) -> None:
        seeds.append(generator.initial_seed())

    monkeypatch.setattr("snnlib.dataset.store_recall.draw_trials", drawn)
    for seed in (0, 123):
        for stream in STREAMS:
            batches = StoreRecall(200, seed, stream, **SIZES)
            for index in range(200):
                batches[index]
    assert len(set(seeds)) == len(seeds) == 1200
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_the_length_ends_iteration():
    batches = StoreRecall(3, 0, "valid", **SIZES)
    assert len(batches) == len(list(batches)) == 3
    with pytest.raises(IndexError, match="batch 3 of 3"):
        batches[3]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"periods": 1}, "periods=1"),
        ({"expected_delay": 0.5}, "expected_delay must be from 1 to 200 for 20 periods, got 0.5"),
        ({"expected_delay": 201.0}, "got 201"),
        ({"period": 0.0001}, "period=0.0001"),
        ({"period": float("nan")}, "period=nan"),
        ({"poisson_rate": 1001.0}, "poisson_rate=1001"),
        ({"poisson_rate": -1.0}, "poisson_rate=-1"),
        ({"dt": 0.0}, "dt=0"),
        ({"dt": -0.001, "period": -0.2, "poisson_rate": -1.0}, "dt=-0.001"),
    ],
)
def test_values_that_allow_no_trial(changed: dict[str, float], says: str):
    with pytest.raises(ValueError, match=says):
        trials(**changed)


def test_a_seed_and_a_stream_that_are_none():
    with pytest.raises(ValueError, match="stream='tests'"):
        StoreRecall(1, 0, "tests", **SIZES)
    with pytest.raises(ValueError, match="seed=-1"):
        StoreRecall(1, -1, "test", **SIZES)
