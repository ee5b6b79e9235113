"""The same of dynamic scaling without fine-tuning, tails only: this study over the paper's Figure 5."""

from __future__ import annotations

from typing import Any

from yarnlab.results.display import rows_of
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.published.data import load_reference
from yarnlab.results.published.overlay import FIRST, overlaid, relative
from yarnlab.results.registry import figure
from yarnlab.results.results import Results
from yarnlab.results.style import method_label, method_look, methods_of
from yarnlab.results.tables import dynamic as dynamic_table


@figure(
    "Shape of the paper’s Figure 5",
    needs=("dynamic",),
    section="dynamic",
    place=30,
    fold="The shape of these curves over the paper’s Figure 5",
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
    looks: dict[str, Any] = {}
    for method in methods_of(frame):
        own = frame[frame["method"] == method].sort_values("length")
        at = own.loc[own["length"] == window, "perplexity"]
        if at.empty:
            continue
        looks[method_label(method)] = method_look(method)
        for r in rows_of(own[own["length"] >= FIRST * window]):
            row = {"model": method_label(method), "x": r.length / window, "n": r.n}
            rows.append(row | {"y": r.perplexity / float(at.iloc[0])})
    if not rows:
        raise NotMeasured("dynamic scaling was not measured at N = L")
    return overlaid(
        rows, looks, relative(load_reference().figure("Figure 5"), "method"), "perplexity(N) / perplexity(L)"
    )
