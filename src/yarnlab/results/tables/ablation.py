"""Arms of the ablation and the base: perplexity, its gap to YaRN paired by document, passkey at sL.

An arm that was not fine-tuned like that YaRN arm has no gap. p: sign-flip test of the gap; p_holm: corrected over
all gaps of the table.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.bases import compared_with
from yarnlab.results.display import (
    DisplayTable,
    by_length,
    captioned,
    delta_cell,
    manifests_of,
    mark_note,
    percent,
    perplexity_cell,
    rows_of,
    tested,
)
from yarnlab.results.estimates import NotMeasured, gap, nll, paired, perplexity, retrieval, tested_by_document
from yarnlab.results.registry import PAPER, table
from yarnlab.results.results import Model, Results
from yarnlab.results.rows import difference, head, numbers, with_holm
from yarnlab.results.style import labels


def ablation_lengths(results: Results) -> list[int]:
    """L, sL/4, sL and 1.5 sL of the ablation's scale (L, 4L, 16L, 24L at s=16), as far as measured."""
    first = compared_with(results)
    if first is None:
        return []
    window, full = results.original_context, int(first.scale * results.original_context)
    present = set(results.frame("perplexity")["length"])
    return [n for n in sorted({window, full // 4, full, full * 3 // 2}) if n in present]


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    first, base = compared_with(results), results.base()
    if first is None or base is None:
        return pd.DataFrame(rows)
    full = int(first.scale * results.original_context)
    names = labels(results)
    for model in [*results.ablation(), base]:
        for length in ablation_lengths(results):
            try:
                own = nll(results, model.arm, length)
                row = head(model, names[model.arm]) | {"length": length}
                row |= numbers("perplexity", perplexity(own))
                rows.append(row)
            except NotMeasured:
                continue
            if model.arm != first.arm and (model == base or results.alike(model, first)):
                try:
                    reference = nll(results, first.arm, length)
                    row |= difference(gap(own, reference)) | tested_by_document(paired(own, reference)).columns()
                except NotMeasured:
                    pass
            if length == full:
                row |= _passkey_at(results, model, full)
    return with_holm(pd.DataFrame(rows))


def _passkey_at(results: Results, model: Model, length: int) -> dict[str, Any]:
    try:
        e = retrieval(results, model.arm, [length])
    except NotMeasured:
        return {}
    return e.columns("passkey") | {"passkey_n": e.n}


@table(
    "What each part of YaRN contributes, at equal budget",
    tidy,
    needs=("perplexity", "passkey"),
    section="ablation",
    forms=PAPER,
    place=20,
    per_base=True,
    opened=2,
)
def ablation(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Perplexity and passkey; then the paired gaps to YaRN."""
    caption = captioned("Perplexity of the ablation's arms and the base at N tokens", frame)
    first = by_length(results, "perplexity", caption, frame, perplexity_cell)
    if "passkey" in frame:
        found = frame.dropna(subset=["passkey"])
        if not found.empty:
            scores = {r.label: percent(r.passkey, r.passkey_low, r.passkey_high) for r in rows_of(found)}
            column = f"passkey at {int(found['length'].iloc[0]):,}"
            first.frame[column] = [scores.get(label, "–") for label in first.frame["model"]]
            caption += f" Passkey accuracy with Wilson intervals, n = {int(found['passkey_n'].min()):,} trials."
            for sources, arm in zip(first.sources, frame["arm"].unique(), strict=True):
                sources += manifests_of(results, "passkey", arm)
            first = DisplayTable(caption, first.frame, first.sources)
    against = compared_with(results)
    if "delta" not in frame or against is None:
        return [first]
    others = frame.dropna(subset=["delta"])
    text = f"Gap to {labels(results)[against.arm]} in ln perplexity at N tokens, paired by document (above 0: that is "
    caption = captioned(f"{text}better)", others, mark_note(others, "the sign-flip test"))
    return [first, by_length(results, "perplexity", caption, others, tested(delta_cell))]
