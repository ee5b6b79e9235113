"""Gaps between methods without training, on a model and on its control, whose weights are quantised once more.

gap, again: NLL of the tokens in (L, sL] minus YaRN's, in nats a token, on the model and on the control. move: again
minus gap, paired by document. half_width: half of the gap's own interval, by which it may move (claim
`untrained-requantised`).
"""

from __future__ import annotations

from functools import lru_cache

from yarnlab.lazy import pd
from yarnlab.results.display import DisplayTable, captioned, cell, manifests_of, own_cell, rows_of, signed, value
from yarnlab.results.estimates import moved_gaps
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import numbers
from yarnlab.results.style import method_label


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
    """One row per model with a control, scale and method."""
    rows = []
    for found in moved_gaps(results, "yarn"):
        row = {"arm": found.model.arm, "control": found.control.arm, "method": found.method, "scale": found.scale}
        row |= {"start": found.model.original_context, "length": found.length} | numbers("gap", found.own)
        row |= found.again.columns("again") | found.move.columns("move")
        rows.append(row | {"half_width": found.half_width})
    return pd.DataFrame(rows)


@table(
    "Weights quantised once more",
    tidy,
    needs=("zero_shot",),
    section="zero-shot",
    place=25,
    of_control=True,
    caption="The weights that are given were quantised, and the original ones are not at hand. So they are quantised "
    "once more, by a type whose error is about as large: what moves then is owed to such errors, not to the methods.",
)
def requantised(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """A row per method: its gap to YaRN on both, how far it moved, and how far it may."""
    lines = [
        {
            "model": r.arm,
            "control": r.control,
            "method": method_label(r.method),
            "s": f"{r.scale:g}",
            "tokens": f"{r.start:,}–{r.length:,}",
            "on the model": own_cell(signed, "gap")(r),
            "on the control": cell(signed, "again")(r),
            "move": cell(signed, "move")(r),
            "half of the gap's interval": value(r.half_width),
        }
        for r in rows_of(frame)
    ]
    text = "NLL of the tokens beyond L minus that of YaRN, both without training, in nats a token, paired by document"
    caption = captioned(
        text, frame, "A move as large as half of the gap's interval is as large as what the documents leave open."
    )
    sources = [
        [path for arm in (r.arm, r.control) for path in manifests_of(results, "zero_shot", arm)] for r in rows_of(frame)
    ]
    return [DisplayTable(caption, pd.DataFrame(lines), sources)]
