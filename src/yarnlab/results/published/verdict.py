"""A verdict on every published number, by the rule of docs/deviations.md, which was written before any result.

* **not run**: the study has no model that stands for the published one, or has not measured it; the reason says which.
* **not comparable**: there is a number of ours, but of an analogue, other text or another protocol.
* **reproduced**: our whole interval is within the tolerance of what the published number can have been (an equivalence
  test: two one-sided ones at 2.5 %); for '>10^n', above it.
* **contradicted**: our whole interval is outside, and an order that the paper's table shows is reversed.
* **differs**: our whole interval is outside.
* **not excluded**: it is neither; so few documents or trials can't tell.

The interval is that of the difference to the published number. What both sides share leaves none: the same documents
with the same weights, or the same questions, differ by no sampling, and our value alone is judged.

What a published number can have been (its rounding, truncation or reading error) is no tolerance but a range
(`Cell.range`, `Point.range`), and the distance is measured from its nearer end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from yarnlab.lazy import np
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.published.data import Cell, Curve, Point, load_reference
from yarnlab.results.published.ours import PASSKEY_STEP, Ours, ours
from yarnlab.results.results import Results
from yarnlab.results.statistics import Array, Z, difference_of_proportions, proportion, student_half, student_quantile

REPRODUCED, DIFFERS, CONTRADICTED, NOT_EXCLUDED = "reproduced", "differs", "contradicted", "not excluded"
NOT_RUN, NOT_COMPARABLE = "not run", "not comparable"
VERDICTS = (REPRODUCED, DIFFERS, CONTRADICTED, NOT_EXCLUDED, NOT_RUN, NOT_COMPARABLE)

SAME_WEIGHTS = 0.005  # of a perplexity: other kernels and bfloat16 sums
RETRAINED = 0.02  # of a perplexity: the paper calls its s=32 model, up to 1.8 % above s=16, equivalent (v2 p.8)
OTHER_TEXT = 0.05  # of a perplexity: what makes no difference where the documents are others
HITS = 0.05  # of a share of hits: what makes no difference between two samples of trials
DROP = 0.5  # percentage points: what the paper itself calls negligible (v2 §4.3.3)
CHANGE = 2.0  # percentage points of a change of perplexity: RETRAINED, for both sides of the change
COST = 0.25  # of GPU-hours: the throughput of another cluster
ERRORS = 0.05  # of a standard error
CLEAR = 0.02  # of the ratio of two published perplexities: from here on they are in order
# Metrics whose cells have an order worth asking for, and whether they are shares of `n` trials or questions.
ORDERED = {"perplexity": False, "accuracy": True, "passkey_accuracy": True, "acc": True, "acc_norm": True, "mc2": True}


@dataclass(frozen=True)
class Tolerance:
    """`amount` in the cell's unit, beyond the range of what the published number can have been.

    interval: where our number lies beside the published one, as far as samples tell; None: at our value.
    """

    amount: float
    reason: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Orders:
    """Ids of the cells against which the paper's order is found here, is turned round, or is not clear here."""

    kept: tuple[str, ...] = ()
    reversed: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Verdict:
    """What became of one published number.

    difference: ours minus published, in the cell's unit; relative: that over the published value. Both NaN where there
    is nothing to subtract ('>10^n', no number of ours).
    excess: how far our value is outside of what the published number can have been; at most the tolerance where it is
        reproduced, and the whole interval with it.
    reason: why it is not run or not comparable, or which order is reversed; empty otherwise.
    """

    cell: Cell | Point
    verdict: str
    ours: Ours | None = None
    difference: float = math.nan
    relative: float = math.nan
    excess: float = math.nan
    tolerance: Tolerance | None = None
    orders: Orders = Orders()
    reason: str = ""


