"""Sliding-window perplexity of every arm: the official pooled value and the mean over documents.

Both are resampled by document, since windows of one document overlap. delta: ln perplexity minus that of YaRN from
the same base, paired by document.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.bases import tree_of
from yarnlab.results.display import (
    INTERVAL,
    DisplayTable,
    count,
    delta_cell,
    extended_of,
    manifests_of,
    perplexity_cell,
    rows_of,
    same_base,
)
from yarnlab.results.estimates import perplexity, sliding_gap, windows_measured, windows_of
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import difference, head, named_arms, numbers, with_base


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    present = set(results.frame("sliding_window")["arm"])
    for model, name in named_arms(results):
        if model.arm not in present:
            continue
        first = tree_of(results, model.arm).extended()
        own = windows_of(results, model.arm)
        for measure in ("windows pooled", "documents"):
            values, weights = windows_measured(own, measure)
            row = head(model, name) | {"measure": measure, "windows": int(own.count.sum())}
            row |= numbers("perplexity", perplexity(values, weights))
            if first is not None and first.arm in present and model.arm != first.arm:
                row |= difference(sliding_gap(results, model, first, measure))
            rows.append(row)
    return with_base(results, pd.DataFrame(rows))


@table("Sliding-window perplexity", tidy, needs=("sliding_window",), section="sliding-window", place=20)
def sliding_window(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """One row per model: pooled as the official code does, and by document; gaps to YaRN where there are any."""
    compared = frame.dropna(subset=["delta"]) if "delta" in frame else frame.head(0)
    against = extended_of(results, compared["arm"])
    yarn = against[0] if len(against) == 1 else "YaRN"
    rows = []
    for arm, own in frame.groupby("arm", sort=False):
        row = {name: own[column].iloc[0] for name, column in (("model", "label"), ("base", "base")) if column in own}
        for r in rows_of(own):
            row[f"{r.measure}: perplexity"] = perplexity_cell(r)
            if against:
                row[f"{r.measure}: gap to {yarn}"] = delta_cell(r)
        rows.append((row, manifests_of(results, "sliding_window", str(arm))))
    windows = int(frame["windows"].max())
    settings = results.evaluations["sliding_window"]
    caption = f"Windows of {settings['window']:,} tokens every {settings['stride']:,}, n = {count(frame)}, "
    caption += f"{windows:,} windows. Pooled: every window weighs the same, as in the official code, so that long "
    caption += "documents dominate; documents: every document weighs the same, every token in it too. "
    if against:
        caption += f"Gap: difference in ln perplexity to {' or '.join(against)}, paired by document (above 0: that is "
        caption += f"better).{same_base(frame)} "
    caption += f"{INTERVAL}, resampled by document."
    return [DisplayTable(caption, pd.DataFrame([row for row, _ in rows]), [sources for _, sources in rows])]
