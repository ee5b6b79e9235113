"""Estimates with intervals, exact tests of 'no difference', and Holm's correction.

Wilson's interval for proportions, a bootstrap over documents (and seeds) for mean NLL. Means of NLL are compared
*paired*: every model reads the same documents, so the document-to-document spread, which is much larger than any
difference between methods, cancels. Seeds of an arm see the same documents and prompts. So these are the units, and
every test first adds up what the seeds made of each.

Observations of one `group` (documents of one sub-package, prompts with one filler) are no independent ones: they count
as a single one, their mean with the sum of their weights. Steps of one training are none either (`mean_of_steps`).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

from yarnlab.lazy import np, stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95
FEW = 8
LARGE = 5_000
BLOCK = 4_000_000  # numbers that a resampled statistic holds at once
Z = 1.959963984540054  # the normal quantile that belongs to CONFIDENCE

LEVEL = 0.05
ENUMERATED = 14  # documents up to which all sign patterns are tried

Array: TypeAlias = "NDArray[np.float64]"
Bounds: TypeAlias = "Callable[[float], tuple[float, float]]"


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval: `n` observations of `over`, in `unit`, by `method`.

    df: degrees of freedom of the Student's t that the interval follows; infinite where it is a normal one.
    bounds: the interval by its confidence, where it does not simply grow with Student's quantile.
    """

    value: float
    low: float
    high: float
    n: int
    over: str
    unit: str
    method: str
    df: float = math.inf
    bounds: Bounds | None = field(default=None, compare=False, repr=False)

    def at(self, confidence: float) -> tuple[float, float]:
        """The two-sided interval of another confidence than 95 %."""
        if self.bounds is not None:
            return self.bounds(confidence)
        grown = _growth(self.df + 1, confidence)
        return self.value - grown * (self.value - self.low), self.value + grown * (self.high - self.value)

    def map(self, function: Callable[[float], float], unit: str) -> Estimate:
        """The same estimate on another scale; `function` must increase."""

        def bounds(confidence: float) -> tuple[float, float]:
            low, high = self.at(confidence)
            return function(low), function(high)

        value, low, high = map(function, (self.value, self.low, self.high))
        return replace(self, value=value, low=low, high=high, unit=unit, bounds=bounds)

    def columns(self, name: str) -> dict[str, float]:
        """The columns of a tidy table for a further number in a row, whose low, high and n are another's."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def proportion(hits: int, trials: int) -> Estimate:
    """Share of hits with Wilson's score interval (Wilson 1927)."""
    if trials < 1:
        raise ValueError("a proportion needs at least one trial")
    share, tested = hits / trials, stats.binomtest(hits, trials)

    def bounds(confidence: float) -> tuple[float, float]:
        low, high = tested.proportion_ci(confidence, method="wilson")
        return min(share, float(low)), max(share, float(high))  # rounding must not put the observed share outside

    return Estimate(share, *bounds(CONFIDENCE), trials, "trials", "proportion", "Wilson", bounds=bounds)


def difference_of_proportions(a: Estimate, b: Estimate) -> Estimate:
    """a - b with Newcombe's hybrid score interval (Newcombe 1998, method 10); the trials may be unpaired."""
    return replace(difference_of_means(a, b), over="trials each", unit="difference of proportions", method="Newcombe")


def difference_of_means(a: Estimate, b: Estimate) -> Estimate:
    """a - b of unpaired means, the interval from both of theirs (MOVER, Zou & Donner 2008)."""
    value = a.value - b.value

    def bounds(confidence: float) -> tuple[float, float]:
        (a_low, a_high), (b_low, b_high) = a.at(confidence), b.at(confidence)
        below, above = math.hypot(a.value - a_low, b_high - b.value), math.hypot(a_high - a.value, b.value - b_low)
        return value - below, value + above

    unit, method = f"difference in {a.unit}", f"MOVER; {a.method}"
    return Estimate(value, *bounds(CONFIDENCE), min(a.n, b.n), f"{a.over} each", unit, method, bounds=bounds)


