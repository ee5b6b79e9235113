"""Intervals: against scipy, and by how often they cover a known truth."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from results.light import light
from yarnlab.results import statistics


@pytest.mark.parametrize(("hits", "trials"), [(0, 50), (50, 50), (25, 50), (159, 160), (1, 1)])
def test_wilson_is_scipys(hits: int, trials: int) -> None:
    """The closed form gives scipy's Wilson interval and holds the observed share."""
    own = statistics.proportion(hits, trials)
    theirs = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    assert (own.low, own.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert own.low <= own.value <= own.high
    assert own.n == trials


def test_wilson_covers_the_truth() -> None:
    """About 95 of 100 Wilson intervals hold the true rate."""
    rng = np.random.default_rng(1)
    found = [statistics.proportion(int(h), 50) for h in rng.binomial(50, 0.9, 2000)]
    assert 0.92 < np.mean([e.low <= 0.9 <= e.high for e in found]) < 0.98


def test_difference_of_proportions_covers_the_truth() -> None:
    """About 95 of 100 Newcombe intervals hold the true difference."""
    rng = np.random.default_rng(2)
    pairs = zip(rng.binomial(50, 0.9, 1000), rng.binomial(50, 0.6, 1000), strict=True)
    covered = []
    for a, b in pairs:
        e = statistics.difference_of_proportions(statistics.proportion(int(a), 50), statistics.proportion(int(b), 50))
        covered.append(e.low <= 0.3 <= e.high)
    assert 0.92 < np.mean(covered) < 0.985


def test_bootstrap_of_a_dozen_documents_covers_the_truth() -> None:
    """With 12 documents about 95 of 100 intervals hold the true mean; plain percentiles would not."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        e = statistics.mean(rng.normal(0.1, 0.3, (1, 12)))
        covered += e.low <= 0.1 <= e.high
    assert 0.92 < covered / 400 < 0.985


def test_a_handful_of_documents_is_not_overrated() -> None:
    """With 3 documents, too, an interval misses the truth about one time in twenty, not one in four."""
    rng = np.random.default_rng(8)
    found = [statistics.mean(rng.normal(0.1, 0.3, (1, 3))) for _ in range(400)]
    assert np.mean([e.low <= 0.1 <= e.high for e in found]) > 0.92


def test_several_seeds_widen_the_interval() -> None:
    """When seeds differ, an interval over documents and seeds is wider than one over documents alone."""
    rng = np.random.default_rng(4)
    values = rng.normal(0, 0.05, (1, 12)) + rng.normal(0, 0.5, (3, 1))
    both = statistics.mean(values)
    documents = statistics.mean(values.mean(axis=0))
    assert both.high - both.low > 2 * (documents.high - documents.low)
    assert both.n == 36
    assert "seeds" in both.over


@pytest.mark.parametrize(("seeds", "documents", "spread"), [(3, 12, 1.0), (3, 12, 0.5), (2, 12, 0.5), (3, 50, 0.3)])
def test_a_few_seeds_that_differ_are_not_overrated(seeds: int, documents: int, spread: float) -> None:
    """Seeds that differ by much: at least 93 of 100 intervals hold the truth, although the seeds' own range does not."""
    rng = np.random.default_rng(17)
    covered = 0
    with light(1000):
        for _ in range(400):
            values = spread * rng.normal(size=(seeds, 1)) + 0.5 * rng.normal(size=documents)
            e = statistics.mean(values + 0.1 * rng.normal(size=(seeds, documents)))
            covered += e.low <= 0 <= e.high
    assert covered / 400 >= 0.93


@pytest.mark.parametrize(("spread", "noise", "widest"), [(1, 0.3, 1.1), (0, 1, 1.75)])
def test_seeds_that_do_not_differ_cost_little(spread: float, noise: float, widest: float) -> None:
    """Without effects of seeds the interval is hardly wider than that of the documents' means, where documents differ;
    where all is noise, which resampling both counts more than once, it stays near the bootstrap's."""
    rng = np.random.default_rng(18)
    covered, wider = [], []
    with light(1000):
        for _ in range(400):
            values = spread * rng.normal(size=12) + noise * rng.normal(size=(3, 12))
            e, documents = statistics.mean(values), statistics.mean(values.mean(axis=0))
            covered.append(e.low <= 0 <= e.high)
            wider.append((e.high - e.low) / (documents.high - documents.low))
    assert np.mean(covered) > 0.93 and 1 <= np.median(wider) < widest


def test_a_weight_is_as_good_as_copies_for_seeds_too() -> None:
    """With many observations, repeating each k times or weighing it by k leaves the part that seeds add."""
    rng = np.random.default_rng(22)
    values, weights = rng.normal(size=(3, 200)) + np.array([[0.0], [0.5], [1.5]]), rng.integers(1, 4, 200)
    weighted = statistics.mean(values, weights=weights.astype(float))
    copied = statistics.mean(np.repeat(values, weights, axis=1))
    assert weighted.value == pytest.approx(copied.value)
    assert weighted.high - weighted.low == pytest.approx(copied.high - copied.low, rel=0.02)


def test_shares_of_a_few_seeds_are_no_surer_than_the_seeds() -> None:
    """Of three seeds one never hits: nothing is known of the share, alone or beside a model that always hits; and no
    interval leaves the possible values."""
    hits = np.ones((3, 50))
    hits[2] = 0
    share = statistics.accuracy(hits)
    assert (share.value, share.low, share.high) == (pytest.approx(2 / 3), 0, 1)
    difference = statistics.paired_difference_of_proportions(hits, np.ones((3, 50)))
    assert difference.low == -1 and difference.value == pytest.approx(-1 / 3) and 0 < difference.high <= 1


def test_pairing_cancels_the_documents() -> None:
    """A difference between two models is seen through a spread of documents a hundred times larger."""
    rng = np.random.default_rng(5)
    document = rng.normal(3, 1, 12)
    a, b = document + rng.normal(0, 0.005, 12), document + 0.01 + rng.normal(0, 0.005, 12)
    paired, unpaired = statistics.mean(a - b), statistics.mean(a)
    assert paired.high < 0
    assert unpaired.high - unpaired.low > 50 * (paired.high - paired.low)


def test_the_same_numbers_give_the_same_interval() -> None:
    """The bootstrap is seeded: two calls agree to the last bit."""
    values = np.random.default_rng(6).normal(size=(2, 12))
    assert statistics.mean(values) == statistics.mean(values.copy())


def test_perplexity_is_the_geometric_mean_over_documents() -> None:
    """exp of the mean NLL, not the mean of perplexities."""
    e = statistics.geometric_mean_perplexity(np.log([[10.0, 1000.0]]))
    assert e.value == pytest.approx(100)
    assert e.low <= e.value <= e.high


def test_one_document_has_no_interval() -> None:
    """A single observation says nothing about the spread: its interval is unbounded."""
    e = statistics.mean(np.array([[2.0]]))
    assert (e.low, e.high) == (-math.inf, math.inf)


def test_a_statistic_of_a_handful_of_documents_has_no_interval() -> None:
    """The interquartile range of up to 7 numbers is known no better than not at all; of 8 it has its bootstrap's."""

    def spread(drawn: statistics.Array) -> statistics.Array:
        return np.subtract(*np.percentile(drawn, [75, 25], axis=1))

    values = np.random.default_rng(23).normal(size=8)
    for n in (1, 4, 7):
        e = statistics.resampled(values[:n], spread, unit="x")
        assert (e.low, e.high, e.method) == (-math.inf, math.inf, "none: fewer than 8 documents")
        assert e.value == pytest.approx(np.subtract(*np.percentile(values[:n], [75, 25])))
    assert math.isfinite(statistics.resampled(values, spread, unit="x").high)


def test_accuracy_of_perfect_seeds_is_not_certain() -> None:
    """All hits in every seed still leave Wilson's uncertainty."""
    e = statistics.accuracy(np.ones((3, 50)))
    assert e.value == 1
    assert 0.9 < e.low < 1
    assert e.n == 150
