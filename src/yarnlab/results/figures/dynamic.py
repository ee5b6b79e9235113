"""Perplexity by length, a method a line: the tail alone (as the paper's Fig. 5) and the whole length."""

from __future__ import annotations

from typing import Any

from yarnlab.results.charts import WIDE, by_method, with_bounds
from yarnlab.results.display import rows_of
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.published.data import load_reference
from yarnlab.results.published.overlay import FIRST, overlaid, relative
from yarnlab.results.registry import PAPER, figure
from yarnlab.results.results import Results
from yarnlab.results.style import method_label, method_style, methods_of
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
    frame = dynamic_table.tidy(results)
    titles = {
        "tail": f"last {results.evaluations['dynamic']['tail']} tokens of N",
        "whole length": "all N tokens",
    }
    data = with_bounds(frame)[["method", "length", "perplexity", "interval", "n"]]
    data = data.assign(panel=frame["measure"].map(titles), window=results.original_context)
    size = WIDE // 2 - 50, 260
    return by_method(
        data, results.original_context, "window", list(titles.values()), columns=2, size=size, clipped="all"
    )


@figure(
    "Shape of the paper’s Figure 5",
    needs=("dynamic",),
    section="dynamic",
    place=30,
    fold="The shape of these curves over the paper’s Figure 5",
    forms=PAPER,
    parts="bases",
    alt="Lines of perplexity of the end of the text divided by its value at the original context, against "
    "the length in units of the original context; this study's methods in colour over the paper's in "
    "grey.",
    caption="Every curve is divided by its own value at L. The paper’s (digitised) are of one document and "
    "end at 1.9L.",
)
def dynamic_relative(results: Results) -> Any:
    """The same of dynamic scaling without fine-tuning, tails only: this study over the paper's Figure 5."""
    window = results.original_context
    frame = dynamic_table.tidy(results)
    frame = frame[frame["measure"] == "tail"]
    rows: list[dict[str, Any]] = []
    styles: dict[str, Any] = {}
    for method in methods_of(frame):
        own = frame[frame["method"] == method].sort_values("length")
        at = own.loc[own["length"] == window, "perplexity"]
        if at.empty:
            continue
        styles[method_label(method)] = method_style(method)
        for r in rows_of(own[own["length"] >= FIRST * window]):
            row = {"model": method_label(method), "x": r.length / window, "n": r.n}
            rows.append(row | {"y": r.perplexity / float(at.iloc[0])})
    if not rows:
        raise NotMeasured("dynamic scaling was not measured at N = L")
    return overlaid(
        rows, styles, relative(load_reference().figure("Figure 5"), "method"), "perplexity(N) / perplexity(L)"
    )
