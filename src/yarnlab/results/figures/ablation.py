"""Gap to YaRN in ln perplexity, an arm a bar, a length a panel."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import alt
from yarnlab.results.bases import compared_with
from yarnlab.results.charts import bars, colour_scale, with_bounds
from yarnlab.results.display import windows
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.registry import PAPER, figure
from yarnlab.results.results import Results
from yarnlab.results.style import labels, method_label, style_of
from yarnlab.results.tables import ablation as ablation_table


@figure(
    "Gap to YaRN at equal budget",
    needs=("perplexity",),
    section="ablation",
    forms=PAPER,
    place=10,
    columns=4,
    margin=120,
    parts="bases",
    ablation=True,
    alt="Bars of the difference in ln perplexity to YaRN per arm, with 95 % intervals, a panel a length.",
    caption="Bars to the right of zero: YaRN is better. Black strokes are 95 % intervals of the paired "
    "difference (bootstrap over documents).",
)
def ablation(results: Results) -> Any:
    frame = ablation_table.tidy(results)
    if frame.empty or "delta" not in frame or frame["delta"].isna().all():
        raise NotMeasured("no arm was fine-tuned beside YaRN at the same scale")
    arms = [model for model in results.ablation() if model.method != "yarn"]
    frame = frame[frame["arm"].isin([model.arm for model in arms])].dropna(subset=["delta"])
    frame = with_bounds(frame, "delta_low", "delta_high", "+.3f")
    names = labels(results)
    scale = colour_scale([names[m.arm] for m in arms], [style_of(m, results) for m in arms])
    colour = alt.Color("label:N", scale=scale, legend=None)
    frame["panel"] = [f"N = {windows(n, results.original_context)}" for n in frame["length"]]
    columns = ["label", "panel", "length", "delta", "delta_low", "delta_high", "interval", "n"]
    tips = [
        alt.Tooltip("label:N", title="arm"),
        alt.Tooltip("length:Q", title="N", format=","),
        alt.Tooltip("delta:Q", title="gap", format="+.3f"),
    ]
    first = compared_with(results)
    against = names[first.arm] if first else method_label("yarn")
    x = alt.X("delta:Q", title=["Δ ln perplexity", f"to {against}"], axis=alt.Axis(tickCount=4))
    order, panels = [names[m.arm] for m in arms], list(dict.fromkeys(frame.sort_values("length")["panel"]))
    return bars(frame[columns], "label", order, x, tips, panels, columns=4, colour=colour, differences=True)
