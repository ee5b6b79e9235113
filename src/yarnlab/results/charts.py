"""What all figures share: inline data, scales in the methods' styles, axes, legends, tooltips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from yarnlab.lazy import alt, np, pd
from yarnlab.results.display import value
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.style import INK, QUIET, SeriesStyle, distinct_styles, method_label, method_style, methods_of

WIDE = 720  # pixels of a wide figure before the page fits it to its column


def rounded(rows: Sequence[Mapping[Any, Any]]) -> Any:
    """Inline data with five significant digits: more is invisible and makes the page heavy."""

    def tidy_value(x: Any) -> Any:
        if isinstance(x, float | np.floating):
            return float(f"{x:.5g}") if np.isfinite(x) else None
        return x.item() if isinstance(x, np.generic) else x

    if not rows:
        raise NotMeasured("no numbers to draw")
    return alt.InlineData(values=[{str(k): tidy_value(v) for k, v in row.items()} for row in rows])


def scales(names: list[str], styles: Sequence[SeriesStyle]) -> tuple[Any, Any, Any]:
    """Scales of colour, dash and marker for the series of one panel, of which no two look the same."""
    styles = distinct_styles(styles)
    dash = alt.Scale(domain=names, range=[list(item.dash) for item in styles])
    return colour_scale(names, styles), dash, alt.Scale(domain=names, range=[item.shape for item in styles])


def method_scales(methods: Sequence[str]) -> tuple[Any, Any, Any]:
    """The same for methods, under their labels."""
    return scales([method_label(method) for method in methods], [method_style(method) for method in methods])


def colour_scale(names: list[str], styles: Sequence[SeriesStyle]) -> Any:
    return alt.Scale(domain=names, range=[item.light for item in styles])


def legend(name: str, scale: Any, filled: bool = True) -> Any:
    return alt.Color(name, scale=scale, legend=legend_key(filled))


def legend_key(filled: bool = True) -> Any:
    """The one legend of colour and shape, or (not filled) of colour and dash: a marker outlined in dashes is a blot."""
    return alt.Legend(title=None, columns=4, symbolStrokeWidth=0 if filled else 2)


def dashed(lines: Any, who: str, scale: Any) -> Any:
    """The lines, dashed by `who` without a word in the legend: a legend's markers would be outlined in dashes."""
    # The field is a copy and the scale lists one name more: Vega-Lite merges legends of one field or one domain, even
    # where a legend is switched off.
    apart = alt.Scale(domain=[*scale.domain, ""], range=[*scale.range, [1, 0]])
    return lines.transform_calculate(line=f"datum.{who}").encode(
        strokeDash=alt.StrokeDash("line:N", scale=apart, legend=None)
    )


def curves(
    base: Any,
    who: str,
    looks: tuple[Any, Any, Any],
    x: Any,
    y: Any,
    tips: Sequence[Any],
    *,
    marked: str | Any = "",
    size: int = 55,
    clipped: Literal["none", "lines", "all"] = "none",
) -> list[Any]:
    """Lines in the colour and dash of each `who`, with filled markers that have the tooltip, and one legend of both.

    looks: of `scales`. marked: a filter of the points that have a marker; without it all have. size: of a marker.
    clipped: what is cut off where it leaves the panel.
    """
    colour, dash, shape = looks
    common = {"x": x, "y": y, "color": legend(f"{who}:N", colour)}
    line_ends, point_ends = ({"clip": True} if clip else {} for clip in (clipped != "none", clipped == "all"))
    lines = dashed(base.mark_line(**line_ends).encode(**common), who, dash)
    points = base.transform_filter(marked) if marked else base
    points = points.mark_point(filled=True, size=size, opacity=1, **point_ends)
    shapes = alt.Shape(f"{who}:N", scale=shape, legend=legend_key())
    return [lines, points.encode(shape=shapes, tooltip=tips, **common)]


def log_scale(values: pd.Series) -> Any:
    """A tight logarithmic scale; a curve that explodes leaves at the top, at 100 times the lowest value."""
    finite = values[np.isfinite(values)]
    if finite.empty:
        raise NotMeasured("no finite perplexity to draw")
    low, high = float(finite.min()), float(finite.max())
    return alt.Scale(type="log", nice=False, domain=[low / 1.08, min(high * 1.08, 100 * low)])


def panels_of(names: Sequence[str]) -> Any:
    return alt.Facet("panel:N", title=None, sort=list(names), header=alt.Header(labelAnchor="start"))


def token_axis(**options: Any) -> Any:
    short = "datum.value >= 1024 ? format(datum.value / 1024, '~r') + 'k' : datum.value"
    return alt.Axis(labelExpr=short, labelOverlap=True, **options)


def window_axis(length: str, original_context: int) -> Any:
    """Windows in tokens, of the field `length`."""
    ticks, doubling = token_axis(values=doublings_of(original_context)), alt.Scale(type="log", base=2, nice=False)
    return alt.X(f"{length}:Q", title="context window N (tokens)", scale=doubling, axis=ticks)


