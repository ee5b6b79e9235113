"""Which temperature is best: statistics of the sweep over attention factors (paper App. A.2, Eq. 22, 25, 26).

Every function takes the table of the `temperature` evaluation for one arm and one method: a row per seed, scale,
factor, document and segment, with the segment's mean NLL in nats. With several seeds a document's curve is the mean of
its curves; the fit resamples seeds as well as documents, and its intervals are at least Student's over both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from yarnlab.lazy import np, pd
from yarnlab.results.estimates import NotMeasured, over_documents, rows_of_base
from yarnlab.results.results import Results
from yarnlab.results.statistics import (
    CONFIDENCE,
    FEW,
    RESAMPLES,
    Array,
    Estimate,
    draws,
    expanded_tail,
    student_half,
    student_quantile,
    widening,
)

SLOPE, INTERCEPT = 0.1, 1.0  # the paper's Eq. 22: √(1/t) = 0.1 ln s + 1
_RUN = ["scale", "kind", "factor"]
_ZERO = 1e-9  # a scale at the mean of ln s has no weight in the slope but for rounding


@dataclass(frozen=True)
class Best:
    """The attention factor of lowest NLL at one scale.

    at_edge: the lowest NLL is at an end of the grid. The true minimum may lie beyond it: the value is that end, and the
    interval is open there.
    cut_off: a document was read to fewer than s·L tokens: the factor is of another window than those of other scales.
    edge_share: share of resamples in which that happens.
    """

    scale: float
    factor: Estimate
    at_edge: bool
    edge_share: float
    cut_off: bool


@dataclass(frozen=True)
class Fit:
    """Best factors by scale, and slope a and intercept b of factor = a·ln s + b by least squares.

    bend: what the line leaves out, the height of the parabola by least squares over its chord, halfway between the
    smallest and the largest ln s; None for fewer than three scales.

    Scales whose minimum is at an edge, or whose documents are cut off, are not fitted (`scales` are the fitted ones);
    fewer than two leave no line, and slope and intercept are None.
    """

    best: tuple[Best, ...]
    scales: tuple[float, ...]
    slope: Estimate | None
    intercept: Estimate | None
    bend: Estimate | None


def perplexity_by_factor(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over documents of their perplexities (paper Fig. 2).

    Columns: scale, kind, factor, perplexity, sd, documents.
    """
    whole = _nll(table, [*_RUN, "document"])
    groups = np.exp(whole).groupby(_RUN, sort=False)
    return groups.agg(perplexity="mean", sd="std", documents="count").reset_index()