def paired_difference_of_proportions(a: Array, b: Array, *, groups: Sequence[object] | None = None) -> Estimate:
    """Share of hits in a minus that in b on the same trials (seeds x trials each).

    Newcombe's hybrid score interval for paired data (Newcombe 1998b, method 10, without continuity correction);
    with several seeds, or `groups` of trials, never narrower than the interval of their mean (`mean`).
    """
    a, b = np.atleast_2d(np.asarray(a, dtype=float)), np.atleast_2d(np.asarray(b, dtype=float))
    first, second = (proportion(int(hits.sum()), hits.size) for hits in (a, b))
    value = first.value - second.value
    spread = math.sqrt(first.value * (1 - first.value) * second.value * (1 - second.value))
    agreement = (float((a * b).mean()) - first.value * second.value) / spread if spread else 0.0

    def bounds(confidence: float) -> tuple[float, float]:
        (a_low, a_high), (b_low, b_high) = first.at(confidence), second.at(confidence)
        below, above = first.value - a_low, b_high - second.value
        low = value - math.sqrt(max(0.0, below**2 - 2 * agreement * below * above + above**2))
        above, below = a_high - first.value, second.value - b_low
        return low, value + math.sqrt(max(0.0, above**2 - 2 * agreement * above * below + below**2))

    unit, method = "difference of proportions", "Newcombe, paired"
    newcombe = Estimate(value, *bounds(CONFIDENCE), a.size, "paired trials", unit, method, bounds=bounds)
    return _no_surer(newcombe, a - b, groups, (-1.0, 1.0))


def _no_surer(found: Estimate, values: Array, groups: Sequence[object] | None, ends: tuple[float, float]) -> Estimate:
    """`found`, of all trials alike, with an interval that holds that of the mean over groups and seeds.

    values: seeds x trials. ends: the smallest and the largest possible value.
    """
    if len(values) == 1 and (groups is None or len(set(groups)) == values.shape[1]):
        return found
    whole = mean(values, groups=groups, over=found.over, unit=found.unit)

    def bounds(confidence: float) -> tuple[float, float]:
        (low, high), (least, most) = found.at(confidence), whole.at(confidence)
        return max(ends[0], min(low, least)), min(ends[1], max(high, most))

    low, high = bounds(CONFIDENCE)
    method = f"{found.method}, widened to the mean's over {_drawn(len(values), groups, 'trials')}"
    return replace(found, low=low, high=high, over=whole.over, method=method, bounds=bounds)


def _drawn(seeds: int, groups: Sequence[object] | None, over: str) -> str:
    return (f"groups of {over}" if groups is not None else over) + (" and seeds" if seeds > 1 else "")


def mean(
    values: Array,
    *,
    weights: Array | None = None,
    groups: Sequence[object] | None = None,
    over: str = "documents",
    unit: str = "nats",
) -> Estimate:
    """Mean of `values` (seeds x observations) with a bootstrap interval.

    `weights`, one for each observation: a weighted mean, each observation resampled with its weight. `groups`, one
    for each: what belongs together is resampled together (cluster bootstrap), and counts once in Student's degrees of
    freedom (CR1). Groups of unequal weight count as the effective number of equal ones, (Σw)²/Σw²
    (Carter, Schnepel & Steigerwald 2017).

    One seed: observations are resampled. Several: seeds and observations are resampled independently (the
    pigeonhole bootstrap, Owen 2007). Percentiles are widened for small n as in Hesterberg (2015), since the
    plain percentile interval of a dozen observations is too short. Below FEW observations, where no
    percentile reaches 95 %, it is at least Student's. One observation: an unbounded interval. Above LARGE, where
    the resamples would fill the memory and change nothing, the interval is the normal one. Another confidence than
    95 % lengthens both sides by the ratio of Student's quantiles: the resamples have no such tails.

    Resampled means of a few seeds stay within these seeds' range. So with several seeds the interval is at least as
    wide as Student's over the observations' means and Student's over the seeds' effects together: the root of the sum
    of their squared half-widths (MOVER for two independent effects, Zou & Donner 2008).
    """
    values = np.atleast_2d(np.asarray(values, dtype=float))
    seeds, observed = values.shape
    weights = np.ones(observed) if weights is None else np.asarray(weights, dtype=float)
    centre = float((values @ weights).sum() / (seeds * weights.sum()))
    label = over
    if groups is not None:
        values, weights = _by_group(values, weights, groups)
        label = f"{over} in {len(weights)} groups" if len(weights) < observed else over
    n = len(weights)
    label = label if seeds == 1 else f"{label} x seeds ({observed} x {seeds})"
    if n < 2:
        method = f"none: one {'group' if observed > 1 else 'observation'}"
        return Estimate(centre, -math.inf, math.inf, observed * seeds, label, unit, method)
    units = float(weights.sum() ** 2 / (weights**2).sum())
    residuals = weights * (values.mean(axis=0) - centre) / weights.mean()
    half_of_seeds = _half_of_seeds(values, weights) if seeds > 1 else 0.0
    half = student_half(residuals, units)
    if n > LARGE:
        low = high = centre
        method = "normal approximation" + (", Student's t over seeds" if seeds > 1 else "")
    else:
        tail = expanded_tail(units)
        low, high = (float(q) for q in np.quantile(_resampled_means(values, weights), [tail, 1 - tail]))
        method = f"bootstrap, {RESAMPLES:,} resamples of {_drawn(seeds, groups if n < observed else None, over)}"
    widened = n > LARGE or units < FEW or seeds > 1
    method += widening(seeds) if widened and n <= LARGE else ""

    def bounds(confidence: float) -> tuple[float, float]:
        grown = _growth(units, confidence)
        # Summation order makes the bounds of constant values differ from their mean in the last digit.
        below, above = max(0.0, grown * (centre - low)), max(0.0, grown * (high - centre))
        if widened:
            least = math.hypot(grown * half, _growth(seeds, confidence) * half_of_seeds if seeds > 1 else 0.0)
            below, above = max(below, least), max(above, least)
        return centre - below, centre + above

    return Estimate(centre, *bounds(CONFIDENCE), observed * seeds, label, unit, method, units - 1, bounds)


