"""Left: loss of every arm, smoothed. Right: its gap to YaRN on the same batches."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import alt, pd
from yarnlab.results.bases import compared_with
from yarnlab.results.charts import WIDE, bounds, legend, legend_key, panels_of, rounded, scales
from yarnlab.results.estimates import NotMeasured, loss_gap, losses
from yarnlab.results.registry import figure
from yarnlab.results.results import Results
from yarnlab.results.statistics import student_half
from yarnlab.results.style import QUIET, labels, style_of

SMOOTHING = 10


@figure(
    "Training loss of the arms",
    needs=("training",),
    section="training",
    place=10,
    columns=2,
    parts="bases",
    ablation=True,
    alt="Two panels over training steps: smoothed loss of every arm, and its paired gap to YaRN.",
    caption="Trailing mean of 10 steps. Left: loss of each arm. Right: its difference to YaRN on the same "
    "batches, so that what is common to a batch cancels. Hover a marker for the 95 % interval of the "
    "mean over its 10 steps.",
)
def training_loss(results: Results) -> Any:
    first = compared_with(results)
    if first is None or not results.has("training"):
        raise NotMeasured("no YaRN model was fine-tuned from the base")
    names = labels(results)
    rows = []
    arms = [m for m in results.ablation() if m.arm in set(results.frame("training")["arm"])]
    for model in arms:
        rows += _smoothed(names[model.arm], "loss (nats/token)", losses(results, model.arm))
        paired = results.alike(model, first, as_long=False) and first.arm in {m.arm for m in arms}
        if paired and model.arm != first.arm:
            gaps = loss_gap(results, first.arm, model.arm)
            rows += _smoothed(names[model.arm], f"loss minus that of {names[first.arm]} (nats/token)", gaps)
    if not rows:
        raise NotMeasured("no training log of an ablation arm")
    colour, dash, _ = scales([names[m.arm] for m in arms], [style_of(m, results) for m in arms])
    base = alt.Chart(rounded(rows)).encode(
        x=alt.X("step:Q", title="optimizer step", axis=alt.Axis(format="d", tickMinStep=1)),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
    )
    lines = base.mark_line(clip=True).encode(
        color=legend("model:N", colour, filled=False),
        strokeDash=alt.StrokeDash("model:N", scale=dash, legend=legend_key(filled=False)),
    )
    # A line has one tooltip for all of its steps; a marker has its own, of a mean that shares no step with the next.
    markers = base.transform_filter("datum.interval != null").mark_point(filled=True, size=12, opacity=1, color=QUIET)
    markers = markers.encode(
        tooltip=[
            "model:N",
            "step:Q",
            alt.Tooltip("value:Q", format=".3f"),
            alt.Tooltip("interval:N", title="95 %"),
        ]
    )
    panels = panels_of(list(dict.fromkeys(row["panel"] for row in rows)))
    chart = alt.layer(lines, markers).properties(width=WIDE // 2 - 50, height=260).facet(panels, columns=2)
    return chart.resolve_scale(y="independent").resolve_axis(x="independent")


def _smoothed(model: str, panel: str, values: pd.Series) -> list[dict[str, Any]]:
    """Trailing means over SMOOTHING steps, every SMOOTHING-th with Student's interval over the steps."""
    rows = []
    for i, (step, centre) in enumerate(values.rolling(SMOOTHING, min_periods=1).mean().items(), 1):
        row = {"model": model, "panel": panel, "step": step, "value": centre}
        if i % SMOOTHING == 0:
            half = student_half(values.to_numpy(float)[i - SMOOTHING : i])
            row |= {"interval": bounds(centre - half, centre + half)}
        rows.append(row)
    return rows
