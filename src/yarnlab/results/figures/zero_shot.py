"""Perplexity against window, a method a line, a scale a panel; the rule marks N = sL."""

from __future__ import annotations

from typing import Any

from yarnlab.results.charts import WIDE, by_method, with_bounds
from yarnlab.results.display import at_scale
from yarnlab.results.registry import figure
from yarnlab.results.results import Results
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
    frame = zero_shot_table.tidy(results)
    data = with_bounds(frame)[["method", "scale", "length", "perplexity", "interval", "n"]]
    target, panel = (data["scale"] * results.original_context).astype(int), data["scale"].map(at_scale)
    panels = [at_scale(scale) for scale in sorted(set(data["scale"]))]
    data = data.assign(target=target, panel=panel)
    return by_method(data, results.original_context, "target", panels, columns=3, size=(WIDE // 3 - 45, 190))
