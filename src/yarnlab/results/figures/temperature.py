"""The temperature sweep: the paper's Figures 2 to 4, a panel a scale, and the fit over scales."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from yarnlab.lazy import alt, np, pd
from yarnlab.results import temperature as sweep
from yarnlab.results.charts import (
    WIDE,
    best_factor_axis,
    bounds,
    drop_unbounded,
    factor_axis,
    interval_tooltip,
    legend_key,
    panels_of,
    rounded,
    scale_axis,
    with_bounds,
)
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.registry import figure
from yarnlab.results.results import Results
from yarnlab.results.style import INK, PAPER, QUIET, STYLES
from yarnlab.results.temperature import INTERCEPT, SLOPE, fitted, sweep_of_base

PANEL = {"width": WIDE // 3 - 45, "height": 170}
COLOUR = STYLES["yarn"].light
# The panels by scale stand in the report together, folded.
_folded = partial(
    figure,
    needs=("temperature",),
    section="temperature",
    fold="Perplexity, effect by position and best factor of each document",
    columns=3,
    parts="bases",
)


@_folded(
    "Perplexity by temperature",
    place=40,
    paper_names=("figure_2",),
    alt="Lines of mean perplexity against √(1/t) with bands of one standard deviation, one panel per "
    "scale; a dashed vertical marks the formula's value.",
    caption="Mean over documents of their perplexities, band: one standard deviation between documents. The "
    "dashed vertical is the formula’s value.",
)
def temperature_curve(results: Results) -> Any:
    """Mean over documents of their perplexities, plus and minus one standard deviation (the paper's Fig. 2)."""
    means = _panelled(sweep.perplexity_by_factor(sweep_of_base(results)))
    grid = means[means["kind"] == "grid"].copy()
    grid["low"], grid["high"] = grid["perplexity"] - grid["sd"], grid["perplexity"] + grid["sd"]
    grid = with_bounds(grid)
    grid["formula"] = [_formula(s) for s in grid["scale"]]
    columns = ["panel", "factor", "perplexity", "low", "high", "interval", "documents", "formula"]
    base = alt.Chart(rounded(grid[columns].to_dict("records")))
    x, y = factor_axis(), alt.Y("perplexity:Q", title="perplexity", scale=alt.Scale(zero=False))
    band = drop_unbounded(base).mark_area(opacity=0.18, color=COLOUR)
    band = band.encode(x=x, y=alt.Y("low:Q", title="perplexity"), y2="high:Q")
    line = base.mark_line(color=COLOUR).encode(x=x, y=y)
    points = base.mark_point(filled=True, size=30, opacity=1, color=COLOUR).encode(
        x=x,
        y=y,
        tooltip=[
            alt.Tooltip("factor:Q", title="√(1/t)"),
            alt.Tooltip("perplexity:Q", title="mean", format=".4g"),
            alt.Tooltip("interval:N", title="± 1 sd"),
            alt.Tooltip("documents:Q", title="n documents"),
        ],
    )
    rule = base.mark_rule(color=QUIET, strokeDash=[4, 4]).encode(x="max(formula):Q")
    return _faceted(alt.layer(band, rule, line, points), grid).resolve_scale(y="independent")


@_folded(
    "Effect of the temperature by position",
    place=41,
    paper_names=("figure_3",),
    alt="Lines of the relative change of perplexity against √(1/t), one per segment of the text, one panel per scale.",
    caption="Change of perplexity to √(1/t) = 1 in each equal part of the text, mean over documents. Hover a "
    "point for its 95 % interval and n.",
)
def temperature_segments(results: Results) -> Any:
    """Relative change of perplexity to √(1/t) = 1, a segment a line (the paper's Fig. 3, Eq. 26)."""
    try:
        change = _panelled(sweep.relative_change(sweep_of_base(results)))
    except ValueError as unfit:
        raise NotMeasured(str(unfit)) from unfit
    grid = change[change["kind"] == "grid"].assign(segment=change["segment"] + 1)
    columns = ["panel", "factor", "segment", "change", "interval", "n"]
    base = alt.Chart(rounded(with_bounds(grid, form="+.1%")[columns].to_dict("records")))
    lines = base.mark_line(point={"size": 24, "filled": True}).encode(
        x=factor_axis(),
        y=alt.Y("change:Q", title="change of perplexity", axis=alt.Axis(format="+.0%")),
        color=_segments(),
        tooltip=[
            alt.Tooltip("factor:Q", title="√(1/t)"),
            alt.Tooltip("segment:Q"),
            alt.Tooltip("change:Q", format="+.1%"),
            *interval_tooltip(),
        ],
    )
    zero = base.mark_rule(color=QUIET).encode(y=alt.datum(0))
    return _faceted(alt.layer(zero, lines), grid).resolve_scale(y="independent")


@_folded(
    "Best temperature of each part of each document",
    place=43,
    paper_names=("figure_4",),
    alt="Stacked bars of how many documents' segments have their lowest loss at each √(1/t), one panel per scale.",
    caption="For each document and each part of it, the factor of the grid with the lowest loss.",
)
def temperature_histogram(results: Results) -> Any:
    """How many documents' segments are best at each factor (the paper's Fig. 4)."""
    found = _panelled(sweep.histogram(sweep.best_by_document(sweep_of_base(results), by_segment=True)))
    found = found.assign(segment=found["segment"] + 1)
    data = rounded(found[["panel", "factor", "segment", "documents"]].to_dict("records"))
    bars = (
        alt.Chart(data)
        .mark_bar()
        .encode(
            x=best_factor_axis(),
            y=alt.Y("sum(documents):Q", title="documents × segments"),
            color=_segments(),
            order="segment:Q",
            tooltip=[alt.Tooltip("factor:O", title="√(1/t)"), "segment:Q", "documents:Q"],
        )
    )
    return _faceted(bars, found)


@_folded(
    "Best temperature of each document",
    place=42,
    alt="Bars of how many documents have the lowest loss of their whole text at each √(1/t), one panel per scale.",
    caption="For each document as a whole, the factor of the grid with the lowest loss.",
)
def temperature_documents(results: Results) -> Any:
    """How many documents, each as a whole, are best at each factor (the paper's Fig. 4 shows parts of documents)."""
    found = _panelled(sweep.histogram(sweep.best_by_document(sweep_of_base(results))))
    found = found.assign(n=found.groupby("scale")["documents"].transform("sum"))
    bars = alt.Chart(rounded(found[["panel", "factor", "documents", "n"]].to_dict("records"))).mark_bar(color=COLOUR)
    tips = [alt.Tooltip("factor:O", title="√(1/t)"), "documents:Q", alt.Tooltip("n:Q", title="n documents")]
    bars = bars.encode(
        x=best_factor_axis(), y=alt.Y("documents:Q", title="documents", axis=alt.Axis(tickMinStep=1)), tooltip=tips
    )
    return _faceted(bars, found)


@figure(
    "Best temperature by scale",
    needs=("temperature",),
    section="temperature",
    place=10,
    parts="bases",
    alt="Points of the best √(1/t) with 95 % intervals against the scale, with the line fitted through "
    "them and the paper's formula.",
    caption="Points: the factor of lowest loss at each scale, with its 95 % interval (documents resampled). "
    "An open dot is not fitted: its lowest loss lies at an end of the grid (its interval is open "
    "too), or a document was read to fewer than s·L tokens.",
)
def temperature_fit(results: Results) -> Any:
    """Best factor against the scale, with the fitted line and the formula; an open dot is not fitted."""
    fit = fitted(results)
    ends = [best.scale for best in fit.best]
    scales = np.geomspace(min(ends), max(ends), 24)
    paper, own = "formula 0.1 ln s + 1", "fitted here"
    lines = [{"line": paper, "scale": float(s), "factor": _formula(s)} for s in scales]
    if fit.slope is not None and fit.intercept is not None:
        a, b = fit.slope.value, fit.intercept.value
        lines += [{"line": own, "scale": float(s), "factor": a * math.log(s) + b} for s in scales]
    dots = [
        {
            "scale": best.scale,
            "factor": best.factor.value,
            "low": best.factor.low,
            "high": best.factor.high,
            "interval": bounds(best.factor.low, best.factor.high),
            "n": best.factor.n,
            "fitted": "yes" if fit.slope and best.scale in fit.scales else "no, " + _why_not(best),
        }
        for best in fit.best
    ]
    x = scale_axis(sorted(ends))
    y = alt.Y("factor:Q", title="√(1/t) of lowest loss", scale=alt.Scale(zero=False))
    colour = alt.Color(
        "line:N", scale=alt.Scale(domain=[own, paper], range=[COLOUR, INK]), legend=legend_key(filled=False)
    )
    dash = alt.StrokeDash(
        "line:N", scale=alt.Scale(domain=[own, paper], range=[[1, 0], [6, 3]]), legend=legend_key(False)
    )
    curves = alt.Chart(rounded(lines)).mark_line().encode(x=x, y=y, color=colour, strokeDash=dash)
    base = alt.Chart(rounded(dots))
    whiskers = drop_unbounded(base).mark_rule(color=COLOUR, strokeWidth=1.6).encode(x=x, y=alt.Y("low:Q"), y2="high:Q")
    points = base.mark_point(size=70, opacity=1, color=COLOUR, strokeWidth=1.6).encode(
        x=x,
        y=y,
        fill=alt.condition(alt.datum.fitted == "yes", alt.value(COLOUR), alt.value(PAPER)),
        tooltip=[
            alt.Tooltip("scale:Q", title="s"),
            alt.Tooltip("factor:Q", title="best √(1/t)", format=".3f"),
            alt.Tooltip("interval:N", title="95 %"),
            alt.Tooltip("fitted:N", title="on the line"),
            alt.Tooltip("n:Q", title="n documents"),
        ],
    )
    return alt.layer(curves, whiskers, points).properties(width=WIDE, height=300)


def _why_not(best: sweep.Best) -> str:
    reasons = (best.at_edge, "at an edge of the grid"), (best.cut_off, "read to fewer than s·L tokens")
    return " and ".join(reason for holds, reason in reasons if holds) or "too few scales"


def _formula(scale: float) -> float:
    return SLOPE * math.log(scale) + INTERCEPT


def _panelled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(panel=[f"s = {s:g}" for s in frame["scale"]])


def _faceted(chart: Any, frame: pd.DataFrame) -> Any:
    panels = panels_of([f"s = {s:g}" for s in sorted(frame["scale"].unique())])
    return chart.properties(**PANEL).facet(panels, columns=3).resolve_axis(x="independent")


def _segments() -> Any:
    legend = alt.Legend(title="segment of the text, first to last", columns=8)
    return alt.Color("segment:O", scale=alt.Scale(scheme="viridis"), legend=legend)
