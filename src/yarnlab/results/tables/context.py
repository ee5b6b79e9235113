"""The same tokens under several contexts: what a model makes of more context, and what cutting the text would give.

delta: NLL minus that of the same model with a window of L. cut: NLL minus that of the base with a window of L, which is
what a user has without any extension. Both in nats, on the same tokens, paired by document; below 0 is better.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import (
    INTERVAL,
    Cell,
    DisplayTable,
    cell,
    count,
    delta_cell,
    manifests_of,
    own_cell,
    rows_of,
    signed,
    windows,
    with_interval,
)
from yarnlab.results.estimates import NotMeasured, context_gap, context_nll, over_documents
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import head, named_arms, numbers


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
    """One row per model, stretch of tokens and context; `whole`: the context is all that precedes the tokens."""
    frame, base, window = results.frame("context"), results.base(), results.original_context
    stretches = set(frame[["segment_start", "segment_end"]].itertuples(index=False, name=None))
    rows: list[dict[str, Any]] = []
    for model, name in named_arms(results):
        own = frame.loc[frame["arm"] == model.arm, ["segment_start", "segment_end", "context"]].drop_duplicates()
        given = list(own.itertuples(index=False, name=None))
        for start, end in stretches if results.evaluations["context"].get("windows_only") else ():
            with suppress(NotMeasured):
                context_nll(results, model.arm, end, start, end)
                given.append((start, end, end))
        for start, end, context in sorted(given):
            row = head(model, name) | {"segment_start": start, "segment_end": end, "context": context}
            row |= {"whole": context >= end} | numbers(
                "nll", over_documents(context_nll(results, model.arm, context, start, end))
            )
            for column, arm in (("delta", model.arm), ("cut", base.arm if base else "")):
                if (model.arm, context) != (arm, window):
                    with suppress(NotMeasured):
                        row |= context_gap(results, model.arm, arm, (start, end), context, window).columns(column)
            rows.append(row)
    return pd.DataFrame(rows)


@table(
    "Same tokens, more context",
    tidy,
    needs=("context",),
    section="context",
    place=20,
    per_base=True,
    opened=2,
    caption="Later tokens of a text are easier whatever a model reads, so only the same tokens tell what context is "
    "worth. A window of c tokens shows each token between 3c/4 and c tokens.",
)
def context(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Against the base cut at L; against the same model's window of L; and the NLL themselves."""
    cut = f"a window of {windows(results.original_context, results.original_context)} tokens"
    paired_by = f"on the same tokens, in nats a token, paired by document, n = {count(frame)}. {INTERVAL}."
    sections = []
    if "cut" in frame:
        part = frame[frame["whole"] & frame["cut"].notna()]
        caption = f"NLL with all context minus NLL of the base with {cut}, which is what cutting the text gives, "
        caption += f"{paired_by} Below 0: better than cutting the text."
        sections.append(_shown(results, caption, part, cell(signed, "cut")))
    if "delta" in frame:
        caption = f"NLL with more context minus NLL of the same model with {cut}, {paired_by} Below 0: context helps."
        sections.append(_shown(results, caption, frame[frame["delta"].notna()], delta_cell))
    caption = f"NLL in nats a token under each context, n = {count(frame)}. {INTERVAL}. The base with {cut} is the "
    caption += "text cut at L."
    return [*sections, _shown(results, caption, frame, own_cell(with_interval, "nll"))]


def _shown(results: Results, caption: str, frame: pd.DataFrame, cell: Cell) -> DisplayTable:
    """Models and contexts down, all that precedes first; stretches of tokens across."""
    stretches = sorted({(r.segment_start, r.segment_end) for r in rows_of(frame)})
    cells: dict[tuple[str, str, str], dict[tuple[int, int], str]] = {}
    for r in rows_of(frame.sort_values("whole", ascending=False, kind="stable")):
        given = "all" if r.whole else windows(r.context, results.original_context)
        cells.setdefault((r.arm, r.label, given), {})[r.segment_start, r.segment_end] = cell(r)
    order = list(frame["arm"].drop_duplicates())
    rows = sorted(cells, key=lambda row: order.index(row[0]))
    shown = [
        {"model": label, "context": given}
        | {f"{start:,}–{end:,}": cells[arm, label, given].get((start, end), "–") for start, end in stretches}
        for arm, label, given in rows
    ]
    return DisplayTable(caption, pd.DataFrame(shown), [manifests_of(results, "context", arm) for arm, _, _ in rows])
