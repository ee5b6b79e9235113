"""Wall time by stage; each job is one segment."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import alt
from yarnlab.results.charts import WIDE, rounded
from yarnlab.results.registry import figure
from yarnlab.results.results import Results
from yarnlab.results.style import PAPER
from yarnlab.results.tables import cost as cost_table


@figure(
    "Wall time by stage",
    needs=("manifests",),
    section="cost",
    place=10,
    alt="Horizontal bars of wall time in minutes by stage, divided into its jobs.",
    caption="Wall time of each stage; a segment is one job. Jobs may run side by side, so the study took less "
    "than the sum.",
    timed=("minutes", "peak_memory_gib"),
)
def cost(results: Results) -> Any:
    frame = cost_table.tidy(results).dropna(subset=["seconds"])
    frame = frame.assign(minutes=frame["seconds"] / 60)
    order = list(dict.fromkeys(frame["stage"]))
    return (
        alt.Chart(rounded(frame[["stage", "name", "minutes", "peak_memory_gib"]].to_dict("records")))
        .mark_bar(stroke=PAPER, strokeWidth=1, color="#0b62a8", height={"band": 0.7})
        .encode(
            x=alt.X("sum(minutes):Q", title="wall time (minutes)", axis=alt.Axis(tickCount=6)),
            y=alt.Y("stage:N", sort=order, title=None),
            detail="name:N",
            tooltip=[
                "stage:N",
                "name:N",
                alt.Tooltip("minutes:Q", format=".2f"),
                alt.Tooltip("peak_memory_gib:Q", title="peak GiB", format=".2f"),
            ],
        )
        .properties(width=WIDE, height=36 * len(order))
    )
