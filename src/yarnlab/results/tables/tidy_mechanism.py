"""Tidy tables of why YaRN works: the temperature sweep, the shape of the ramp, the entropy of the attention."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import lru_cache
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results import temperature as sweep
from yarnlab.results.estimates import REFERENCE_VARIANT, NotMeasured, cell, cells, gap, paired, present, split
from yarnlab.results.results import Results
from yarnlab.results.rows import difference, numbers, with_holm
from yarnlab.results.statistics import Estimate, geometric_mean_perplexity, mean, sign_flip

SLOPE, INTERCEPT = 0.1, 1.0  # the paper's Eq. 22: √(1/t) = 0.1 ln s + 1


def sweep_of_base(results: Results) -> pd.DataFrame:
    """The temperature table of the base, one row per factor, document and segment."""
    frame, base = present(results, "temperature"), results.base()
    rows = frame[frame["arm"] == base.arm] if base is not None else frame.head(0)
    if rows.empty:
        raise NotMeasured("the base has no temperature sweep")
    return rows


@lru_cache(maxsize=4)
def fitted(results: Results) -> sweep.Fit:
    """Best factor at each scale and the line through them over ln s; NotMeasured where the sweep is too small."""
    try:
        return sweep.fit(sweep_of_base(results), results.original_context)
    except ValueError as unfit:
        raise NotMeasured(str(unfit)) from unfit


def line(results: Results) -> tuple[Estimate, Estimate, int]:
    """Slope and intercept of the best factors over ln s, and how many scales it is fitted through; or NotMeasured."""
    fit = fitted(results)
    if fit.slope is None or fit.intercept is None:
        raise NotMeasured("fewer than two scales have documents read to s·L tokens and the best factor inside the grid")
    return fit.slope, fit.intercept, len(fit.scales)


@lru_cache(maxsize=4)
def temperature(results: Results) -> pd.DataFrame:
    """Best √(1/t) by scale beside the formula's, then slope and intercept of the fit beside the paper's.

    `paper`: the value that Eq. 22 gives. delta: the formula's ln perplexity minus that with √(1/t) = 1; absent where
    the grid does not hold 1, as the paper's does not. ln_ppl_over_formula: what the grid's best factor gains over the
    formula's, in nats (0: the formula is as good; below 0: better than every factor of the grid); its interval takes
    that factor as given, though it was found on the same documents.
    """
    found, rows = fitted(results), []
    for best in found.best:
        row: dict[str, Any] = {
            "quantity": "best √(1/t)",
            "scale": best.scale,
            "at_edge": best.at_edge,
            "cut_off": best.cut_off,
        }
        row |= numbers("value", best.factor) | {"paper": SLOPE * math.log(best.scale) + INTERCEPT}
        rows.append(row | _gain(results, best.scale))
    for name, estimate, paper in (("a", found.slope, SLOPE), ("b", found.intercept, INTERCEPT)):
        if estimate is not None:
            rows.append(
                {"quantity": name, "at_edge": False, "cut_off": False, "paper": paper} | numbers("value", estimate)
            )
    return pd.DataFrame(rows)


def _gain(results: Results, scale: float) -> dict[str, Any]:
    frame = sweep_of_base(results)
    means = sweep.perplexity_by_factor(frame[frame["scale"] == scale])
    grid = means[means["kind"] == "grid"]
    lowest = float(grid["factor"].to_numpy()[grid["perplexity"].to_numpy().argmin()])
    own = {kind: document_nll(results, scale, kind) for kind in ("formula", "reading")}
    best = document_nll(results, scale, "grid", lowest)
    row: dict[str, Any] = {"grid_best": lowest}
    row |= gap(own["formula"], best).columns("ln_ppl_over_formula")
    row |= gap(own["reading"], own["formula"]).columns("reading")
    with suppress(NotMeasured):
        row |= difference(gap(own["formula"], document_nll(results, scale, "grid", 1.0)))
    return row


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
    weighted = rows.assign(total=rows["nll"] * rows["tokens"])
    sums = weighted.groupby(["seed", "document"])[["total", "tokens"]].sum()
    return (sums["total"] / sums["tokens"]).unstack("document")


@lru_cache(maxsize=4)
def ramp(results: Results) -> pd.DataFrame:
    """Each variant of the ramp at each scale and length: perplexity, and its gap to the official one in nats.

    Paired by document; p: sign-flip test; p_holm: corrected over all comparisons of the table.
    """
    tables = cells(results, "ramp", "nll", ("variant", "scale", "length"))
    rows = []
    for (variant, scale, length), own in tables.items():
        row: dict[str, Any] = {"variant": variant, "scale": float(scale), "length": int(length)}
        row |= {"at_full_window": length == scale * results.original_context}
        row |= numbers("perplexity", geometric_mean_perplexity(own.to_numpy()))
        reference = tables.get((REFERENCE_VARIANT, scale, length))
        if reference is not None and variant != REFERENCE_VARIANT:
            row |= difference(gap(own, reference)) | sign_flip(paired(own, reference)).columns()
        rows.append(row)
    return with_holm(pd.DataFrame(rows))


@lru_cache(maxsize=4)
def entropy(results: Results) -> pd.DataFrame:
    """Entropy of the base's attention by method and scale, mean over layers, heads and queries, in nats.

    normalised: as a share of the entropy of uniform attention. delta: minus that of the unchanged base.
    """
    tables = cells(results, "entropy", "entropy", ("method", "scale"))
    shares = cells(results, "entropy", "normalised_entropy", ("method", "scale"))
    reference = tables.get(("none", 1.0))
    rows = []
    for (method, scale), own in tables.items():
        row: dict[str, Any] = {"method": method, "scale": float(scale)}
        row |= numbers("entropy", mean(own.to_numpy()))
        row |= mean(shares[method, scale].to_numpy(), unit="share").columns("normalised")
        if reference is not None and (method, scale) != ("none", 1.0):
            row |= difference(mean(paired(own, reference)))
        rows.append(row)
    return pd.DataFrame(rows)


@lru_cache(maxsize=4)
def entropy_by_layer(results: Results) -> pd.DataFrame:
    """The same by layer: the mean over heads (`head` is 'all'), then every head's; both numbered from 0, in nats.

    delta: minus that of the unchanged base.
    """
    frame, base = present(results, "entropy"), results.base()
    own = frame[frame["arm"] == base.arm] if base is not None else frame.head(0)
    if own.empty:
        raise NotMeasured("the entropy of the base's attention was not measured")
    by = ["method", "scale", "layer"]
    layers = own.groupby([*by, "seed", "document"], sort=False)["entropy"].mean().reset_index()
    tables = {(*key, "all"): table for key, table in split(layers, by, "document", "entropy").items()}
    tables |= split(own, [*by, "head"], "document", "entropy")
    rows = []
    for (method, scale, layer, head), table in tables.items():
        row: dict[str, Any] = {"method": method, "scale": float(scale), "layer": int(layer), "head": head}
        row |= numbers("entropy", mean(table.to_numpy()))
        reference = tables.get(("none", 1.0, layer, head))
        if reference is not None and (method, scale) != ("none", 1.0):
            row |= difference(mean(paired(table, reference)))
        rows.append(row)
    return pd.DataFrame(rows)


def entropy_of(results: Results, method: str, scale: float) -> pd.DataFrame:
    """Mean entropy over layers, heads and queries in nats: seeds x documents."""
    return cell(results, "entropy", "entropy", method=method, scale=float(scale))


def spread_of_best(results: Results, scale: float) -> tuple[Any, Any]:
    """Best grid factor of each document, and of each document's segments (documents x segments), at one scale."""
    frame = sweep_of_base(results)
    frame = frame[frame["scale"] == scale]
    whole = sweep.best_by_document(frame)["factor"].to_numpy(float)
    parts = sweep.best_by_document(frame, by_segment=True)
    return whole, parts.pivot(index="document", columns="segment", values="factor").to_numpy(float)
