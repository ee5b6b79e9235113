"""Mean attention entropy by scale, a method a line; the rule is the unchanged base."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import alt
from yarnlab.results.charts import (
    WIDE,
    dashed,
    drop_unbounded,
    interval_tooltip,
    legend,
    legend_key,
    rounded,
    scale_axis,
    scales,
    with_bounds,
)
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.registry import figure
from yarnlab.results.results import Results
from yarnlab.results.style import QUIET, method_label, method_style, methods_of
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
    curves = frame[frame["method"] != "none"]
    if curves.empty:
        raise NotMeasured("the entropy was measured on the unchanged base only")
    shown = methods_of(curves)
    curves = curves.assign(method=curves["method"].map(method_label))
    colour, dash, shape = scales([method_label(m) for m in shown], [method_style(m) for m in shown])
    x = scale_axis(sorted(curves["scale"].unique().tolist()))
    y = alt.Y("entropy:Q", title="mean entropy of the attention (nats)", scale=alt.Scale(zero=False))
    columns = ["method", "scale", "entropy", "low", "high", "interval", "n"]
    base = alt.Chart(rounded(with_bounds(curves)[columns].to_dict("records")))
    common = {"x": x, "y": y, "color": legend("method:N", colour)}
    lines = dashed(base.mark_line().encode(**common), "method", dash)
    whiskers = (
        drop_unbounded(base).mark_rule().encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=legend("method:N", colour))
    )
    points = base.mark_point(filled=True, size=55, opacity=1).encode(
        shape=alt.Shape("method:N", scale=shape, legend=legend_key()),
        tooltip=[
            "method:N",
            alt.Tooltip("scale:Q", title="s"),
            alt.Tooltip("entropy:Q", format=".4g"),
            *interval_tooltip(),
        ],
        **common,
    )
    layers = [whiskers, lines, points]
    if not reference.empty:
        marks = alt.Chart(rounded([{"entropy": reference["entropy"].iloc[0], "text": "base, plain RoPE"}]))
        layers.append(marks.mark_rule(color=QUIET, strokeDash=[4, 4]).encode(y="entropy:Q"))
        layers.append(
            marks.mark_text(align="left", baseline="top", dx=4, dy=4, color=QUIET).encode(
                x=alt.value(0), y="entropy:Q", text="text:N"
            )
        )
    return alt.layer(*layers).properties(width=WIDE, height=300)
