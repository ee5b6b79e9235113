"""Gap of every variant to the official ramp at the longest length of each scale, a scale a panel."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import alt
from yarnlab.results.charts import bars, with_bounds
from yarnlab.results.display import windows
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.registry import figure
from yarnlab.results.results import Results
from yarnlab.results.style import STYLES
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
    columns = ["variant", "panel", "delta", "delta_low", "delta_high", "interval", "n"]
    x = alt.X("delta:Q", title="Δ ln perplexity to the official ramp", axis=alt.Axis(tickCount=4))
    tips = ["variant:N", alt.Tooltip("delta:Q", title="gap", format="+.3f")]
    order, panels = list(frame["variant"].unique()), list(dict.fromkeys(frame.sort_values("scale")["panel"]))
    colour = alt.value(STYLES["ntk-by-parts"].light)
    return bars(frame[columns], "variant", order, x, tips, panels, columns=3, colour=colour, differences=True)
