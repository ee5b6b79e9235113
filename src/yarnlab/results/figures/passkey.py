"""Accuracy by prompt length and tenth of the depth, a model a panel."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import alt
from yarnlab.results.charts import WIDE, panels_of, rounded, token_axis
from yarnlab.results.registry import figure
from yarnlab.results.results import Results
from yarnlab.results.rows import named_arms
from yarnlab.results.style import PAPER
from yarnlab.results.tables import passkey as passkey_table


@figure(
    "Passkey retrieval by length and depth",
    needs=("passkey",),
    section="passkey",
    place=10,
    columns=4,
    alt="Heat maps of passkey accuracy by prompt length and depth of the key, one panel per model.",
    caption="Share of trials in which all digits of the key are retrieved, by prompt length and by depth of "
    "the key from the start of the prompt (0 %) to its end. A cell holds the trials of a tenth of the "
    "depths: hover it for their number and the 95 % interval of the accuracy.",
)
def passkey(results: Results) -> Any:
    frame = passkey_table.tidy(results)
    cells = frame[(frame["depth_high"] - frame["depth_low"]) < 0.5].copy()
    cells["panel"] = cells["label"]
    cells["depth"] = (cells["depth_low"] * 100).round().astype(int)
    fewest, most = int(cells["n"].min()), int(cells["n"].max())
    trials = f"{most} trials a cell" if fewest == most else f"{fewest} to {most} trials a cell"
    data = rounded(cells[["panel", "length", "depth", "accuracy", "low", "high", "n"]].to_dict("records"))
    present = [name for _, name in named_arms(results) if name in set(cells["label"])]
    chart = (
        alt.Chart(data)
        .mark_rect(stroke=PAPER, strokeWidth=1)
        .encode(
            x=alt.X("length:O", title="prompt length N (tokens)", axis=token_axis(labelAngle=0)),
            y=alt.Y("depth:O", title=["depth of the key (%),", trials], axis=alt.Axis(values=[0, 20, 40, 60, 80])),
            color=alt.Color(
                "accuracy:Q",
                title="accuracy",
                scale=alt.Scale(scheme="cividis", domain=[0, 1]),
                legend=alt.Legend(format="%", gradientLength=180, direction="horizontal"),
            ),
            tooltip=[
                alt.Tooltip("panel:N", title="model"),
                alt.Tooltip("length:Q", title="N", format=","),
                alt.Tooltip("depth:Q", title="depth from %"),
                alt.Tooltip("accuracy:Q", format=".0%"),
                alt.Tooltip("low:Q", title="95 % from", format=".0%"),
                alt.Tooltip("high:Q", title="to", format=".0%"),
                alt.Tooltip("n:Q", title="trials"),
            ],
        )
    )
    cells_of = chart.properties(width=WIDE // 4 - 40, height=150)
    # With a shared axis the empty cells of the grid's last row would get one too.
    return cells_of.facet(panels_of(present), columns=4).resolve_axis(x="independent")
