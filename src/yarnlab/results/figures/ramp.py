"""Gap of every variant to the official ramp at the longest length of each scale, a scale a panel."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import alt
from yarnlab.results.charts import WIDE, bounded, panels_of, rounded, sure, with_bounds
from yarnlab.results.display import windows
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.registry import figure
from yarnlab.results.results import Results
from yarnlab.results.style import INK, LOOKS, QUIET
from yarnlab.results.tables import ramp as ramp_table


@figure(
    "Shapes of the ramp",
    needs=("ramp",),
    section="ramp",
    place=10,
    columns=3,
    margin=120,
    parts="bases",
    alt="Bars of the difference in ln perplexity to the official ramp per variant, one panel per scale.",
    caption="Bars to the right of zero: the official ramp is better. Black strokes are 95 % intervals of the "
    "paired difference.",
)
def ramp(results: Results) -> Any:
    """Gap of every variant to the official ramp at the longest length of each scale, a scale a panel."""
    frame = ramp_table.tidy(results)
    if "delta" not in frame:
        raise NotMeasured("the ramp evaluation has nothing to compare with its official variant")
    frame = frame[frame["length"] == frame.groupby("scale")["length"].transform("max")].dropna(subset=["delta"])
    frame = frame.assign(
        panel=[
            f"s = {s:g}, N = {windows(n, results.original_context)}"
            for s, n in zip(frame["scale"].tolist(), frame["length"].tolist(), strict=True)
        ]
    )
    frame = with_bounds(frame, "delta_low", "delta_high", "+.3f")
    data = rounded(frame[["variant", "panel", "delta", "delta_low", "delta_high", "interval", "n"]].to_dict("records"))
    base = alt.Chart(data).encode(y=alt.Y("variant:N", sort=list(frame["variant"].unique()), title=None))
    bars = base.mark_bar(height={"band": 0.62}, color=LOOKS["ntk-by-parts"].light).encode(
        x=alt.X("delta:Q", title="Δ ln perplexity to the official ramp", axis=alt.Axis(tickCount=4)),
        tooltip=["variant:N", alt.Tooltip("delta:Q", title="gap", format="+.3f"), *sure()],
    )
    ticks = bounded(base, "delta_low", "delta_high").mark_rule(strokeWidth=1.6, color=INK)
    ticks = ticks.encode(x="delta_low:Q", x2="delta_high:Q")
    zero = base.mark_rule(color=QUIET).encode(x=alt.datum(0))
    panels = panels_of(list(dict.fromkeys(frame.sort_values("scale")["panel"])))
    return alt.layer(bars, ticks, zero).properties(width=WIDE // 3 - 45, height=150).facet(panels, columns=3)
