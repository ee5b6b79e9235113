"""Share of right answers, a model a bar, a task a panel (the metric that is reported for it)."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import alt, pd
from yarnlab.results.charts import bars, colour_scale, with_bounds
from yarnlab.results.estimates import group, reported
from yarnlab.results.registry import figure
from yarnlab.results.results import Results
from yarnlab.results.style import labels, style_of
from yarnlab.results.tables import benchmarks as benchmarks_table


@figure(
    "Short tasks",
    needs=("benchmarks",),
    section="short-context",
    place=10,
    columns=4,
    margin=120,
    alt="Bars of the share of right answers per model with 95 % intervals, one panel per task.",
    caption="Share of right answers; black strokes are 95 % intervals (Wilson; for the mean, bootstrap over "
    "items). All models answer the same items, so differences are sharper than the intervals of two "
    "bars suggest: they are in the second table.",
)
def benchmarks(results: Results) -> Any:
    frame = benchmarks_table.tidy(results)
    kept = [
        task == "mean" or (metric == reported(task) and group(task) == task)
        for task, metric in zip(frame["task"].tolist(), frame["metric"].tolist(), strict=True)
    ]
    frame = frame[pd.Series(kept, index=frame.index, dtype=bool)]
    frame = frame.assign(
        panel=["mean of the tasks" if r.task == "mean" else f"{r.task}, {r.metric}" for r in frame.itertuples()]
    )
    names = labels(results)
    arms = [model for model in results.arms().values() if model.arm in set(frame["arm"])]
    scale = colour_scale([names[m.arm] for m in arms], [style_of(m, results) for m in arms])
    x = alt.X("accuracy:Q", title="right answers", axis=alt.Axis(format="%", tickCount=3, labelOverlap=True))
    columns = ["label", "panel", "accuracy", "low", "high", "interval", "n"]
    return bars(
        with_bounds(frame, form=".1%")[columns],
        "label",
        [names[m.arm] for m in arms],
        x,
        [alt.Tooltip("label:N", title="model"), alt.Tooltip("accuracy:Q", format=".1%")],
        sorted(frame["panel"].unique(), key=lambda panel: panel != "mean of the tasks"),
        columns=4,
        colour=alt.Color("label:N", scale=scale, legend=None),
    )
