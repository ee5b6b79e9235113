"""How far our number may be from a published one and still count as the same, each part with its reason.

What a published number can have been (its rounding, truncation or reading error) is no tolerance but a range, and the
distance is measured from its nearer end. Beyond that, written before any result was seen:

* perplexity over the same documents: the documents are no source of difference. The same weights may differ by
  SAME_WEIGHTS (other kernels and bfloat16 sums); weights that were trained again by RETRAINED, which is what the paper
  itself calls equivalent (its s=32 model is up to 1.8 % above its s=16 model, v2 p.8).
* perplexity over other documents of the same text: the half width of our 95 % interval over documents.
* passkey accuracy: both sides are counts of hits. The tolerance is that of Newcombe's interval of the difference.
* passkey context: one step of the grid of sizes, 8,192 tokens.
* benchmarks: the 95 % half width of the published score over its questions. The questions are the same, so it is
  generous: it stands for another release of the harness and weights trained again.
* GPU-hours on the same kind of GPU: COST of the published number, the throughput of another cluster.
* standard errors: ERRORS of the published one. Settings, formulas and budgets: nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from yarnlab.results.published.published_ours import PASSKEY_STEP, Ours
from yarnlab.results.published.reference_rows import Cell
from yarnlab.results.statistics import Z, difference_of_proportions, proportion

SAME_WEIGHTS = 0.005
RETRAINED = 0.02
COST = 0.25
ERRORS = 0.05


@dataclass(frozen=True)
class Tolerance:
    """`amount` in the cell's unit, beyond the range of what the published number can have been."""

    amount: float
    reason: str


def tolerance(cell: Cell, kind: str, ours: Ours) -> Tolerance:
    """The tolerance of a cell measured by a protocol of this kind."""
    target = cell.target
    assert target is not None
    if cell.relation == ">":
        return Tolerance(0.0, "anything above it")
    if cell.metric == "perplexity":
        return perplexity_tolerance(target, ours)
    if kind == "passkey_official" and cell.metric == "passkey_context":
        return Tolerance(float(PASSKEY_STEP), "one step of the grid of sizes")
    if kind == "passkey_official":
        return _hits(cell, target, ours)
    if cell.metric.endswith("_stderr"):
        return Tolerance(ERRORS * target, f"{100 * ERRORS:g} % of a standard error")
    if kind == "benchmarks":
        factor = 100.0 if cell.unit == "percent" else 1.0
        share = target / factor
        half = Z * math.sqrt(share * (1 - share) / (cell.n or 1))
        return Tolerance(factor * half, f"95 % binomial half width of {cell.n:,} questions")
    if kind == "cost":
        return Tolerance(COST * target, f"{100 * COST:g} %: another cluster's throughput")
    if cell.metric == "mean_drop":
        return Tolerance(_half(ours, target), "half width of our interval over questions")
    return Tolerance(1e-9 * abs(target), _PRINTED[cell.rounding])


def perplexity_tolerance(target: float, ours: Ours) -> Tolerance:
    """For a perplexity: by whether documents and weights are the published ones."""
    if not ours.same_documents:
        return Tolerance(_half(ours, target), "half width of our interval over other documents")
    if ours.same_weights:
        return Tolerance(SAME_WEIGHTS * target, f"{100 * SAME_WEIGHTS:g} %: same weights and documents, other kernels")
    return Tolerance(RETRAINED * target, f"{100 * RETRAINED:g} %: same documents, weights trained again")


def _half(ours: Ours, target: float) -> float:
    """The half width of our interval on the side of the published value."""
    e = ours.estimate
    return e.value - e.low if target < e.value else e.high - e.value


def _hits(cell: Cell, target: float, ours: Ours) -> Tolerance:
    factor = 100.0 if cell.unit == "percent" else 1.0
    published = proportion(round(target / factor * (cell.n or 1)), cell.n or 1)
    own = ours.estimate.map(lambda x: x / factor, "proportion")
    between = difference_of_proportions(own, published)
    half = between.value - between.low if between.value > 0 else between.high - between.value
    reason = f"95 % interval of the difference of {own.n:,} and {cell.n:,} trials"
    return Tolerance(factor * half, reason)


_PRINTED = {
    "rounded": "half a unit of the last printed digit",
    "truncated": "a unit of the last printed digit",
    "exact": "none: not sampled",
    "misprint": "none: not sampled",
}