def _by_group(values: Array, weights: Array, groups: Sequence[object]) -> tuple[Array, Array]:
    """Each group's mean and weight: (seeds, groups), (groups,)."""
    if len(set(groups)) == len(weights):
        return values, weights
    total = _sums(weights[None], groups)[0]
    return _sums(values * weights, groups) / total, total


def student_mean(values: Array, groups: Sequence[object], *, over: str = "documents", unit: str = "nats") -> Estimate:
    """`mean` of one seed's observations with Student's interval instead of the bootstrap's: where there are many."""
    n, centre = len(values), float(values.mean())
    own, weights = _by_group(values[None], np.ones(n), groups)
    if len(weights) < 2:
        return Estimate(centre, -math.inf, math.inf, n, over, unit, "none: one observation")
    units = float(weights.sum() ** 2 / (weights**2).sum())
    half = student_half(weights * (own[0] - centre) / weights.mean(), units)
    return Estimate(centre, centre - half, centre + half, n, over, unit, "Student", units - 1)


def mean_of_steps(values: Array, last: int, *, unit: str = "nats") -> Estimate:
    """Mean of the `last` of consecutive steps of a training, or of a difference of two (seeds x steps).

    Neighbouring steps are alike, so `last` of them are fewer independent ones: last·(1 − ρ)/(1 + ρ), with the lag-1
    autocorrelation ρ of all given steps about a line in ln(step), corrected for its bias (Marriott & Pope 1954), never
    below 0. The spread, too, is that of all steps about the line, corrected for what correlated values hide of it.
    Student's t by the number of independent steps less the line's two parameters. Several seeds: what the steps of
    one training are worth need not be known, the interval is Student's over the seeds' means.

    Below three steps, or less than one independent one, the interval is unbounded.
    """
    values = np.atleast_2d(np.asarray(values, dtype=float))
    seeds, n = values.shape
    by_seed = values[:, -last:].mean(axis=1)
    centre = float(by_seed.mean())
    if seeds > 1:
        half, over = student_half(by_seed), f"steps x seeds ({last} x {seeds})"
        return Estimate(
            centre, centre - half, centre + half, last * seeds, over, unit, "Student's t over seeds", seeds - 1
        )
    trend = np.stack([np.ones(n), np.log(np.arange(1, n + 1))], axis=1)
    residuals = values[0] - trend @ np.linalg.lstsq(trend, values[0], rcond=None)[0]
    square = float(residuals @ residuals)
    if n < 3 or square == 0:
        half = 0.0 if n >= 3 else math.inf
        return Estimate(centre, centre - half, centre + half, last, "steps", unit, "none: no spread")
    rho = float(residuals[1:] @ residuals[:-1]) / square
    rho = min(0.95, max(0.0, rho + (1 + 4 * rho) / n))
    independent = (1 - rho) / (1 + rho)
    variance = square / (n - 1) / (1 - 1 / max(1.5, n * independent))
    df = n * independent - 2
    half = student_quantile(df + 1) * math.sqrt(variance / (last * independent)) if df > 0 else math.inf
    method = f"Student's t, {last * independent:.1f} independent steps (lag-1 autocorrelation {rho:.2f})"
    return Estimate(centre, centre - half, centre + half, last, "steps", unit, method, df if df > 0 else 1.0)


