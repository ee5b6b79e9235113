"""Perplexity by length, a method a line: the tail alone (as the paper's Fig. 5) and the whole length."""

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
from yarnlab.results.tables import dynamic as dynamic_table


@figure(
    "Dynamic scaling without fine-tuning",
    needs=("dynamic",),
    section="dynamic",
    place=10,
    paper_names=("figure_5",),
    columns=2,
    parts="bases",
    alt="Lines of perplexity against length, one per method; left for the end of the text, right for all of it.",
    caption="Left: the end of each text alone, as in the paper’s Figure 5. Right: the whole text, which "
    "flatters what happens at its end. The dashed vertical marks L.",
)
def dynamic(results: Results) -> Any:
    """Perplexity by length, a method a line: the tail alone (as the paper's Fig. 5) and the whole length."""
    frame = dynamic_table.tidy(results)
    titles = {
        "tail": f"last {results.evaluations['dynamic']['tail']} tokens of N",
        "whole length": "all N tokens",
    }
    methods = methods_of(frame)
    data = with_bounds(frame)[["method", "length", "perplexity", "interval", "n"]].copy()
    data["panel"] = frame["measure"].map(titles)
    data["method"] = data["method"].map(method_label)
    data["window"] = results.original_context
    colour, dash, shape = scales([method_label(m) for m in methods], [method_look(m) for m in methods])
    base = alt.Chart(rounded(data.to_dict("records")))
    common = {
        "x": alt.X(
            "length:Q",
            title="context window N (tokens)",
            scale=alt.Scale(type="log", base=2, nice=False),
            axis=tokens(values=powers(results.original_context)),
        ),
        "y": alt.Y("perplexity:Q", scale=log_scale(data["perplexity"]), title="perplexity", axis=decades()),
        "color": legend("method:N", colour),
    }
    lines = dashed(base.mark_line(clip=True).encode(**common), "method", dash)
    points = base.mark_point(filled=True, size=34, opacity=1, clip=True).encode(
        shape=alt.Shape("method:N", scale=shape, legend=key()), tooltip=tooltip("method"), **common
    )
    rule = base.mark_rule(color=QUIET, strokeDash=[4, 4]).encode(x="max(window):Q")
    chart = alt.layer(rule, lines, points).properties(width=WIDE // 2 - 50, height=260)
    return chart.facet(panels_of(list(titles.values())), columns=2).resolve_axis(x="independent")
