"""Our statistics of the temperature sweep at a point of the paper's Figures 2 to 4 (App. A.2, Eq. 26)."""

from __future__ import annotations

import math
from functools import lru_cache

from yarnlab.lazy import pd
from yarnlab.results.estimates import NotMeasured, present
from yarnlab.results.published.reference_rows import Curve
from yarnlab.results.results import Results
from yarnlab.results.statistics import Estimate, Z, proportion
from yarnlab.results.temperature import best_by_document, histogram, perplexity_by_factor, relative_change

BASELINE = 1.05  # the first plotted point, which the paper's Figure 3 draws as zero


def sweep_point(results: Results, arm: str, curve: Curve, factor: float) -> tuple[Estimate, int]:
    """Our value of a curve's statistic at √(1/t) = factor, and how many documents it is over."""
    table = _table(results, arm, curve.method, float(curve.scale or 0))
    documents = int(table["document"].nunique())
    if curve.segment_start is None:
        return _whole(results, arm, curve, factor), documents
    segment = _segment(table, curve)
    if curve.metric == "mean_change":
        rows = _at(_changes(results, arm, curve.method, float(curve.scale or 0)), factor, segment)
        change, low, high = (100 * float(rows[name].iloc[0]) for name in ("change", "low", "high"))
        return Estimate(change, low, high, documents, "documents", "percent", "bootstrap over documents"), documents
    found = _histogram(results, arm, curve.method, float(curve.scale or 0))
    rows = found[(found["segment"] == segment) & ((found["factor"] - factor).abs() < 1e-6)]
    count = int(rows["documents"].sum())
    share = proportion(count, documents)
    return share.map(lambda x: documents * x, "documents"), documents


def _whole(results: Results, arm: str, curve: Curve, factor: float) -> Estimate:
    row = _at(_means(results, arm, curve.method, float(curve.scale or 0)), factor).iloc[0]
    mean, sd, n = float(row["perplexity"]), float(row["sd"]), int(row["documents"])
    offset = {"mean_perplexity": 0.0, "mean_minus_sd": -1.0, "mean_plus_sd": 1.0}[curve.metric]
    # The error of mean ± sd for about normal values: that of the mean and of the sd together.
    half = Z * sd / math.sqrt(n) * math.sqrt(1 + offset**2 / 2)
    value = mean + offset * sd
    return Estimate(value, value - half, value + half, n, "documents", "perplexity", "normal approximation")


@lru_cache(maxsize=8)
def _table(results: Results, arm: str, method: str, scale: float) -> pd.DataFrame:
    frame = present(results, "temperature")
    rows = frame[(frame["arm"] == arm) & (frame["method"] == method) & (frame["scale"] == scale)]
    if rows.empty:
        raise NotMeasured(f"no temperature sweep of {arm} with {method} at s = {scale:g}")
    return rows


@lru_cache(maxsize=8)
def _means(results: Results, arm: str, method: str, scale: float) -> pd.DataFrame:
    return perplexity_by_factor(_table(results, arm, method, scale))


@lru_cache(maxsize=8)
def _changes(results: Results, arm: str, method: str, scale: float) -> pd.DataFrame:
    try:
        return relative_change(_table(results, arm, method, scale), BASELINE)
    except ValueError as absent:
        raise NotMeasured(str(absent)) from absent


@lru_cache(maxsize=8)
def _histogram(results: Results, arm: str, method: str, scale: float) -> pd.DataFrame:
    return histogram(best_by_document(_table(results, arm, method, scale), by_segment=True))


def _at(frame: pd.DataFrame, factor: float, segment: int | None = None) -> pd.DataFrame:
    rows = frame[(frame["kind"] == "grid") & ((frame["factor"] - factor).abs() < 1e-6)]
    rows = rows if segment is None else rows[rows["segment"] == segment]
    if rows.empty:
        raise NotMeasured(f"the sweep has no √(1/t) = {factor:g}")
    return rows


def _segment(table: pd.DataFrame, curve: Curve) -> int:
    """The segment of the same share of the document: the paper cuts 16,384 tokens into 8."""
    assert curve.segment_start is not None and curve.segment_end is not None
    segments = int(table["segment"].max()) + 1
    if segments != 8:
        raise NotMeasured(f"the sweep has {segments} segments, the paper 8")
    return curve.segment_start // (curve.segment_end - curve.segment_start)