@lru_cache(maxsize=128)
def grade_artifact(results: Results, artifact: str) -> tuple[Verdict, ...]:
    """A verdict on every cell of one table, figure or section; orders never leave it."""
    reference = load_reference()
    cells = reference.of(artifact)
    found = {cell.cell: _measured(results, cell) for cell in cells}
    orders = compare_orders(cells, {name: own for name, own in found.items() if isinstance(own, Ours)})
    none = Orders()
    return tuple(grade(c, reference.kind_of(c), found[c.cell], orders.get(c.cell, none)) for c in cells)


def grade_curve(results: Results, curve: Curve) -> list[Verdict]:
    """A verdict on every point of a curve; its points have no orders."""
    reference = load_reference()
    kind = reference.kind_of(curve)
    return [grade(point, kind, _measured(results, point), Orders()) for point in reference.points_of(curve)]


def _measured(results: Results, cell: Cell | Point) -> Ours | str:
    """Our number, or why there is none."""
    try:
        return ours(results, cell)
    except NotMeasured as absent:
        return str(absent)


def grade(cell: Cell | Point, kind: str, found: Ours | str, orders: Orders) -> Verdict:
    """The verdict on a cell measured by a protocol of this kind; `found` is our number, or why there is none."""
    if isinstance(found, str):
        return Verdict(cell, NOT_RUN, reason=found)
    value, target = found.estimate.value, cell.target
    if target is None:
        return Verdict(cell, NOT_COMPARABLE, found, orders=orders, reason="the paper gives no number")
    excess = _excess(cell, value)
    difference = math.nan if cell.relation == ">" else value - target
    relative = difference / target if target else math.nan
    allowed = tolerance(cell, kind, found)
    reason = found.incomparable or ""
    if reason:
        verdict = NOT_COMPARABLE
    elif (place := _place(cell, allowed, allowed.interval or (value, value))) != DIFFERS:
        verdict = place
    elif orders.reversed:
        verdict = CONTRADICTED
        reason = f"order reversed against {', '.join(orders.reversed[:3])}"
        reason += f" and {len(orders.reversed) - 3} more" if len(orders.reversed) > 3 else ""
    else:
        verdict = DIFFERS
    return Verdict(cell, verdict, found, difference, relative, excess, allowed, orders, reason)


def _excess(cell: Cell | Point, value: float) -> float:
    """How far a value is outside of what the published number can have been."""
    low, high = cell.range
    return max(low - value, value - high, 0.0)


def _place(cell: Cell | Point, allowed: Tolerance, interval: tuple[float, float]) -> str:
    """Is the whole interval within the tolerance, outside or neither? For '>10^n': above it, below or neither."""
    least, most = interval
    low, high = cell.range
    if cell.relation == ">":
        return REPRODUCED if least > low else DIFFERS if most <= low else NOT_EXCLUDED
    if max(_excess(cell, least), _excess(cell, most)) <= allowed.amount:
        return REPRODUCED
    return DIFFERS if most < low - allowed.amount or least > high + allowed.amount else NOT_EXCLUDED


