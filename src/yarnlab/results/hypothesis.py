"""Exact tests of 'no difference', and Holm's correction where one table makes many of them.

Seeds of an arm see the same documents and prompts. So these are the independent units, and every test first adds up
what the seeds made of each.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yarnlab.results.statistics import RESAMPLES, Array

LEVEL = 0.05
ENUMERATED = 14  # documents up to which all sign patterns are tried


@dataclass(frozen=True)
class Significance:
    """A two-sided p-value from `n` observations, by `method`."""

    p: float
    n: int
    method: str

    def columns(self) -> dict[str, Any]:
        """What a tidy table says of it."""
        return {"p": self.p, "test": self.method}


def mcnemar(a: Array, b: Array) -> Significance:
    """Do two models hit the same trials equally often? McNemar's exact test (binomial on the discordant trials).

    a, b: hits (0 or 1) on the same trials (seeds x trials), of one shape. Several seeds: the exact test that flips the
    sign of each trial's difference in hits over seeds, of which McNemar's is the case of one seed. Raises ValueError
    when the shapes differ.
    """
    from scipy.stats import binomtest

    if np.shape(a) != np.shape(b):
        raise ValueError(f"paired trials need equal shapes, got {np.shape(a)} and {np.shape(b)}")
    difference = np.atleast_2d(np.asarray(a, dtype=int) - np.asarray(b, dtype=int))
    if len(difference) > 1:
        sums = difference.sum(axis=0)
        return Significance(_by_flipped_signs(sums), len(sums), "exact sign-flip test of the trials' sums over seeds")
    only_a, only_b = int((difference > 0).sum()), int((difference < 0).sum())
    discordant = only_a + only_b
    p = float(binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0
    return Significance(p, difference.size, "McNemar's exact test")


def fisher(a: Array, b: Array) -> Significance:
    """Are two shares of hits on different trials equal? Fisher's exact test.

    a, b: hits (0 or 1), seeds x trials. Several seeds: the exact test that deals the trials, each with its hits over
    seeds, to the two sides anew, of which Fisher's is the case of one seed. Raises ValueError when the two have not
    as many seeds.
    """
    from scipy.stats import fisher_exact

    a, b = np.atleast_2d(np.asarray(a, dtype=int)), np.atleast_2d(np.asarray(b, dtype=int))
    if len(a) != len(b):
        raise ValueError(f"both sides need the same seeds, got {len(a)} and {len(b)}")
    if len(a) > 1:
        p, method = _by_dealing(a.sum(axis=0), b.sum(axis=0)), "exact permutation test of the trials' sums over seeds"
    else:
        table = [[int(hits.sum()), int(hits.size - hits.sum())] for hits in (a, b)]
        p, method = float(fisher_exact(table).pvalue), "Fisher's exact test"
    return Significance(p, a.shape[1] + b.shape[1], method)


def sign_flip(differences: Array) -> Significance:
    """Is the mean of paired differences (seeds x documents) zero? The randomisation test that flips signs.

    Seeds are averaged first: documents are what is exchangeable. Exact up to ENUMERATED documents, above that
    RESAMPLES random sign patterns from a fixed seed.
    """
    values = np.atleast_2d(np.asarray(differences, dtype=float)).mean(axis=0)
    n = len(values)
    if n <= ENUMERATED:
        signs = np.array(list(product((1.0, -1.0), repeat=n)))
        extra = 0
    else:
        rng = np.random.default_rng(zlib.crc32(f"yarnlab sign flips {n}".encode()))
        signs, extra = rng.choice((1.0, -1.0), size=(RESAMPLES, n)), 1
    # The observed pattern must count as equal to itself whatever the order of summation.
    reached = np.abs(signs @ values) >= abs(values.sum()) * (1 - 1e-9) - 1e-12
    return Significance(float((reached.sum() + extra) / (len(signs) + extra)), n, "sign-flip test")


def _by_flipped_signs(sums: NDArray[np.int_]) -> float:
    """Chance that random signs bring the total of these whole numbers as far from 0 as it is."""
    from scipy.stats import binom

    sizes = np.abs(sums[sums != 0])
    chances = np.ones(1)  # of what the negative ones add up to
    for size, times in zip(*np.unique(sizes, return_counts=True), strict=True):
        step = np.zeros(size * times + 1)
        step[::size] = binom.pmf(np.arange(times + 1), times, 0.5)
        chances = np.convolve(chances, step)
    totals = sizes.sum() - 2 * np.arange(len(chances))
    return min(1.0, float(chances[np.abs(totals) >= abs(sums.sum())].sum()))


def _by_dealing(a: NDArray[np.int_], b: NDArray[np.int_]) -> float:
    """Chance that a random choice of len(a) of all these whole numbers has a total as far from the expected as a's."""
    values, drawn = np.concatenate([a, b]), np.arange(len(a) + 1)
    chances = np.zeros((len(a) + 1, values.sum() + 1))  # numbers chosen so far x their total
    chances[0, 0] = 1
    for left, value in zip(range(len(values), 0, -1), values, strict=True):
        chosen = chances * ((len(a) - drawn) / left)[:, None]
        chances = chances - chosen
        chances[1:, value:] += chosen[:-1, : chances.shape[1] - value]
    distance = np.abs(np.arange(chances.shape[1]) * len(values) - values.sum() * len(a))
    return min(1.0, float(chances[-1, distance >= distance[a.sum()]].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that any false finding among them has probability of at most LEVEL (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(order), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, p_values[place] * (len(order) - rank)))
        adjusted[place] = highest
    return adjusted
