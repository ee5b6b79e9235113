"""Every other arm's passkey accuracy minus that of YaRN from the same base on the same prompts, by length.

p: of `test`, McNemar's exact one for one seed; p_holm: corrected over all comparisons of the table.
"""

from __future__ import annotations

from functools import lru_cache

from yarnlab.lazy import pd
from yarnlab.results.bases import tree_of
from yarnlab.results.display import (
    INTERVAL,
    DisplayTable,
    by_length,
    count,
    extended_of,
    mark_note,
    marked,
    percent_points,
    rows_of,
    same_base,
)
from yarnlab.results.estimates import NotMeasured, paired_hits
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import head, named_arms, numbers, with_base, with_holm
from yarnlab.results.statistics import mcnemar, paired_difference_of_proportions


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
    frame, rows = results.frame("passkey"), []
    for model, name in named_arms(results):
        first = tree_of(results, model.arm).extended()
        if first is None or model.arm == first.arm:
            continue
        for length in sorted(frame.loc[frame["arm"] == model.arm, "length"].unique()):
            try:
                own, reference = paired_hits(results, model.arm, first.arm, [int(length)])
            except NotMeasured:
                continue
            row = head(model, name) | {"length": int(length)}
            row |= numbers("delta", paired_difference_of_proportions(own, reference))
            rows.append(row | mcnemar(own, reference).columns())
    return with_base(results, with_holm(pd.DataFrame(rows)))


@table(
    "Passkey retrieval beside YaRN's",
    tidy,
    needs=("passkey",),
    section="passkey",
    place=30,
    fold="Every model beside YaRN, on the same prompts",
)
def passkey_comparison(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Differences to YaRN, arms by prompt length."""
    if frame.empty:
        return []
    cells = {(r.label, r.length): marked(percent_points(r.delta, r.low, r.high), r.p_holm) for r in rows_of(frame)}
    against = " or ".join(extended_of(results, frame["arm"]))
    caption = f"Passkey accuracy minus that of {against} on the same prompts, in percentage points (below 0: that is "
    caption += f"better), n = {count(frame)} a cell. {INTERVAL} (Newcombe, paired). "
    caption += mark_note(frame, " or ".join(frame["test"].unique())) + same_base(frame)
    return [by_length(results, "passkey", caption, frame, cells)]