def tolerance(cell: Cell | Point, kind: str, found: Ours) -> Tolerance:
    """How far our number for a cell of this kind may be from the published one and still count as the same."""
    target = cell.target
    assert target is not None
    if isinstance(cell, Point) and cell.metric == "loss":
        return Tolerance(cell.scatter, "twice the scatter of the published losses")
    if cell.relation == ">":
        return Tolerance(0.0, "anything above it", None if found.same_documents else _ends(found))
    if cell.metric in ("perplexity", "mean_perplexity"):
        return _of_perplexity(target, found)
    if cell.metric == "mean_change":
        return Tolerance(CHANGE, f"{CHANGE:g} percentage points, our interval over documents", _ends(found))
    if cell.metric in ("mean_minus_sd", "mean_plus_sd"):
        return Tolerance(OTHER_TEXT * target, f"{100 * OTHER_TEXT:g} %, our interval over documents", _ends(found))
    if cell.metric == "documents_at_best":
        return Tolerance(HITS * found.estimate.n, f"{100 * HITS:g} % of the documents, our interval", _ends(found))
    assert isinstance(cell, Cell)  # no curve shows anything else
    factor = 100.0 if cell.unit == "percent" else 1.0
    if kind == "passkey_official" and cell.metric == "passkey_context":
        return Tolerance(float(PASSKEY_STEP), "one step of the grid of sizes")
    if kind == "passkey_official":
        published = proportion(round(target / factor * (cell.n or 1)), cell.n or 1)
        between = difference_of_proportions(found.estimate.map(lambda x: x / factor, "proportion"), published)
        reason = f"{100 * HITS:g} percentage points, Newcombe's interval of {found.estimate.n:,} and {cell.n:,} trials"
        return Tolerance(factor * HITS, reason, (target + factor * between.low, target + factor * between.high))
    if cell.metric.endswith("_stderr"):
        return Tolerance(ERRORS * target, f"{100 * ERRORS:g} % of a standard error")
    if kind == "benchmarks":
        share = target / factor
        half = Z * math.sqrt(share * (1 - share) / (cell.n or 1))
        return Tolerance(factor * half, f"95 % binomial half width of {cell.n:,} questions")
    if kind == "cost":
        return Tolerance(COST * target, f"{100 * COST:g} %: another cluster's throughput")
    if cell.metric == "mean_drop":
        return Tolerance(DROP, f"{DROP:g} percentage points, our interval over questions", _ends(found))
    return Tolerance(1e-9 * abs(target), _AS_PRINTED[cell.rounding])


_AS_PRINTED = {
    "rounded": "half a unit of the last printed digit",
    "truncated": "a unit of the last printed digit",
    "exact": "none: not sampled",
    "misprint": "none: not sampled",
}


def _of_perplexity(target: float, found: Ours) -> Tolerance:
    """By whether documents and weights are the published ones."""
    if not found.same_documents:
        reason = f"{100 * OTHER_TEXT:g} %: our interval over other documents"
        return Tolerance(OTHER_TEXT * target, reason, _ends(found))
    if found.same_weights:
        return Tolerance(SAME_WEIGHTS * target, f"{100 * SAME_WEIGHTS:g} %: same weights and documents, other kernels")
    reason, seeds = f"{100 * RETRAINED:g} %: same documents, weights trained again", _over_seeds(found)
    return Tolerance(RETRAINED * target, reason + (", our interval over seeds" if seeds else ""), seeds)


def _ends(found: Ours) -> tuple[float, float]:
    """Our interval."""
    return found.estimate.low, found.estimate.high


def _over_seeds(found: Ours) -> tuple[float, float] | None:
    """Student's interval of our perplexity over seeds, on these documents; None for a single one."""
    if found.documents is None or len(found.documents) < 2:
        return None
    weights = _weights(found)
    means = found.documents.to_numpy(float) @ weights / weights.sum()
    centre, half = float(means.mean()), student_half(means)
    return math.exp(centre - half), math.exp(centre + half)


def compare_orders(cells: tuple[Cell, ...], found: dict[str, Ours]) -> dict[str, Orders]:
    """Cell id → its orders, for all cells that this study has a number for.

    Two cells of a column (same length or task, another model) or of a row (same model, another length) are ordered by
    the paper when they differ clearly: perplexities by more than CLEAR of their ratio, scores and hit rates by more
    than 1.96 standard errors of their difference. Here they are ordered when the 95 % interval of their difference,
    paired by document where possible, excludes 0. That is scale-free, so analogues have orders too.
    """
    kept: dict[str, dict[int, list[str]]] = {name: {1: [], -1: [], 0: []} for name in found}
    for a, b in _pairs([cell for cell in cells if cell.cell in found]):
        published = _published_order(a, b)
        if published:
            agreement = published * _order(found[a.cell], found[b.cell])
            kept[a.cell][agreement].append(b.cell)
            kept[b.cell][agreement].append(a.cell)
    return {name: Orders(*(tuple(by[sign]) for sign in (1, -1, 0))) for name, by in kept.items()}