def geometric_mean_perplexity(
    nll: Array, weights: Array | None = None, groups: Sequence[object] | None = None
) -> Estimate:
    """exp(mean NLL) over documents (and seeds): the paper's aggregate for documents cut to equal length."""
    return mean(nll, weights=weights, groups=groups).map(_exp, "perplexity")


def resampled(values: Array, statistic: Callable[[Array], Array], *, unit: str, over: str = "documents") -> Estimate:
    """Any statistic of the observations along the first axis, with the percentile interval of its bootstrap.

    `statistic` takes (resamples, observations, …) and returns (resamples,). Percentiles are widened for small n as in
    `mean`. Below FEW observations the interval is unbounded: resamples of so few repeat each other, and the width that
    `mean` falls back on, Student's, is that of a mean alone.
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    centre = float(statistic(values[None])[0])
    if n < FEW:
        return Estimate(centre, -math.inf, math.inf, n, over, unit, f"none: fewer than {FEW} {over}")
    counts = draws("observations", n).astype(int)
    drawn = np.repeat(np.tile(np.arange(n), RESAMPLES), counts.ravel()).reshape(RESAMPLES, n)
    block = max(1, BLOCK // values.size)
    found = np.concatenate([statistic(values[drawn[i : i + block]]) for i in range(0, RESAMPLES, block)])
    tail = expanded_tail(n)
    low, high = (float(q) for q in np.quantile(found, [tail, 1 - tail]))
    method = f"bootstrap, {RESAMPLES:,} resamples of {over}"
    return Estimate(centre, min(low, centre), max(high, centre), n, over, unit, method, n - 1)


def accuracy(hits: Array, *, groups: Sequence[object] | None = None) -> Estimate:
    """Share of hits (seeds x trials): Wilson's interval; with several seeds, or `groups` of trials, never narrower than
    the interval of their mean (`mean`)."""
    hits = np.atleast_2d(np.asarray(hits, dtype=float))
    return _no_surer(proportion(int(hits.sum()), hits.size), hits, groups, (0.0, 1.0))


def share(values: Array) -> Estimate:
    """Mean of probabilities of trials (seeds x trials), its interval within 0 and 1."""
    e = mean(values, over="trials", unit="proportion")
    return replace(e, low=max(0.0, e.low), high=min(1.0, e.high), bounds=None)


def _resampled_means(values: Array, weights: Array) -> Array:
    seeds, n = values.shape
    columns = draws("observations", n) * weights
    totals = columns.sum(axis=1)
    if seeds == 1:
        return columns @ values[0] / totals
    return ((draws("seeds", seeds) @ values) * columns).sum(axis=1) / (seeds * totals)


def _half_of_seeds(values: Array, weights: Array) -> float:
    """Student's half-width for what the seeds differ by beyond the noise of their observations (seeds x observations).

    The variance of a mean over crossed seeds and observations is σ²(seeds)/S + [σ²(observations)/n + σ²(noise)/Sn].
    The observations' means vary by the bracket, the seeds' means by the first and the last term. The last is estimated
    from the two-way residuals and taken off, so that seeds without effects hardly widen an interval.

    One t over the sum of both variances, with Satterthwaite's degrees of freedom, is narrower where both effects are
    large, but in simulations with 2 and 3 seeds and 12 and 50 observations it covers down to 89 %, this 94 % or more.
    """
    seeds, n = values.shape
    by_seed = values @ weights / weights.sum()
    own = weights * (values - by_seed[:, None]) / weights.mean()
    noise = float(((own - own.mean(axis=0)) ** 2).sum()) / ((seeds - 1) * (n - 1) * seeds * n)
    effect = float(by_seed.var(ddof=1)) / seeds - noise
    return student_quantile(seeds) * math.sqrt(max(0.0, effect))


@cache
def draws(axis: str, n: int) -> Array:
    """How often each of n things is drawn in each resample: (RESAMPLES, n).

    It depends on the shape only: all comparisons of a study share resamples, and reruns agree.
    """
    rng = np.random.default_rng(zlib.crc32(f"yarnlab bootstrap {axis} {n}".encode()))
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)


@cache
def student_quantile(n: float, confidence: float = CONFIDENCE) -> float:
    """Student's two-sided quantile (97.5 % for a confidence of 95 %) for the mean of n observations."""
    return float(stats.t.ppf((1 + confidence) / 2, n - 1))


def _growth(n: float, confidence: float) -> float:
    """How much longer than a 95 % interval one of this confidence is, for the mean of n observations."""
    return student_quantile(n, confidence) / student_quantile(n)


