"""Estimates with intervals: Wilson for proportions, bootstrap over documents (and seeds) for mean NLL.

Means of NLL are compared *paired*: every model reads the same documents, so the document-to-document spread,
which is much larger than any difference between methods, cancels.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95
FEW = 8
_Z = 1.959963984540054  # the normal quantile that belongs to CONFIDENCE

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval: `n` observations of `over`, in `unit`, by `method`."""

    value: float
    low: float
    high: float
    n: int
    over: str
    unit: str
    method: str

    def map(self, function: Callable[[float], float], unit: str) -> Estimate:
        """The same estimate on another scale; `function` must increase."""
        return Estimate(
            function(self.value),
            function(self.low),
            function(self.high),
            self.n,
            self.over,
            unit,
            self.method,
        )


def proportion(hits: int, trials: int) -> Estimate:
    """Share of hits with Wilson's score interval (Wilson 1927)."""
    if trials < 1:
        raise ValueError("a proportion needs at least one trial")
    share, z2 = hits / trials, _Z * _Z
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials)) / (1 + z2 / trials)
    # Rounding must not put the observed share outside: at 0 and at 1 the interval ends exactly there.
    low, high = max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
    return Estimate(share, low, high, int(trials), "trials", "proportion", "Wilson")


def difference_of_proportions(a: Estimate, b: Estimate) -> Estimate:
    """a - b with Newcombe's hybrid score interval (Newcombe 1998, method 10); the trials may be unpaired."""
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, low, high, min(a.n, b.n), "trials each", "difference of proportions", "Newcombe")


def mean(values: Array, *, over: str = "documents", unit: str = "nats") -> Estimate:
    """Mean of `values` (seeds x observations) with a bootstrap interval.

    One seed: observations are resampled. Several: seeds and observations are resampled independently (the
    pigeonhole bootstrap, Owen 2007). Percentiles are widened for small n as in Hesterberg (2015), since the
    plain percentile interval of a dozen observations is too short. Below FEW observations, where no
    percentile reaches 95 %, it is at least Student's. One observation: an unbounded interval.
    """
    values = np.atleast_2d(np.asarray(values, dtype=float))
    seeds, n = values.shape
    label = over if seeds == 1 else f"{over} x seeds ({n} x {seeds})"
    centre = float(values.mean())
    if n < 2:
        return Estimate(centre, -math.inf, math.inf, n * seeds, label, unit, "none: one observation")
    means = _resampled_means(values)
    method = f"bootstrap, {RESAMPLES:,} resamples of {over}" + (" and seeds" if seeds > 1 else "")
    tail = _expanded_tail(n)
    low, high = (float(q) for q in np.quantile(means, [tail, 1 - tail]))
    if n < FEW:
        half = _student(n) * float(values.mean(axis=0).std(ddof=1)) / math.sqrt(n)
        low, high = min(low, centre - half), max(high, centre + half)
        method += f", widened to Student's t for n < {FEW}"
    # Summation order makes the bounds of constant values differ from their mean in the last digit.
    return Estimate(centre, min(low, centre), max(high, centre), n * seeds, label, unit, method)


def geometric_mean_perplexity(nll: Array) -> Estimate:
    """exp(mean NLL) over documents (and seeds): the paper's aggregate for documents cut to equal length."""
    return mean(nll).map(_exp, "perplexity")


def accuracy(hits: Array) -> Estimate:
    """Share of hits (seeds x trials): Wilson; with several seeds never narrower than their bootstrap."""
    hits = np.atleast_2d(np.asarray(hits, dtype=float))
    wilson = proportion(int(hits.sum()), hits.size)
    if hits.shape[0] == 1:
        return wilson
    seeds = mean(hits, over="trials", unit="proportion")
    return Estimate(
        wilson.value,
        max(0.0, min(wilson.low, seeds.low)),
        min(1.0, max(wilson.high, seeds.high)),
        wilson.n,
        seeds.over,
        "proportion",
        "Wilson, widened to the bootstrap over trials and seeds",
    )


def _resampled_means(values: Array) -> Array:
    seeds, n = values.shape
    columns = _draws("observations", n)
    if seeds == 1:
        return columns @ values[0] / n
    return ((_draws("seeds", seeds) @ values) * columns).sum(axis=1) / (seeds * n)


@cache
def _draws(axis: str, n: int) -> Array:
    # The draws depend on the shape only: all comparisons of a study share resamples, and reruns agree.
    rng = np.random.default_rng(zlib.crc32(f"yarnlab bootstrap {axis} {n}".encode()))
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)


@cache
def _student(n: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, n - 1))


@cache
def _expanded_tail(n: int) -> float:
    from scipy.stats import norm

    return float(norm.cdf(-_student(n) * math.sqrt(n / (n - 1))))


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