def scale_axis(scales: Sequence[float]) -> Any:
    """The scale s, of the field `scale`, with a tick at each of `scales`."""
    ticks, doubling = alt.Axis(values=scales, format="~g"), alt.Scale(type="log", base=2, nice=False)
    return alt.X("scale:Q", title="scale s", scale=doubling, axis=ticks)


def factor_axis() -> Any:
    """The attention factor √(1/t), of the field `factor`."""
    return alt.X("factor:Q", title="√(1/t)", scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(tickCount=5))


def best_factor_axis() -> Any:
    """The same as a category: which factor is the best."""
    axis = alt.Axis(format=".2f", labelAngle=0, labelOverlap=True)
    return alt.X("factor:O", title="best √(1/t)", axis=axis)


def log_axis() -> Any:
    return alt.Axis(format="~g", tickCount=6, labelOverlap=True)


def doublings_of(original_context: int) -> list[int]:
    """… L/2, L, 2L, 4L …: where axes have ticks and lines have markers."""
    return [int(original_context * 2.0**k) for k in range(-4, 16)]


def bounds(low: float, high: float, form: str = "") -> str:
    """'1.072 to ∞': an interval as text, since a chart's data hold no infinity and tooltips show null as 0.

    'none' where it is absent or excludes nothing, as over one document (of a perplexity from 0 on). form: how Python
    formats a bound; without it four significant digits.
    """
    if math.isnan(low) or math.isnan(high) or (high == math.inf and low in (0, -math.inf)):
        return "none"
    shown = (format(x, form).replace("-", "−") if form and math.isfinite(x) else value(x, 4) for x in (low, high))
    return " to ".join(shown)


def with_bounds(frame: pd.DataFrame, low: str = "low", high: str = "high", form: str = "") -> pd.DataFrame:
    """The frame with `interval`, the text of `bounds`, from its columns `low` and `high`."""
    return frame.assign(interval=[bounds(a, b, form) for a, b in zip(frame[low], frame[high], strict=True)])


def drop_unbounded(chart: Any, low: str = "low", high: str = "high") -> Any:
    """The chart of those rows alone that have both bounds: a rule to an absent one would end at 0."""
    return chart.transform_filter(f"isValid(datum.{low}) && isValid(datum.{high})")


def bars(
    frame: pd.DataFrame,
    who: str,
    order: Sequence[str],
    x: Any,
    tips: Sequence[Any],
    panels: Sequence[str],
    *,
    columns: int,
    colour: Any,
    differences: bool = False,
) -> Any:
    """Bars with black strokes for their intervals, a `who` a bar, panels in `columns`; of differences a rule at 0.

    frame: with `panel`, `interval`, n and the bounds: low and high, of differences delta_low and delta_high.
    colour: of all bars, or an encoding of `who`.
    """
    ends = ("delta_low", "delta_high") if differences else ("low", "high")
    base = alt.Chart(rounded(frame.to_dict("records"))).encode(y=alt.Y(f"{who}:N", sort=order, title=None))
    drawn = base.mark_bar(height={"band": 0.62}).encode(x=x, color=colour, tooltip=[*tips, *interval_tooltip()])
    strokes = (
        drop_unbounded(base, *ends).mark_rule(strokeWidth=1.6, color=INK).encode(x=f"{ends[0]}:Q", x2=f"{ends[1]}:Q")
    )
    zero = [base.mark_rule(color=QUIET).encode(x=alt.datum(0))] if differences else []
    layers = alt.layer(drawn, strokes, *zero).properties(width=WIDE // columns - 45, height=150)
    return layers.facet(panels_of(panels), columns=columns)


def by_method(
    data: pd.DataFrame,
    original_context: int,
    mark: str,
    panels: Sequence[str],
    *,
    columns: int,
    size: tuple[int, int],
    clipped: Literal["lines", "all"] = "lines",
) -> Any:
    """Perplexity by length, a method a line, panels in `columns`; a dashed vertical at each panel's `mark`.

    data: method, length, perplexity, interval, n, panel and the column `mark`.
    """
    methods = methods_of(data)
    data = data.assign(method=data["method"].map(method_label))
    base, x = alt.Chart(rounded(data.to_dict("records"))), window_axis("length", original_context)
    y = alt.Y("perplexity:Q", scale=log_scale(data["perplexity"]), title="perplexity", axis=log_axis())
    layers = curves(base, "method", method_scales(methods), x, y, tooltip("method"), size=34, clipped=clipped)
    rule = base.mark_rule(color=QUIET, strokeDash=[4, 4]).encode(x=f"max({mark}):Q")
    chart = alt.layer(rule, *layers).properties(width=size[0], height=size[1])
    return chart.facet(panels_of(panels), columns=columns).resolve_axis(x="independent")


def interval_tooltip() -> list[Any]:
    """The last lines of a tooltip: the interval as text, and n."""
    return [alt.Tooltip("interval:N", title="95 %"), alt.Tooltip("n:Q", title="n")]


def tooltip(who: str, column: str = "perplexity") -> list[Any]:
    n = "length" if who == "method" else "N"
    tips = [alt.Tooltip(f"{who}:N"), alt.Tooltip(f"{n}:Q", title="N", format=",")]
    return [*tips, alt.Tooltip(f"{column}:Q", format=".4g"), *interval_tooltip()]