def student_half(means: Array, units: float | None = None) -> float:
    """Half of Student's 95 % interval for the mean of these numbers, which count as `units` (or all of them)."""
    return student_quantile(units or len(means)) * float(means.std(ddof=1)) / math.sqrt(len(means))


def widening(seeds: int) -> str:
    """How an estimate's `method` says that its interval is at least Student's."""
    return ", at least Student's t over each (MOVER)" if seeds > 1 else f", widened to Student's t for n < {FEW}"


@cache
def expanded_tail(n: float) -> float:
    """The tail to cut off on each side so that a percentile interval of n observations is as wide as Student's."""
    return float(stats.norm.cdf(-student_quantile(n) * math.sqrt(n / (n - 1))))


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


@dataclass(frozen=True)
class Significance:
    """A two-sided p-value from `n` observations, by `method`."""

    p: float
    n: int
    method: str

    def columns(self) -> dict[str, Any]:
        """What a tidy table says of it."""
        return {"p": self.p, "test": self.method}


def mcnemar(a: Array, b: Array, *, groups: Sequence[object] | None = None) -> Significance:
    """Do two models hit the same trials equally often? McNemar's exact test (binomial on the discordant trials).

    a, b: hits (0 or 1) on the same trials (seeds x trials), of one shape. Several seeds, or `groups` of trials: the
    exact test that flips the sign of each trial's (or group's) difference in hits over seeds, of which McNemar's is the
    case of one seed and trials that share nothing. Raises ValueError when the shapes differ.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"paired trials need equal shapes, got {np.shape(a)} and {np.shape(b)}")
    difference = np.atleast_2d(np.asarray(a, dtype=int) - np.asarray(b, dtype=int))
    units = "trials"
    if groups is not None and len(set(groups)) < difference.shape[1]:
        difference, units = _sums(difference, groups), "groups"
    if len(difference) > 1 or units == "groups":
        sums = difference.sum(axis=0)
        method = f"exact sign-flip test of the {units}' sums" + (" over seeds" if len(difference) > 1 else "")
        return Significance(_by_flipped_signs(sums), len(sums), method)
    only_a, only_b = int((difference > 0).sum()), int((difference < 0).sum())
    discordant = only_a + only_b
    p = float(stats.binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0
    return Significance(p, difference.size, "McNemar's exact test")


def fisher(a: Array, b: Array) -> Significance:
    """Are two shares of hits on different trials equal? Fisher's exact test, two-sided by the shares' distance.

    a, b: hits (0 or 1), seeds x trials. Several seeds: the exact test that deals the trials, each with its hits over
    seeds, to the two sides anew, of which Fisher's is the case of one seed. Raises ValueError when the two have not
    as many seeds.
    """
    a, b = np.atleast_2d(np.asarray(a, dtype=int)), np.atleast_2d(np.asarray(b, dtype=int))
    if len(a) != len(b):
        raise ValueError(f"both sides need the same seeds, got {len(a)} and {len(b)}")
    method = "exact permutation test of the trials' sums over seeds" if len(a) > 1 else "Fisher's exact test"
    return Significance(_by_dealing(a.sum(axis=0), b.sum(axis=0)), a.shape[1] + b.shape[1], method)


def sign_flip(differences: Array, *, groups: Sequence[object] | None = None) -> Significance:
    """Is the mean of paired differences (seeds x documents) zero? The randomisation test that flips signs.

    Seeds are averaged first: documents, or `groups` of them, are what is exchangeable. Exact up to ENUMERATED of them,
    above that RESAMPLES random sign patterns from a fixed seed.
    """
    whole = np.atleast_2d(np.asarray(differences, dtype=float)).mean(axis=0, keepdims=True)
    values = (whole if groups is None else _sums(whole, groups))[0]
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


def _sums(values: NDArray[Any], groups: Sequence[object]) -> NDArray[Any]:
    """Each group's sum, groups in the order in which they appear: (seeds, observations) -> (seeds, groups)."""
    places: dict[object, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    return np.stack([values[:, at].sum(axis=1) for at in places.values()], axis=1)


def _by_flipped_signs(sums: NDArray[np.int_]) -> float:
    """Chance that random signs bring the total of these whole numbers as far from 0 as it is."""
    sizes = np.abs(sums[sums != 0])
    chances = np.ones(1)  # of what the negative ones add up to
    for size, times in zip(*np.unique(sizes, return_counts=True), strict=True):
        step = np.zeros(size * times + 1)
        step[::size] = stats.binom.pmf(np.arange(times + 1), times, 0.5)
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
