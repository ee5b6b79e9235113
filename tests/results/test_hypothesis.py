"""Tests of hypotheses: against scipy and by hand, and how often they err where nothing differs."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binomtest, hypergeom

from yarnlab.results import statistics


def test_mcnemar_counts_discordant_trials_only() -> None:
    """Trials that both models hit or miss say nothing: 9 against 1 is a binomial test of 9 in 10."""
    a = np.array([1] * 9 + [0] + [1] * 30 + [0] * 10)
    b = np.array([0] * 9 + [1] + [1] * 30 + [0] * 10)
    found = statistics.mcnemar(a, b)
    assert found.p == pytest.approx(binomtest(9, 10).pvalue)
    assert found.p == pytest.approx(22 / 1024)
    assert found.n == 50


def test_models_that_agree_everywhere_do_not_differ() -> None:
    """No discordant trial: p = 1, and no division by zero."""
    assert statistics.mcnemar(np.ones((2, 10)), np.ones((2, 10))).p == 1


def test_unequal_trials_are_refused() -> None:
    """McNemar's test needs the same trials."""
    with pytest.raises(ValueError, match="equal shapes"):
        statistics.mcnemar(np.ones(3), np.ones(4))


def test_fisher_by_hand() -> None:
    """Three of three against none of three: 2 of the 20 tables are as extreme."""
    found = statistics.fisher(np.ones(3), np.zeros(3))
    assert (found.p, found.n) == (pytest.approx(0.1), 6)


def test_a_seed_repeated_is_no_evidence() -> None:
    """Three seeds that hit the very same trials are one seed: the p-values stay."""
    a, b = np.array([1] * 9 + [0] + [1] * 10), np.array([0] * 9 + [1] + [1] * 10)
    for test in (statistics.mcnemar, statistics.fisher):
        one, three = test(a, b), test(np.tile(a, (3, 1)), np.tile(b, (3, 1)))
        assert three.p == pytest.approx(one.p, abs=1e-12) and three.n == one.n
        assert one.p < 0.05 and "over seeds" in three.method


def test_a_seed_repeated_is_no_evidence_on_sides_of_unequal_size() -> None:
    """18 of 20 against 43 of 50: far from both tails, where definitions of two-sided differ most."""
    a, b = np.arange(20) < 18, np.arange(50) < 43
    one, three = statistics.fisher(a, b), statistics.fisher(np.tile(a, (3, 1)), np.tile(b, (3, 1)))
    assert three.p == pytest.approx(one.p, abs=1e-12)
    table = hypergeom(70, 61, 20)
    hits = np.arange(21)
    far = abs(hits - 20 * 61 / 70) >= abs(18 - 20 * 61 / 70) - 1e-9
    assert one.p == pytest.approx(table.pmf(hits)[far].sum())


def test_tests_over_seeds_by_hand() -> None:
    """Trials with differences of 3, 3 and −1 hits: 4 of 8 sign patterns reach 5. Hits of 3 and 2 against 0 and 1: 2 of
    the 6 ways to choose two trials are as far from 3."""
    a, b = np.array([[1, 1, 0]] * 3), np.array([[0, 0, 1], [0, 0, 0], [0, 0, 0]])
    assert statistics.mcnemar(a, b).p == pytest.approx(4 / 8)
    a, b = np.array([[1, 1], [1, 1], [1, 0]]), np.array([[0, 1], [0, 0], [0, 0]])
    assert statistics.fisher(a, b).p == pytest.approx(2 / 6)


def test_tests_over_seeds_are_the_enumerations() -> None:
    """On random hits: every sign pattern, and every way to deal the trials, is counted."""
    rng = np.random.default_rng(19)
    for _ in range(20):
        a, b = (rng.random((3, 10)) < 0.6).astype(float), (rng.random((3, 10)) < 0.4).astype(float)
        assert statistics.mcnemar(a, b).p == pytest.approx(statistics.sign_flip(a - b).p)
        a = a[:, :4]
        sums = np.concatenate([a.sum(axis=0), b.sum(axis=0)])
        totals = np.array([sums[list(chosen)].sum() for chosen in combinations(range(14), 4)])
        reached = np.abs(totals - 4 * sums.mean()) >= abs(a.sum() - 4 * sums.mean()) - 1e-9
        assert statistics.fisher(a, b).p == pytest.approx(reached.mean())


def test_prompts_that_seeds_share_are_not_counted_twice() -> None:
    """Models that differ by chance on each prompt, in all three seeds alike: about one test in twenty is below 0.05."""
    rng = np.random.default_rng(20)
    found = []
    for _ in range(300):
        a, b = (np.tile((rng.random(40) < 0.5).astype(int), (3, 1)) for _ in range(2))
        found.append((statistics.mcnemar(a, b).p < 0.05, statistics.fisher(a, b).p < 0.05))
    assert (np.mean(found, axis=0) < 0.075).all()


