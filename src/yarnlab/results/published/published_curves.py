"""Published curves with ours at the same points, for figures (`overlay`) and as one verdict a curve (`curve_table`).

A point is within tolerance when it is as near as a table's cell would have to be (`verdict_tolerance`) to what was
published, plus what reading it off a picture may be wrong by. A curve is reproduced when SHARE of its points are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.estimates import NotMeasured, corpus_of, dynamic_nll, loss_by_step, nll, windows_of
from yarnlab.results.published.published_ours import because
from yarnlab.results.published.published_sweep import sweep_point
from yarnlab.results.published.published_text import text_of
from yarnlab.results.published.reference import Reference, load_reference
from yarnlab.results.published.reference_roles import Role, role_of
from yarnlab.results.published.reference_rows import Curve
from yarnlab.results.published.verdict import DIFFERS, NOT_COMPARABLE, NOT_RUN, REPRODUCED
from yarnlab.results.published.verdict_tolerance import RETRAINED, SAME_WEIGHTS
from yarnlab.results.results import Results
from yarnlab.results.statistics import Estimate, geometric_mean_perplexity, student_quantile

SHARE = 0.95
SMOOTH = 21  # steps of the running median around which a published loss scatters
OURS = ("our_model", "our_x", "ours", "low", "high", "n", "tolerance", "comparable", "reason")


@lru_cache(maxsize=16)
def overlay(results: Results, *artifacts: str) -> pd.DataFrame:
    """The published points of these figures with ours beside them; NaN where this study has none.

    The columns of `Reference.figure`, x_in_L (lengths only), and: our_model, our_x (the length, step or factor that
    ours was measured at), ours, low, high, n, tolerance (in the curve's unit), comparable, reason. Cached: do not
    change it in place.
    """
    reference = load_reference()
    frame = reference.figure(*artifacts)
    rows: list[dict[str, Any]] = []
    for curve in (c for c in reference.curves if c.artifact in artifacts):
        points = frame[frame["curve"] == curve.curve]
        rows += _curve(results, reference, curve, points)
    beside = pd.DataFrame(rows, columns=["curve", "x", *OURS])
    lengths = frame["x"].where(frame["x_unit"] == "tokens") / frame["original_context"]
    return frame.assign(x_in_L=lengths).merge(beside, on=["curve", "x"], how="left", validate="one_to_one")


def curve_table(results: Results) -> pd.DataFrame:
    """One row a published curve: points, how many of them this study measured, how many are within tolerance.

    n_least, n_most: documents (steps of a loss) behind a measured point. largest: the largest relative difference of a
    compared point. blank: points without a value in the authors' file.
    """
    reference = load_reference()
    frame = overlay(results, *dict.fromkeys(curve.artifact for curve in reference.curves))
    parts = dict(iter(frame.groupby("curve", sort=False)))
    return pd.DataFrame([_summary(curve, parts[curve.curve]) for curve in reference.curves])


def _summary(curve: Curve, part: pd.DataFrame) -> dict[str, Any]:
    measured = part[part["ours"].notna()]
    compared = measured[measured["comparable"].astype(bool) & measured["value"].notna()]
    distance = (compared["ours"] - compared["value"]).abs()
    within = int((distance <= compared["tolerance"] + compared["error"]).sum())
    reason = next((text for text in part["reason"] if isinstance(text, str) and text), "")
    if measured.empty:
        verdict = NOT_RUN
    elif compared.empty:
        verdict = NOT_COMPARABLE
    else:
        verdict = REPRODUCED if within >= SHARE * len(compared) else DIFFERS
    return {
        "curve": curve.curve,
        "artifact": curve.artifact,
        "version": curve.version,
        "model": curve.model,
        "method": curve.method,
        "scale": curve.scale,
        "metric": curve.metric,
        "unit": curve.unit,
        "points": curve.points,
        "blank": curve.blank,
        "our_model": next((name for name in part["our_model"] if isinstance(name, str)), None),
        "measured": len(measured),
        "n_least": measured["n"].min(),
        "n_most": measured["n"].max(),
        "compared": len(compared),
        "within": within,
        "largest": float((distance / compared["value"].abs()).max()) if len(compared) else math.nan,
        "verdict": verdict,
        "reason": reason,
        "source": curve.source,
        "note": curve.note,
    }


def _curve(results: Results, reference: Reference, curve: Curve, points: pd.DataFrame) -> list[dict[str, Any]]:
    role = role_of(results, reference.models[curve.model])
    if role is None:
        reason = f"no model of this study stands for {reference.models[curve.model].label}"
        return [{"curve": curve.curve, "x": x, "comparable": False, "reason": reason} for x in points["x"]]
    point = POINTS[reference.protocols[curve.protocol].kind]
    scatter = _scatter(points) if curve.metric == "loss" else None
    rows = []
    for x, published in zip(points["x"], points["value"], strict=True):
        row: dict[str, Any] = {"curve": curve.curve, "x": x, "our_model": role.model.arm, "comparable": False}
        try:
            own_x, estimate, other = point(results, reference, curve, role, x)
        except NotMeasured as absent:
            rows.append(row | {"reason": str(absent)})
            continue
        reason = because(role.analogue, other) or ""
        row |= {"our_x": own_x, "ours": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
        allowed = scatter if scatter is not None else _tolerance(curve, role, published, estimate)
        rows.append(row | {"tolerance": allowed, "comparable": not reason, "reason": reason})
    return rows


def _tolerance(curve: Curve, role: Role, published: float, estimate: Estimate) -> float:
    """As for a cell over the same documents; other statistics: the half width of our own interval."""
    if "perplexity" in curve.metric:
        untrained = role.model.kind in ("hub", "pretrain", "zero-shot")
        return (SAME_WEIGHTS if untrained else RETRAINED) * published
    half = (estimate.high - estimate.low) / 2
    return half if half > 0 else RETRAINED * abs(published)


def _scatter(points: pd.DataFrame) -> float:
    """Twice the standard deviation of the published losses around their running median, in nats."""
    values = points.sort_values("x")["value"]
    return 2 * float((values - values.rolling(SMOOTH, center=True, min_periods=1).median()).std())


Point = tuple[float, Estimate, str | None]


def _perplexity(results: Results, reference: Reference, curve: Curve, role: Role, x: float) -> Point:
    length = role.length(x)
    documents = nll(results, role.model.arm, length)
    other = _other_text(results, reference, curve, role, "perplexity", documents.shape[1])
    return length, _of_documents(documents), other


def _of_documents(documents: pd.DataFrame) -> Estimate:
    """Perplexity with Student's interval over documents: the points are many, and a bootstrap of each is slow."""
    values = documents.to_numpy(float).mean(axis=0)
    centre, n = float(values.mean()), len(values)
    half = student_quantile(n) * float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    logarithm = Estimate(centre, centre - half, centre + half, n, "documents", "nats", "Student")
    return logarithm.map(lambda x: math.exp(min(x, 700.0)), "perplexity")


def _sliding_window(results: Results, reference: Reference, curve: Curve, role: Role, x: float) -> Point:
    windows = windows_of(results, role.model.arm)
    other = _other_text(results, reference, curve, role, "sliding_window", windows.by_window.shape[1])
    window = (results.evaluations.get("sliding_window") or {}).get("window")
    if window is not None and window != role.length(x):
        other = because(other, f"a window of {window:,} tokens here")
    return role.length(x), geometric_mean_perplexity(windows.by_window.to_numpy(float), windows.count), other


def _dynamic(results: Results, reference: Reference, curve: Curve, role: Role, x: float) -> Point:
    length = role.length(x)
    documents = dynamic_nll(results, role.model.arm, curve.method, length)
    other = _other_text(results, reference, curve, role, "dynamic", documents.shape[1])
    return length, _of_documents(documents), because(other, "the paper shows one document")


def _loss(results: Results, reference: Reference, curve: Curve, role: Role, x: float) -> Point:
    steps = loss_by_step(results, role.model.arm)
    if int(x) not in steps:
        raise NotMeasured(f"{role.model.arm} has no step {x:g}")
    value = steps[int(x)]
    return x, Estimate(value, value, value, 1, "steps", "nats", "one step"), None


def _sweep(results: Results, reference: Reference, curve: Curve, role: Role, x: float) -> Point:
    estimate, documents = sweep_point(results, role.model.arm, curve, x)
    return x, estimate, _other_text(results, reference, curve, role, "temperature", documents)


def _other_text(
    results: Results, reference: Reference, curve: Curve, role: Role, kind: str, documents: int
) -> str | None:
    """Why the documents are not the published ones; a curve has no tolerance for others."""
    protocol = reference.protocols[curve.protocol]
    text = text_of(results, corpus_of(results, kind, role.model.arm), protocol, documents)
    if text.other or text.same_documents:
        return text.other
    unknown = protocol.selection == "unknown"
    return "which documents the paper read is not known" if unknown else "other documents of the same text"


POINTS: dict[str, Callable[[Results, Reference, Curve, Role, float], Point]] = {
    "perplexity": _perplexity,
    "sliding_window": _sliding_window,
    "dynamic": _dynamic,
    "training": _loss,
    "temperature": _sweep,
}
