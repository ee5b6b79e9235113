"""Exact tests of 'no difference', and Holm's correction where one table makes many of them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from yarnlab.analysis.statistics import RESAMPLES, Array

LEVEL = 0.05
ENUMERATED = 14  # documents up to which all sign patterns are tried


@dataclass(frozen=True)
class Significance:
    """A two-sided p-value from `n` observations, by `method`."""

    p: float
    n: int
    method: str


def mcnemar(a: Array, b: Array) -> Significance:
    """Do two models hit the same trials equally often? McNemar's exact test (binomial on the discordant trials).

    a, b: hits (0 or 1) on the same trials, of one shape. Raises ValueError when the shapes differ.
    """
    from scipy.stats import binomtest

    if np.shape(a) != np.shape(b):
        raise ValueError(f"paired trials need equal shapes, got {np.shape(a)} and {np.shape(b)}")
    difference = np.asarray(a, dtype=int) - np.asarray(b, dtype=int)
    only_a, only_b = int((difference > 0).sum()), int((difference < 0).sum())
    discordant = only_a + only_b
    p = float(binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0
    return Significance(p, difference.size, "McNemar's exact test")


def fisher(hits_a: int, trials_a: int, hits_b: int, trials_b: int) -> Significance:
    """Are two shares of hits on different trials equal? Fisher's exact test."""
    from scipy.stats import fisher_exact

    table = [[hits_a, trials_a - hits_a], [hits_b, trials_b - hits_b]]
    return Significance(float(fisher_exact(table).pvalue), trials_a + trials_b, "Fisher's exact test")


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


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that any false finding among them has probability of at most LEVEL (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(order), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, p_values[place] * (len(order) - rank)))
        adjusted[place] = highest
    return adjusted
