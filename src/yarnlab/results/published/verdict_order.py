"""Orders within a published table, and whether they are found here: scale-free, so analogues have them too.

Two cells of a column (same length or task, another model) or of a row (same model, another length) are ordered by the
paper when they differ clearly: perplexities by more than CLEAR of their ratio (as much as training again may change,
see verdict_tolerance), scores and hit rates by more than 1.96 standard errors of their difference. Here they are
ordered when the 95 % interval of their difference, paired by document where possible, excludes 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from yarnlab.lazy import np
from yarnlab.results.published.published_ours import Ours
from yarnlab.results.published.reference_rows import Cell
from yarnlab.results.statistics import Array, Estimate, Z, student_quantile

CLEAR = 0.02
# Metrics whose cells have an order worth asking for, and whether they are shares of `n` trials or questions.
ORDERED = {"perplexity": False, "accuracy": True, "passkey_accuracy": True, "acc": True, "acc_norm": True, "mc2": True}


@dataclass(frozen=True)
class Orders:
    """Ids of the cells against which the paper's order is found here, is turned round, or is not clear here."""

    kept: tuple[str, ...] = ()
    reversed: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


def compare_orders(cells: tuple[Cell, ...], found: dict[str, Ours]) -> dict[str, Orders]:
    """Cell id → its orders, for all cells that this study has a number for."""
    kept: dict[str, dict[int, list[str]]] = {name: {1: [], -1: [], 0: []} for name in found}
    here = {name: _Here.of(ours) for name, ours in found.items()}
    for a, b in _pairs([cell for cell in cells if cell.cell in found]):
        published = _published(a, b)
        if published:
            agreement = published * _order(here[a.cell], here[b.cell])
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


def _published(a: Cell, b: Cell) -> int:
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


@dataclass(frozen=True, eq=False)
class _Here:
    """Our number as arrays: NLL seeds x documents with their names and weights, where there are documents."""

    estimate: Estimate
    values: Array | None
    seeds: tuple[object, ...]
    names: tuple[object, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, ours: Ours) -> _Here:
        if ours.documents is None:
            return cls(ours.estimate, None, (), (), ())
        values, names = ours.documents.to_numpy(float), tuple(ours.documents.columns)
        weights = (1.0,) * len(names) if ours.weights is None else tuple(float(w) for w in ours.weights)
        return cls(ours.estimate, values, tuple(ours.documents.index), names, weights)


def _order(a: _Here, b: _Here) -> int:
    """1 where ours has a clearly above b, −1 below, 0 where it does not say."""
    between = _paired(a, b)
    if between is not None:
        return _sign(*between)
    e, f = a.estimate, b.estimate
    if e.method.startswith("normal"):
        half = math.hypot(e.high - e.value, f.high - f.value)
        return _sign(e.value - f.value - half, e.value - f.value + half)
    return _sign(e.low - f.high, e.high - f.low)


def _paired(a: _Here, b: _Here) -> tuple[float, float] | None:
    """Student's 95 % interval of the difference in ln perplexity over the same documents, and over seeds if several.

    None where the two cannot be paired. Not a bootstrap, since a study has more than a thousand pairs.
    """
    if a.values is None or b.values is None or a.names != b.names or a.weights != b.weights:
        return None
    first, second, weights = a.values, b.values, np.array(a.weights)
    if a.seeds != b.seeds:
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


def _sign(low: float, high: float) -> int:
    return 1 if low > 0 else -1 if high < 0 else 0
