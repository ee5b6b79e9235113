"""What all figures share: inline data, scales in the methods' looks, axes, legends, tooltips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from yarnlab.analysis.format import value
from yarnlab.analysis.measure import NotMeasured

WIDE = 720  # pixels of a wide figure before the page fits it to its column


def rounded(rows: Sequence[Mapping[Any, Any]]) -> Any:
    """Inline data with five significant digits: more is invisible and makes the page heavy."""
    import altair as alt

    def tidy_value(x: Any) -> Any:
        if isinstance(x, float | np.floating):
            return float(f"{x:.5g}") if np.isfinite(x) else None
        return x.item() if isinstance(x, np.generic) else x

    if not rows:
        raise NotMeasured("no numbers to draw")
    return alt.InlineData(values=[{str(k): tidy_value(v) for k, v in row.items()} for row in rows])


def scales(names: list[str], looks: list[Any]) -> tuple[Any, Any, Any]:
    import altair as alt

    dash = alt.Scale(domain=names, range=[list(item.dash) for item in looks])
    return colour_scale(names, looks), dash, alt.Scale(domain=names, range=[item.shape for item in looks])


def colour_scale(names: list[str], looks: list[Any]) -> Any:
    import altair as alt

    return alt.Scale(domain=names, range=[item.light for item in looks])


def legend(name: str, scale: Any, filled: bool = True) -> Any:
    import altair as alt

    return alt.Color(name, scale=scale, legend=key(filled))


def key(filled: bool = True) -> Any:
    """The one legend of colour and shape, or (not filled) of colour and dash: a marker outlined in dashes is a blot."""
    import altair as alt

    return alt.Legend(title=None, columns=4, symbolStrokeWidth=0 if filled else 2)


def dashed(lines: Any, who: str, scale: Any) -> Any:
    """The lines, dashed by `who` without a word in the legend: a legend's markers would be outlined in dashes."""
    import altair as alt

    # The field is a copy and the scale lists one name more: Vega-Lite merges legends of one field or one domain, even
    # where a legend is switched off.
    apart = alt.Scale(domain=[*scale.domain, ""], range=[*scale.range, [1, 0]])
    return lines.transform_calculate(line=f"datum.{who}").encode(
        strokeDash=alt.StrokeDash("line:N", scale=apart, legend=None)
    )


def log_scale(values: pd.Series) -> Any:
    """A tight logarithmic scale; a curve that explodes leaves at the top, at 100 times the lowest value."""
    import altair as alt

    finite = values[np.isfinite(values)]
    if finite.empty:
        raise NotMeasured("no finite perplexity to draw")
    low, high = float(finite.min()), float(finite.max())
    return alt.Scale(type="log", nice=False, domain=[low / 1.08, min(high * 1.08, 100 * low)])


def panels_of(names: list[str]) -> Any:
    import altair as alt

    return alt.Facet("panel:N", title=None, sort=names, header=alt.Header(labelAnchor="start"))


def tokens(**options: Any) -> Any:
    import altair as alt

    short = "datum.value >= 1024 ? format(datum.value / 1024, '~r') + 'k' : datum.value"
    return alt.Axis(labelExpr=short, labelOverlap=True, **options)


def decades() -> Any:
    import altair as alt

    return alt.Axis(format="~g", tickCount=6, labelOverlap=True)


def powers(original_context: int) -> list[int]:
    """… L/2, L, 2L, 4L …: where axes have ticks and lines have markers."""
    return [int(original_context * 2.0**k) for k in range(-4, 16)]


def bounds(low: float, high: float) -> str:
    """'1.072 to ∞': an interval as text for a tooltip, since a chart's data hold no infinity and show null as 0."""
    return f"{value(low, 4)} to {value(high, 4)}"


def tooltip(who: str, column: str = "perplexity") -> list[Any]:
    import altair as alt

    n = "length" if who == "method" else "N"
    tips = [alt.Tooltip(f"{who}:N"), alt.Tooltip(f"{n}:Q", title="N", format=",")]
    tips.append(alt.Tooltip(f"{column}:Q", format=".4g"))
    if column == "perplexity":
        tips += [
            alt.Tooltip("low:Q", title="95 % from", format=".4g"),
            alt.Tooltip("high:Q", title="to", format=".4g"),
        ]
    else:
        tips.append(alt.Tooltip("interval:N", title="95 %"))
    return [*tips, alt.Tooltip("n:Q", title="n")]
