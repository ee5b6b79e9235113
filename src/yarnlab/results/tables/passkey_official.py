"""Accuracy under the official prompt by length, beside the teacher-forced one at the same length.

delta: official minus teacher-forced, over the seeds that both have, on different trials. p: of `test`, Fisher's
exact one for one seed; p_holm: corrected over the table.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import (
    INTERVAL,
    DisplayTable,
    by_length,
    cell,
    count,
    extent,
    manifests_of,
    mark_note,
    own_cell,
    percent,
    percent_points,
    rows_of,
    tested,
)
from yarnlab.results.estimates import accuracy_of, hit_tables
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import difference, head, named_arms, numbers, with_base, with_holm
from yarnlab.results.statistics import difference_of_proportions, fisher

FOUND = 0.8  # a window counts as usable from this passkey accuracy on (caption of the paper's Table 5)


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
    tables, other = hit_tables(results, "passkey_official"), {}
    if results.has("passkey"):
        other = hit_tables(results, "passkey")
    rows = []
    for model, name in named_arms(results):
        for length in sorted(length for arm, length in tables if arm == model.arm):
            own = tables[model.arm, length]
            row = head(model, name) | {"length": int(length)} | numbers("accuracy", accuracy_of(own))
            forced = other.get((model.arm, length))
            if forced is not None and len(seeds := own.index.intersection(forced.index)):
                row |= _protocols(own.loc[seeds], forced.loc[seeds])
            rows.append(row)
    return with_base(results, with_holm(pd.DataFrame(rows)))


def _protocols(hits: pd.DataFrame, forced: pd.DataFrame) -> dict[str, Any]:
    """Teacher-forced accuracy and what the official one is above it, from hits of the same seeds (seeds x trials)."""
    own, other = accuracy_of(hits), accuracy_of(forced)
    row = other.columns("teacher_forced") | {"teacher_forced_n": other.n}
    return (
        row | difference(difference_of_proportions(own, other)) | fisher(hits.to_numpy(), forced.to_numpy()).columns()
    )


def passkey_context(results: Results) -> pd.DataFrame:
    """The paper's summary: the longest length with at least 80 % accuracy, and the accuracy up to it."""
    tables, rows = hit_tables(results, "passkey_official"), []
    for model, name in named_arms(results):
        own = {length: table for (arm, length), table in tables.items() if arm == model.arm}
        if not own:
            continue
        context = max((n for n, hits in own.items() if hits.to_numpy().mean() >= FOUND), default=0)
        row: dict[str, Any] = {"arm": model.arm, "label": name, "context": int(context)}
        row |= {"accuracy": math.nan, "low": math.nan, "high": math.nan, "n": 0, "over": "trials"}
        if context:
            upto = pd.concat({n: hits for n, hits in own.items() if n <= context}, axis=1, join="inner")
            row |= numbers("accuracy", accuracy_of(upto))
        rows.append(row)
    return pd.DataFrame(rows)


@table(
    "Passkey retrieval under the official prompt",
    tidy,
    needs=("passkey_official", "passkey"),
    section="passkey-official",
    place=20,
    opened=2,
)
def passkey_official(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Accuracy by length; the paper's summary; and how far the two protocols agree."""
    caption = f"Accuracy under the official prompt of N tokens, n = {count(frame)} a cell. {INTERVAL} (Wilson)."
    sections = [by_length(results, "passkey_official", caption, frame, own_cell(percent, "accuracy"))]
    summary = passkey_context(results)
    rows = [
        {
            "model": r.label,
            "passkey context": f"{r.context:,}" if r.context else "none",
            "accuracy up to it": percent(r.accuracy, r.low, r.high) if r.n else "–",
        }
        for r in rows_of(summary)
    ]
    caption = f"Passkey context: the longest tested length with accuracy of at least {100 * FOUND:.0f} %; accuracy: "
    caption += f"over all tested lengths up to it (the paper's Table 5), n = {extent(summary['n'])} trials. {INTERVAL}."
    sources = [manifests_of(results, "passkey_official", arm) for arm in summary["arm"]]
    sections.append(DisplayTable(caption, pd.DataFrame(rows), sources))
    if "p" in frame and frame["p"].notna().any():
        both = frame.dropna(subset=["p"])
        caption = "Accuracy under the official prompt minus that of teacher-forced trials of the same length (other "
        caption += f"prompts), in percentage points, n = {count(both)} and {extent(both['teacher_forced_n'])}. "
        caption += f"{INTERVAL} (Newcombe). {mark_note(both, ' or '.join(both['test'].unique()))}"
        sections.append(by_length(results, "passkey_official", caption, both, tested(cell(percent_points, "delta"))))
    return sections