def test_unequal_seeds_are_refused() -> None:
    """Fisher's test over seeds adds up the same seeds on both sides."""
    with pytest.raises(ValueError, match="same seeds, got 2 and 3"):
        statistics.fisher(np.ones((2, 5)), np.ones((3, 5)))


def test_sign_flip_by_hand() -> None:
    """Five differences of one sign: 2 of 32 patterns reach the sum."""
    assert statistics.sign_flip(np.array([1.0, 2.0, 3.0, 0.5, 0.1])).p == pytest.approx(2 / 32)
    assert statistics.sign_flip(np.zeros(5)).p == 1


def test_many_documents_are_sampled_and_never_certain() -> None:
    """Above the enumerable number p is bounded below by the number of patterns tried."""
    p = statistics.sign_flip(np.full(40, 0.3)).p
    assert p == pytest.approx(1 / (statistics.RESAMPLES + 1))


def test_sign_flip_keeps_its_level() -> None:
    """Where documents differ by chance only, about one test in twenty is below 0.05."""
    rng = np.random.default_rng(11)
    found = [statistics.sign_flip(rng.normal(0, 1, (2, 10))).p < 0.05 for _ in range(300)]
    assert 0.015 < np.mean(found) < 0.09


def test_holm_by_hand() -> None:
    """Smallest times 4, next times 3, …, never decreasing, never above 1; the order of the input is kept."""
    assert statistics.holm([0.04, 0.01, 0.03, 0.5]) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_holm_makes_a_false_finding_rare() -> None:
    """Of tables with ten comparisons and no difference, at most about one in twenty has a finding."""
    rng = np.random.default_rng(12)
    tables = rng.random((2000, 10))
    assert np.mean([min(statistics.holm(list(row))) < 0.05 for row in tables]) < 0.065


def test_paired_difference_covers_the_truth_and_is_sharper() -> None:
    """On trials that two models share, about 95 of 100 intervals hold the truth, and they are the narrower ones."""
    rng = np.random.default_rng(13)
    covered, narrower = [], []
    for difficulty in rng.random((400, 60)):
        a, b = (difficulty < 0.8) * 1.0, (difficulty < 0.7) * 1.0
        paired = statistics.paired_difference_of_proportions(a, b)
        ends = (statistics.proportion(int(hits.sum()), 60) for hits in (a, b))
        unpaired = statistics.difference_of_proportions(*ends)
        covered.append(paired.low <= 0.1 <= paired.high)
        narrower.append(paired.high - paired.low < unpaired.high - unpaired.low)
    assert np.mean(covered) > 0.92
    assert np.mean(narrower) > 0.97


def test_two_perfect_models_are_not_certainly_equal() -> None:
    """All hits on both sides leave an interval around 0."""
    e = statistics.paired_difference_of_proportions(np.ones(50), np.ones(50))
    assert e.value == 0 and e.low < -0.05 and e.high > 0.05


def test_weights_are_those_of_a_weighted_mean() -> None:
    """Repeating an observation k times by weight k gives its weighted mean; equal weights change nothing."""
    values = np.array([1.0, 2.0, 6.0, 3.0, 4.0, 5.0, 2.5, 1.5, 3.5])
    weights = np.array([1.0, 2, 3, 1, 2, 3, 1, 1, 1])
    e = statistics.mean(values, weights=weights)
    assert e.value == pytest.approx(np.average(values, weights=weights))
    assert e.low < e.value < e.high
    same = statistics.mean(values, weights=np.full(9, 7.0))
    plain = statistics.mean(values)
    assert (same.low, same.high) == pytest.approx((plain.low, plain.high))


def test_a_resampled_statistic_is_the_bootstrap_of_the_mean_where_it_is_the_mean() -> None:
    """The general bootstrap draws the same resamples as that of means."""
    values = np.random.default_rng(14).normal(size=12)
    own = statistics.resampled(values, lambda drawn: drawn.mean(axis=1), unit="x")
    mean = statistics.mean(values)
    assert (own.value, own.low, own.high) == pytest.approx((mean.value, mean.low, mean.high))


@pytest.mark.parametrize("seeds", [1, 3])
def test_many_observations_take_the_normal_interval(seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tens of thousands of items need no resamples: the two intervals agree where both can be had."""
    values = np.random.default_rng(15).normal(0.4, 1, (seeds, 1200)) + np.arange(seeds)[:, None] * 0.01
    weights = np.random.default_rng(16).random(1200) + 0.5
    boot = statistics.mean(values, weights=weights)
    monkeypatch.setattr(statistics, "LARGE", 1000)
    normal = statistics.mean(values, weights=weights)
    assert normal.method.startswith("normal approximation")
    assert (normal.high - normal.low) == pytest.approx(boot.high - boot.low, rel=0.06 if seeds == 1 else 0.35)