def _pairs(cells: list[Cell]) -> Iterator[tuple[Cell, Cell]]:
    """Every two cells of a column or a row of the same table."""
    groups: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        if cell.metric not in ORDERED or cell.value is None:
            continue
        task = cell.protocol if cell.x is None else ""
        passkey_context = cell.metric == "passkey_accuracy"  # each at its own context: a column, but no rows
        groups.setdefault((cell.artifact, cell.metric, task, None if passkey_context else cell.x), []).append(cell)
        if cell.x is not None and not passkey_context:
            row = (cell.artifact, cell.metric, cell.protocol, cell.model, cell.method, cell.scale, "row")
            groups.setdefault(row, []).append(cell)
    for group in groups.values():
        yield from combinations(group, 2)


def _published_order(a: Cell, b: Cell) -> int:
    """1 where the paper has a clearly above b, −1 below, 0 where it does not say."""
    (a_low, a_high), (b_low, b_high) = a.range, b.range
    sign, upper, lower = (1, a_low, b_high) if a_low > b_high else (-1, b_low, a_high)
    if not upper > lower:
        return 0
    if not ORDERED[a.metric]:
        return sign if math.log(upper / lower) > CLEAR else 0
    return sign if upper - lower > Z * math.hypot(_error(a), _error(b)) else 0


def _error(cell: Cell) -> float:
    """Standard error of a published share, in the cell's unit; no share is taken as certain."""
    factor = 100.0 if cell.unit == "percent" else 1.0
    n = cell.n or 1
    assert cell.target is not None
    share = min(max(cell.target / factor, 0.5 / n), 1 - 0.5 / n)
    return factor * math.sqrt(share * (1 - share) / n)


def _order(a: Ours, b: Ours) -> int:
    """1 where ours has a clearly above b, −1 below, 0 where it does not say."""
    e, f = a.estimate, b.estimate
    between = _paired(a, b)
    if between is None and e.method.startswith("normal"):
        half = math.hypot(e.high - e.value, f.high - f.value)
        between = e.value - f.value - half, e.value - f.value + half
    low, high = between or (e.low - f.high, e.high - f.low)
    return 1 if low > 0 else -1 if high < 0 else 0


def _paired(a: Ours, b: Ours) -> tuple[float, float] | None:
    """Student's 95 % interval of the difference in ln perplexity over the same documents, and over seeds if several.

    None where the two cannot be paired. Not a bootstrap, since a study has more than a thousand pairs.
    """
    if a.documents is None or b.documents is None or not a.documents.columns.equals(b.documents.columns):
        return None
    weights = _weights(a)
    if not np.array_equal(weights, _weights(b)):
        return None
    first, second = a.documents.to_numpy(float), b.documents.to_numpy(float)
    # A single seed, as of a model that is not trained here, is set against every seed of the other.
    if min(len(first), len(second)) > 1 and not a.documents.index.equals(b.documents.index):
        first, second = first.mean(axis=0, keepdims=True), second.mean(axis=0, keepdims=True)
    difference = first - second
    seeds, n = difference.shape
    if n < 2:
        return None
    centre = float((difference @ weights).sum() / (seeds * weights.sum()))
    residuals = weights * (difference.mean(axis=0) - centre) / weights.mean()
    variance = float(residuals.var(ddof=1)) / n
    if seeds > 1:
        variance += float((difference @ weights / weights.sum()).var(ddof=1)) / seeds
    half = student_quantile(n) * math.sqrt(variance)
    return centre - half, centre + half


def _weights(found: Ours) -> Array:
    assert found.documents is not None
    return np.ones(found.documents.shape[1]) if found.weights is None else np.asarray(found.weights, dtype=float)
