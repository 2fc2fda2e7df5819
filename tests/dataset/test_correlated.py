"""Correlated spikes: their rates say nothing about the subset, their times do."""

import pytest
import torch

from snnlib.dataset.correlated import correlated_spikes, generated_episodes, random_subsets, without_timing

STEPS, RATE, SHARE = 150, 40.0, 0.6


@pytest.fixture(scope="module")
def episodes():
    generator = torch.Generator().manual_seed(5)
    return generated_episodes(1200, 40, 12, STEPS, RATE, SHARE, generator=generator)


def asked(episodes):
    """The subset of the class of the question, and the other one, as numbers ``[B, M]``."""
    answer = episodes.answer.unsqueeze(1) == 1
    first, second = episodes.subsets
    return torch.where(answer, second, first).float(), torch.where(answer, first, second).float()


def test_shapes_and_values(episodes):
    assert episodes.subsets.shape == (2, 1200, 40)
    assert episodes.lessons.shape == (2, STEPS, 1200, 40)
    assert episodes.question.shape == (STEPS, 1200, 40)
    assert ((episodes.lessons == 0) | (episodes.lessons == 1)).all()
    assert 500 < int(episodes.answer.sum()) < 700


def test_subsets_are_disjoint_random_and_new_in_each_episode(episodes):
    assert (episodes.subsets.sum(2) == 12).all()
    assert not (episodes.subsets[0] & episodes.subsets[1]).any()
    assert len(episodes.subsets[0].unique(dim=0)) == 1200
    share = episodes.subsets.float().mean(1)  # 5 standard errors of a share of 0.3
    assert (share - 0.3).abs().max() < 5 * (0.3 * 0.7 / 1200) ** 0.5


def test_rates_are_equal_between_channels_subsets_and_classes(episodes):
    mean = RATE * 0.001

    def off(rate, trains):
        return (rate - mean).abs() / (mean * (1 - mean) / (trains * STEPS)) ** 0.5

    for sample in (*episodes.lessons, episodes.question):
        assert off(sample.mean((0, 1)), 1200).max() < 5
        for subset in (episodes.subsets[0], episodes.subsets[1], ~episodes.subsets.any(0)):
            assert off(sample.mean(0)[subset].mean(), int(subset.sum())) < 5


def test_a_correlated_train_alone_is_poisson():
    """Its counts have a binomial's variance, and neighbouring steps are independent."""
    generator = torch.Generator().manual_seed(6)
    spikes = correlated_spikes(torch.ones(20000, 1, dtype=torch.bool), 50, 100.0, 0.8, generator=generator)
    count = spikes.sum(0)
    assert float(count.mean()) == pytest.approx(5.0, abs=0.08)
    assert float(count.var()) == pytest.approx(50 * 0.1 * 0.9, rel=0.05)
    assert float((spikes[1:] * spikes[:-1]).mean()) == pytest.approx(0.01, abs=5e-4)
    assert float(spikes.mean((1, 2)).var()) < 5 * 0.09 / 20000


def test_counts_in_a_subset_do_not_vary_together(episodes):
    """With events copied from a common train they would, and the variance of their sum would grow many-fold."""
    mine, other = asked(episodes)
    count = episodes.question.sum(0)
    ratio = (count * mine).sum(1).var() / (count * other).sum(1).var()
    assert 0.75 < float(ratio) < 1.3


def test_a_classifier_of_rates_is_at_chance_and_one_that_knows_the_subsets_is_right(episodes):
    """Its features: all counts, and how those of the lessons go with those of the question."""
    lessons, question = episodes.lessons.sum(1), episodes.question.sum(0)
    centred = [x - RATE * 0.001 * STEPS for x in (*lessons, question)]
    products = torch.stack([(centred[k] * centred[2]).sum(1) for k in range(2)], 1)
    squares = torch.stack([x.square().sum(1) for x in centred], 1)
    known = torch.stack([(centred[2] * episodes.subsets[k]).sum(1) for k in range(2)], 1)
    features = torch.cat((products, products.square(), squares, known, known.square(), question, *lessons), 1)
    assert held_out_accuracy(features, episodes.answer) == pytest.approx(0.5, abs=0.1)

    together = [(episodes.question * subset).sum(2).square().sum(0) for subset in episodes.subsets]
    right = (together[1] > together[0]).long() == episodes.answer
    assert float(right.float().mean()) > 0.99


def held_out_accuracy(features, answer):
    """Logistic regression on two thirds of the episodes, tested on the rest."""
    features = (features - features.mean(0)) / features.std(0)
    weights = torch.zeros(features.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=50)

    def logits(rows):
        return features[rows] @ weights[1:] + weights[0]

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits(slice(800)), answer[:800].float())
        loss = loss + 0.01 * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return float(((logits(slice(800, None)) > 0).long() == answer[800:]).float().mean())


def test_the_classifier_of_the_test_can_learn():
    """Counts that do differ are found by it, so that chance above means something."""
    torch.manual_seed(0)
    answer = torch.randint(0, 2, (1200,))
    assert held_out_accuracy(torch.randn(1200, 50) + 0.3 * answer.unsqueeze(1), answer) > 0.8


def test_without_timing_keeps_every_count_and_no_correlation(episodes):
    moved = without_timing(episodes.question, torch.Generator().manual_seed(7))
    assert torch.equal(moved.sum(0), episodes.question.sum(0))
    assert not torch.equal(moved, episodes.question)
    mine, _ = asked(episodes)
    together = (episodes.question * mine).sum(2).var()
    assert float((moved * mine).sum(2).var()) == pytest.approx(12 * 0.04 * 0.96, rel=0.05)
    assert float(together) > 3 * 12 * 0.04


def test_correlation_is_what_pairs_share():
    """Of two channels that follow with probability 1 and have equal counts, the steps are the same."""
    generator = torch.Generator().manual_seed(8)
    spikes = correlated_spikes(torch.ones(50, 2, dtype=torch.bool), 100, 50.0, 1.0, generator=generator)
    first, second = spikes.unbind(2)
    assert torch.equal((first * second).sum(0), torch.minimum(first.sum(0), second.sum(0)))


def test_a_seed_gives_the_same_episodes():
    first, again, other = (
        generated_episodes(4, 10, 3, 20, 50.0, 0.5, generator=torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.lessons, other.lessons)


def test_no_episodes():
    assert generated_episodes(0, 10, 3, 20, 50.0, 0.5).lessons.shape[:2] == (2, 20)


def test_wrong_arguments_are_refused():
    subset = torch.ones(1, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="6 channels do not fit into 10 channels"):
        random_subsets(1, 10, 6)
    with pytest.raises(ValueError, match="two subsets of 0 channels"):
        random_subsets(1, 10, 0)
    with pytest.raises(ValueError, match="rate=2000"):
        correlated_spikes(subset, 10, 2000.0, 0.5)
    with pytest.raises(ValueError, match=r"correlation=1\.5"):
        correlated_spikes(subset, 10, 20.0, 1.5)
    for steps in (0, 2.5, True):
        with pytest.raises(ValueError, match=f"must be an integer of at least 1, got seq_length={steps}"):
            correlated_spikes(subset, steps, 20.0, 0.5)
