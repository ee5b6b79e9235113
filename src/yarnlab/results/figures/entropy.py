"""Mean attention entropy by scale, a method a line; the rule is the unchanged base."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import alt
from yarnlab.results.charts import (
    WIDE,
    curves,
    drop_unbounded,
    interval_tooltip,
    legend,
    method_scales,
    rounded,
    scale_axis,
    with_bounds,
)
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.registry import figure
from yarnlab.results.results import Results
from yarnlab.results.style import QUIET, method_label, methods_of
from yarnlab.results.tables import entropy as entropy_table


@figure(
    "Entropy of the attention by scale",
    needs=("entropy",),
    section="entropy",
    place=10,
    parts="bases",
    alt="Lines of mean attention entropy against the scale, one per method; a horizontal rule marks the base.",
    caption="Mean over layers, heads, queries and documents, within the original context. Interpolation is "
    "said to spread the attention out, and the temperature to undo that.",
)
def entropy(results: Results) -> Any:
    frame = entropy_table.tidy(results)
    reference = frame[(frame["method"] == "none") & (frame["scale"] == 1)]
    extended = frame[frame["method"] != "none"]
    if extended.empty:
        raise NotMeasured("the entropy was measured on the unchanged base only")
    shown = methods_of(extended)
    extended = extended.assign(method=extended["method"].map(method_label))
    looks = method_scales(shown)
    x = scale_axis(sorted(extended["scale"].unique().tolist()))
    y = alt.Y("entropy:Q", title="mean entropy of the attention (nats)", scale=alt.Scale(zero=False))
    columns = ["method", "scale", "entropy", "low", "high", "interval", "n"]
    base = alt.Chart(rounded(with_bounds(extended)[columns].to_dict("records")))
    hue = legend("method:N", looks[0])
    whiskers = drop_unbounded(base).mark_rule().encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=hue)
    tips = ["method:N", alt.Tooltip("scale:Q", title="s"), alt.Tooltip("entropy:Q", format=".4g"), *interval_tooltip()]
    layers = [whiskers, *curves(base, "method", looks, x, y, tips)]
    if not reference.empty:
        marks = alt.Chart(rounded([{"entropy": reference["entropy"].iloc[0], "text": "base, plain RoPE"}]))
        layers.append(marks.mark_rule(color=QUIET, strokeDash=[4, 4]).encode(y="entropy:Q"))
        layers.append(
            marks.mark_text(align="left", baseline="top", dx=4, dy=4, color=QUIET).encode(
                x=alt.value(0), y="entropy:Q", text="text:N"
            )
        )
    return alt.layer(*layers).properties(width=WIDE, height=300)
