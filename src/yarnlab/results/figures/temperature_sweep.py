"""Perplexity over its lowest value, its change in the first and last segment, and the best factors' shares."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import alt, pd
from yarnlab.results import temperature as sweep
from yarnlab.results.charts import WIDE, best_factor_axis, bounds, factor_axis, rounded
from yarnlab.results.estimates import NotMeasured, packages
from yarnlab.results.published.data import load_reference
from yarnlab.results.registry import PAPER, figure
from yarnlab.results.results import Results
from yarnlab.results.statistics import mean
from yarnlab.results.style import PUBLISHED, QUIET, STYLES
from yarnlab.results.temperature import sweep_of_base

SCALE = 8.0  # of the paper's Figures 2 to 4
OURS, THEIRS = "ours", "the paper’s"
SIZE = {"width": WIDE // 3 - 55, "height": 210}


@figure(
    "The temperature sweep at one scale",
    needs=("temperature",),
    section="temperature",
    place=30,
    columns=3,
    parts="bases",
    forms=PAPER,
    alt="Three panels over √(1/t), ours in colour and the paper's in grey: perplexity over its lowest "
    "value, relative change of perplexity in the first and last segment, and shares of the best "
    "factor.",
    caption="The paper’s Figures 2 to 4 (digitised, grey) with ours. a: mean perplexity over the lowest of "
    "its curve. b: relative change in the first and last part of the text; the paper’s baseline is "
    "drawn at 1.05. c: where each part of each document has its lowest loss.",
)
def temperature_sweep(results: Results) -> Any:
    frame = sweep_of_base(results)
    measured = sorted(float(s) for s in frame["scale"].unique())
    scale = min(measured, key=lambda s: (abs(s - SCALE), s))
    frame = frame[frame["scale"] == scale]
    try:
        change = sweep.relative_change(frame)
    except ValueError as unfit:
        raise NotMeasured(str(unfit)) from unfit
    panels = [
        _lines(_lowest(frame), "perplexity / lowest", f"a. perplexity, s = {scale:g}", "~g"),
        _lines(_segments(change), "change to √(1/t) = 1", "b. first and last segment", "+.0%"),
        _bars(_best(frame), "c. best √(1/t)"),
    ]
    return alt.concat(*panels, columns=3, spacing=24).resolve_legend(color="shared")


def _lowest(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Panel a: mean perplexity over the lowest of its curve (Fig. 2)."""
    means = sweep.perplexity_by_factor(frame)
    grid = means[means["kind"] == "grid"]
    paper = load_reference().figure("Figure 2")
    paper = paper[paper["metric"] == "mean_perplexity"]
    rows = []
    for who, x, y in ((OURS, grid["factor"], grid["perplexity"]), (THEIRS, paper["x"], paper["value"])):
        rows += [{"who": who, "line": who, "factor": a, "value": b / float(y.min())} for a, b in zip(x, y, strict=True)]
    return rows


def _segments(change: pd.DataFrame) -> list[dict[str, Any]]:
    """Panel b: relative change of perplexity (Fig. 3, Eq. 26); the paper's baseline is drawn at 1.05."""
    rows = []
    grid = change[change["kind"] == "grid"]
    for which, segment in (("first", grid["segment"].min()), ("last", grid["segment"].max())):
        own = grid[grid["segment"] == segment]
        rows += [_point(OURS, which, a, b) for a, b in zip(own["factor"], own["change"], strict=True)]
    paper = load_reference().figure("Figure 3")
    for which, start in (("first", paper["segment_start"].min()), ("last", paper["segment_start"].max())):
        own = paper[paper["segment_start"] == start]
        rows += [_point(THEIRS, which, a, b / 100) for a, b in zip(own["x"], own["value"], strict=True)]
    return rows


def _best(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Panel c: share of documents × segments whose lowest loss is at each factor (Fig. 4), documents resampled."""
    found = sweep.best_by_document(frame, by_segment=True)
    rows: list[dict[str, Any]] = []
    for factor in sorted(found["factor"].unique()):
        share = (found["factor"] == factor).groupby(found["document"]).mean()
        e = mean(share.to_numpy(float), groups=packages(share.index), unit="share")
        row = {"who": OURS, "factor": float(factor), "value": e.value, "n": e.n}
        rows.append(row | {"interval": bounds(max(0.0, e.low), min(1.0, e.high))})
    paper = load_reference().figure("Figure 4").groupby("x")["value"].sum()
    shares = paper.to_numpy(float) / float(paper.sum())
    rows += [{"who": THEIRS, "factor": x, "value": y} for x, y in zip(paper.index.to_numpy(float), shares, strict=True)]
    return rows


def _point(who: str, which: str, factor: float, value: float) -> dict[str, Any]:
    return {"who": who, "line": f"{who}, {which}", "segment": which, "factor": factor, "value": value}


def _lines(rows: list[dict[str, Any]], title: str, heading: str, form: str) -> Any:
    segmented = "segment" in rows[0]
    base = alt.Chart(rounded(rows), title=heading)
    encode: dict[str, Any] = {
        "x": factor_axis(),
        "y": alt.Y("value:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(format=form)),
        "color": _who(),
        "detail": "line:N",
        "tooltip": ["line:N", alt.Tooltip("factor:Q", title="√(1/t)"), alt.Tooltip("value:Q", format=".3f")],
    }
    if segmented:
        dash = alt.Scale(domain=["first", "last"], range=[[1, 0], [4, 3]])
        encode["strokeDash"] = alt.StrokeDash("segment:N", scale=dash, legend=alt.Legend(title="segment"))
    lines = base.mark_line(point={"size": 26, "filled": True}).encode(**encode)
    level = 0 if segmented else 1
    rule = alt.Chart(alt.Data(values=[{"value": level}])).mark_rule(color=QUIET).encode(y="value:Q")
    return alt.layer(rule, lines).properties(**SIZE)


def _bars(rows: list[dict[str, Any]], heading: str) -> Any:
    base = alt.Chart(rounded(rows), title=heading)
    y = alt.Y("value:Q", title="share of documents × segments", axis=alt.Axis(format="%"))
    tips = ["who:N", alt.Tooltip("factor:O", title="√(1/t)"), alt.Tooltip("value:Q", title="share", format=".0%")]
    interval = [alt.Tooltip("interval:N", title="95 %"), alt.Tooltip("n:Q", title="n documents")]
    ours = base.transform_filter(alt.datum.who == OURS)
    x = best_factor_axis()
    bars = ours.mark_bar().encode(x=x, y=y, color=_who(), tooltip=[*tips, *interval])
    theirs = base.transform_filter(alt.datum.who == THEIRS)
    line = theirs.mark_line(point={"size": 26, "filled": True}).encode(
        x=best_factor_axis(), y=y, color=_who(), tooltip=tips
    )
    return alt.layer(bars, line).properties(**SIZE)


def _who() -> Any:
    scale = alt.Scale(domain=[OURS, THEIRS], range=[STYLES["yarn"].light, PUBLISHED])
    return alt.Color("who:N", scale=scale, legend=alt.Legend(title=None, columns=2))
