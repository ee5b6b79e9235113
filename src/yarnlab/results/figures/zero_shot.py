"""Perplexity against window, a method a line, a scale a panel; the rule marks N = sL."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import alt
from yarnlab.results.charts import (
    WIDE,
    dashed,
    decades,
    key,
    legend,
    log_scale,
    panels_of,
    powers,
    rounded,
    scales,
    tokens,
    tooltip,
    with_bounds,
)
from yarnlab.results.registry import figure
from yarnlab.results.results import Results
from yarnlab.results.style import QUIET, method_label, method_look, methods_of
from yarnlab.results.tables import zero_shot as zero_shot_table


@figure(
    "Extension without fine-tuning",
    needs=("zero_shot",),
    section="zero-shot",
    place=10,
    columns=3,
    parts="bases",
    alt="Lines of perplexity against context window, one per method, one panel per scale.",
    caption="The base with each method at scale s, no training. The dashed vertical marks N = sL, the window "
    "that the scale is meant for.",
)
def zero_shot(results: Results) -> Any:
    """Perplexity against window, a method a line, a scale a panel; the rule marks N = sL."""
    frame = zero_shot_table.tidy(results)
    methods = methods_of(frame)
    data = with_bounds(frame)[["method", "scale", "length", "perplexity", "interval", "n"]].copy()
    data["target"] = (data["scale"] * results.original_context).astype(int)
    data["panel"] = [f"s = {s:g}" for s in data["scale"]]
    data["method"] = data["method"].map(method_label)
    looks = [method_look(m) for m in methods]
    colour, dash, shape = scales([method_label(m) for m in methods], looks)
    x = alt.X(
        "length:Q",
        title="context window N (tokens)",
        scale=alt.Scale(type="log", base=2, nice=False),
        axis=tokens(values=powers(results.original_context)),
    )
    base = alt.Chart(rounded(data.to_dict("records")))
    enc = {
        "x": x,
        "y": alt.Y("perplexity:Q", scale=log_scale(data["perplexity"]), title="perplexity", axis=decades()),
        "color": legend("method:N", colour),
    }
    lines = dashed(base.mark_line(clip=True).encode(**enc), "method", dash)
    points = base.mark_point(filled=True, size=34, opacity=1).encode(
        shape=alt.Shape("method:N", scale=shape, legend=key()), tooltip=tooltip("method"), **enc
    )
    rule = base.mark_rule(color=QUIET, strokeDash=[4, 4]).encode(x="max(target):Q")
    panels = panels_of([f"s = {s:g}" for s in sorted(set(data["scale"]))])
    chart = alt.layer(rule, lines, points).properties(width=WIDE // 3 - 45, height=190)
    return chart.facet(panels, columns=3).resolve_axis(x="independent")