def relative_change(table: pd.DataFrame, baseline: float = 1.0) -> pd.DataFrame:
    """(ppl(factor) − ppl(baseline)) / ppl(baseline) by segment, mean over documents with its interval (Eq. 26).

    Columns: scale, kind, factor, segment, change, low, high, n. Raises ValueError if the grid has no
    `baseline`; the paper's own figure has none at 1.00 and draws its zero at 1.05.
    """
    nll = _nll(table, [*_RUN, "segment", "seed", "document"])
    grid = _grid(table)["factor"]
    if not np.isclose(grid, baseline).any():
        raise ValueError(f"the grid of factors has no {baseline:g} to compare with, only {_listed(grid.to_numpy())}")
    reference = _nll(_grid(table)[np.isclose(grid, baseline)], ["scale", "segment", "seed", "document"])
    change = (nll - reference).map(math.expm1)  # pandas pairs the cells of the same document
    rows = []
    for cell, values in change.groupby([*_RUN, "segment"]):
        estimate = over_documents(values.unstack("document"), unit="relative change of perplexity")
        numbers = {"change": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
        rows.append(dict(zip([*_RUN, "segment"], cell, strict=True)) | numbers)
    return pd.DataFrame(rows)


def best_by_document(table: pd.DataFrame, by_segment: bool = False) -> pd.DataFrame:
    """The grid's factor of lowest NLL of each document, or of each of its segments (paper Fig. 4).

    Columns: scale, segment (if `by_segment`), document, factor, at_edge. Of equal factors the smallest is given.
    """
    group = ["scale", *(["segment"] if by_segment else []), "document"]
    curves = _nll(_grid(table), [*group, "factor"]).unstack("factor").sort_index(axis=1)
    factors = curves.columns.to_numpy(float)
    best = curves.to_numpy().argmin(axis=1)
    found = curves.index.to_frame(index=False)
    return found.assign(factor=factors[best], at_edge=(best == 0) | (best == len(factors) - 1))


def histogram(best: pd.DataFrame) -> pd.DataFrame:
    """How many documents have each best factor: the columns of `best` but the document's, and `documents`."""
    group = [name for name in ("scale", "segment") if name in best]
    return best.groupby([*group, "factor"]).size().reset_index(name="documents")


def fit(table: pd.DataFrame, original_context: int = 0) -> Fit:
    """Best factor at each scale, and the line through them over ln s (paper Eq. 22: a = 0.1, b = 1).

    The best factor is the vertex of the parabola, in the factor, through the lowest point of the document-mean NLL
    and its two neighbours. Intervals: documents are resampled, the same ones at all scales, and everything is computed
    again. A resample whose minimum is at an end of the grid says only that the best factor is there or beyond, up to
    infinity or down to 0; the bounds take the worse of both.

    Args:
        original_context: L in tokens; a scale s is fitted if its documents reach s·L.

    Raises ValueError for a table that is not complete, or whose grid has fewer than three or unequal steps.
    """
    curves, scales, factors = _curves(table)
    _, seeds, documents, _ = curves.shape
    if len(factors) < 3 or not np.allclose(np.diff(factors), factors[1] - factors[0]):
        raise ValueError(f"the factors must be three or more in equal steps, got {_listed(factors)}")
    drawn_seeds, drawn_documents = draws("seeds", seeds), draws("observations", documents)
    resampled = np.einsum("rk,rd,skdf->srf", drawn_seeds, drawn_documents, curves, optimize=True)
    found, drawn = _lowest(curves.mean(axis=(1, 2)), factors), _lowest(resampled, factors)  # scale x resample
    by_seed, documents_alone = _lowest(curves.mean(axis=2), factors), drawn  # scale x seed; scale x resample
    if seeds > 1:
        resampled = np.einsum("rd,skdf->srf", drawn_documents, curves, optimize=True)
        documents_alone = _lowest(resampled, factors)
    least = np.where(drawn == factors[0], 0.0, drawn)
    most = np.where(drawn == factors[-1], math.inf, drawn)
    ends = factors[[0, -1]]
    cut = _tokens_read(table).to_numpy() < np.round(scales * original_context)
    best = tuple(
        Best(
            float(scale),
            _estimate(found[i], by_seed[i], documents_alone[i], least[i], most[i], documents, "√(1/t)"),
            bool(np.isin(found[i], ends)),
            float(np.isin(drawn[i], ends).mean()),
            bool(cut[i]),
        )
        for i, scale in enumerate(scales)
    )
    used = ~np.isin(found, ends) & ~cut
    fitted = tuple(float(scale) for scale in scales[used])
    if len(fitted) < 2:
        return Fit(best, fitted, None, None, None)
    places = np.log(scales[used])
    inverse = list(np.linalg.pinv(np.stack([places, np.ones(len(fitted))], axis=1)))
    if len(fitted) > 2:  # −c·(half of the width)² for the parabola a + b·x + c·x²
        inverse.append(-np.linalg.pinv(np.vander(places, 3))[0] * (np.ptp(places) / 2) ** 2)
    found, by_seed, documents_alone, least, most = (
        values[used] for values in (found, by_seed, documents_alone, least, most)
    )
    coefficients = []
    for weights, unit in zip(inverse, ("√(1/t) per ln s", "√(1/t)", "√(1/t)"), strict=False):
        up, down = weights > _ZERO, weights < -_ZERO
        low = weights[up] @ least[up] + weights[down] @ most[down]
        high = weights[up] @ most[up] + weights[down] @ least[down]
        value, alone = float(weights @ found), weights @ documents_alone
        coefficients.append(_estimate(value, weights @ by_seed, alone, low, high, documents, unit))
    slope, intercept, *bend = coefficients
    return Fit(best, fitted, slope, intercept, bend[0] if bend else None)


def _lowest(curves: Array, factors: Array) -> Array:
    """Where each curve (last axis: factors, in equal steps) is lowest: a parabola's vertex, or an end of the grid."""
    i = curves.argmin(axis=-1)
    inner = np.clip(i, 1, len(factors) - 2)
    left, middle, right = (np.take_along_axis(curves, (inner + k)[..., None], -1)[..., 0] for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / np.where(bend > 0, bend, np.inf)  # no bend: three equal points
    return np.where(i == inner, factors[inner] + shift * (factors[1] - factors[0]), factors[i])


def _estimate(
    value: float, by_seed: Array, documents_alone: Array, least: Array, most: Array, documents: int, unit: str
) -> Estimate:
    """The percentile interval of `statistics.mean`, with its corrections for few documents and for seeds.

    `least` and `most` bound each resample's value; they differ where it is known no better. `by_seed`: the value of
    each seed by itself; `documents_alone`: of each resample of documents with all seeds.
    """
    seeds = len(by_seed)
    over = "documents" if seeds == 1 else f"documents x seeds ({documents} x {seeds})"
    n = documents * seeds
    if documents < 2:
        return Estimate(float(value), -math.inf, math.inf, n, over, unit, "none: one document")
    tail = expanded_tail(documents)
    # Between a finite and an infinite resample there is nothing to interpolate: the outer one counts.
    low = float(np.quantile(least, tail, method="lower"))
    high = float(np.quantile(most, 1 - tail, method="higher"))
    method = f"bootstrap, {RESAMPLES:,} resamples of documents" + (" and seeds" if seeds > 1 else "")
    if documents < FEW or seeds > 1:
        half = student_quantile(documents) * float(documents_alone.std()) * math.sqrt(documents / (documents - 1))
        half = math.hypot(half, student_half(by_seed) if seeds > 1 else 0.0)
        low, high = min(low, value - half), max(high, value + half)
        method += widening(seeds)
    bounds = min(low, float(value)), max(high, float(value))
    return Estimate(float(value), *bounds, n, over, unit, method, documents - 1)


def range_over_segments(table: pd.DataFrame) -> Estimate:
    """How far the best factors of a document's segments lie apart, largest minus smallest, at one scale.

    A segment's best factor is the vertex of its document-mean NLL, as in `fit`. The largest of noisy numbers minus the
    smallest is larger than the truth, so the interval is not that number's own: it ends below where the first and the
    last segment, two that are chosen beforehand, are proven to differ, and above where all pairs are proven to be
    alike. Student's t with errors from resampled documents, the same ones in all segments. A segment that is best at an
    end of the grid may be better beyond: there is no upper end then. Nor are there ends below FEW documents.

    Raises NotMeasured for a grid of fewer than three factors.
    """
    nll = _nll(_grid(table), ["document", "segment", "factor"])
    factors = nll.index.unique("factor").sort_values().to_numpy(float)
    if len(factors) < 3:
        raise NotMeasured(f"the grid needs three factors or more, it has {_listed(factors)}")
    curves = nll.unstack(["segment", "factor"]).sort_index(axis=1)
    n = len(curves)
    values = curves.to_numpy(float).reshape(n, -1, len(factors))
    best = _lowest(values.mean(axis=0), factors)
    value, unit = float(np.ptp(best)), "√(1/t)"
    if n < FEW:
        return Estimate(value, -math.inf, math.inf, n, "documents", unit, f"none: fewer than {FEW} documents")
    drawn = _lowest(np.einsum("rd,dsf->rsf", draws("observations", n), values) / n, factors)
    apart = np.abs(best[:, None] - best)
    error = (drawn[:, :, None] - drawn[:, None]).std(axis=0) * math.sqrt(n / (n - 1))
    open_above = bool(np.isin(best, factors[[0, -1]]).any())

    def bounds(confidence: float) -> tuple[float, float]:
        quantile = student_quantile(n, confidence)
        low = float(apart[0, -1] - quantile * error[0, -1])
        return max(0.0, low), math.inf if open_above else float((apart + quantile * error).max())

    method = "Student's t: the first and the last segment from below, all pairs from above"
    return Estimate(value, *bounds(CONFIDENCE), n, "documents", unit, method, n - 1, bounds)


def _curves(table: pd.DataFrame) -> tuple[Array, Array, Array]:
    """NLL of whole documents, (scales, seeds, documents, factors), with the scales and the factors of the grid."""
    nll = _nll(_grid(table), ["scale", "seed", "document", "factor"])
    axes = [nll.index.unique(level).sort_values() for level in range(nll.index.nlevels)]
    shape = [len(axis) for axis in axes]
    if len(nll) != math.prod(shape):
        raise ValueError(
            f"{math.prod(shape) - len(nll)} of {math.prod(shape)} cells (scale, seed, document, factor) are missing"
        )
    values = nll.reindex(pd.MultiIndex.from_product(axes, names=nll.index.names)).to_numpy(float).reshape(shape)
    return values, axes[0].to_numpy(float), axes[3].to_numpy(float)


def _tokens_read(table: pd.DataFrame) -> pd.Series:
    """Tokens of the shortest document by scale, from the smallest on; its first one is nobody's target."""
    cell = ["scale", "seed", "document", "factor"]
    return 1 + _grid(table).groupby(cell)["tokens"].sum().groupby("scale").min()


def _nll(table: pd.DataFrame, by: list[str]) -> pd.Series:
    """Mean NLL by the columns `by`, over everything else, every token alike."""
    sums = table.assign(total=table["nll"] * table["tokens"]).groupby(by)[["total", "tokens"]].sum()
    return sums["total"] / sums["tokens"]


def _grid(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["kind"] == "grid"]


def _listed(factors: Array) -> str:
    return ", ".join(f"{factor:g}" for factor in np.unique(factors))


def sweep_of_base(results: Results) -> pd.DataFrame:
    """The temperature table of the base, one row per factor, document and segment."""
    return rows_of_base(results, "temperature", "temperature sweep")


@lru_cache(maxsize=4)
def fitted(results: Results) -> Fit:
    """Best factor at each scale and the line through them over ln s; NotMeasured where the sweep is too small."""
    try:
        return fit(sweep_of_base(results), results.original_context)
    except ValueError as unfit:
        raise NotMeasured(str(unfit)) from unfit


def line(results: Results) -> tuple[Estimate, Estimate, Estimate, int]:
    """Slope, intercept and bend of the best factors over ln s, and how many scales they are from; or NotMeasured."""
    fit = fitted(results)
    if fit.slope is None or fit.intercept is None or fit.bend is None:
        raise NotMeasured("fewer than three scales have documents read to s·L tokens and the best factor in the grid")
    return fit.slope, fit.intercept, fit.bend, len(fit.scales)


def document_nll(
    results: Results, scale: float, kind: str, factor: float | None = None, segment: int | None = None
) -> pd.DataFrame:
    """Mean NLL in nats of the base at one factor: seeds x documents, of whole documents or of one segment.

    `kind`: grid, formula or reading; `factor` only for the grid.
    """
    rows = sweep_of_base(results)
    at = (rows["scale"] == scale) & (rows["kind"] == kind)
    if factor is not None:
        at &= (rows["factor"] - factor).abs() < 1e-9
    if segment is not None:
        at &= rows["segment"] == segment
    rows = rows[at]
    if rows.empty:
        raise NotMeasured(f"no temperature sweep at scale {scale:g} with {kind} factor {factor or ''}".rstrip())
    return _nll(rows, ["seed", "document"]).unstack("document")


def spread_of_best(results: Results, scale: float) -> tuple[pd.Series, pd.DataFrame]:
    """Best grid factor of each document, and of each document's segments (documents x segments), at one scale."""
    frame = sweep_of_base(results)
    frame = frame[frame["scale"] == scale]
    whole = best_by_document(frame).set_index("document")["factor"].astype(float)
    parts = best_by_document(frame, by_segment=True)
    return whole, parts.pivot(index="document", columns="segment", values="factor").astype(float)
