"""One row a model: does it reach the new length, against cutting the text, and what do short texts pay?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import (
    INTERVAL,
    Cell,
    DisplayTable,
    cell,
    duration,
    manifests_of,
    percent,
    rows_of,
    signed,
    windows,
    with_interval,
)
from yarnlab.results.estimates import (
    NotMeasured,
    context_gap,
    gap,
    nll,
    passkey_lengths,
    perplexity,
    present,
    retrieval,
)
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import head, named_arms
from yarnlab.results.statistics import Estimate


def tidy(results: Results) -> pd.DataFrame:
    """Numbers at L and at the new context, each with low and high; absent where they were not measured.

    cut: NLL of the tokens of the last doubling with all text minus that of the base with a window of L, in nats.
    short: perplexity at L over that of the base. seconds: of training, over all seeds.
    """
    extended, base, window = results.extension(), results.base(), results.original_context
    if extended is None or base is None:
        return pd.DataFrame()
    reached, tokens = round(extended.context), results.last_doubling()
    measured: dict[str, Callable[[str], Estimate]] = {
        "at_window": lambda arm: perplexity(nll(results, arm, window)),
        "at_context": lambda arm: perplexity(nll(results, arm, reached)),
        "short": lambda arm: gap(nll(results, arm, window), nll(results, base.arm, window)).map(math.exp, "ratio"),
        "cut": lambda arm: context_gap(results, arm, base.arm, tokens, tokens[1], window),
        "passkey_window": lambda arm: _passkey(results, arm, window),
        "passkey_context": lambda arm: _passkey(results, arm, reached),
    }
    rows = []
    for model, name in named_arms(results):
        row: dict[str, Any] = head(model, name) | {"context": reached, "steps": model.steps, "tokens": model.tokens}
        for column, estimate in measured.items():
            try:
                row |= estimate(model.arm).columns(column)
            except NotMeasured:
                row |= dict.fromkeys((column, f"{column}_low", f"{column}_high"), math.nan)
        made = [results.manifest(path) for path in manifests_of(results, "training", model.arm)]
        own = [float(manifest.get("seconds") or math.nan) for manifest in made]
        rows.append(row | {"seconds": sum(own) if model.kind == "finetune" else math.nan})
    return pd.DataFrame(rows)


@table(
    "The models side by side",
    tidy,
    needs=("manifests",),
    section="extension",
    place=10,
    per_base=True,
    forms=("extension",),
)
def extension(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """What each model came to at L and at the new context."""
    window, reached = results.original_context, int(frame["context"].iloc[0])
    low, high = (windows(n, window) for n in (window, reached))
    columns: dict[str, Cell] = {
        f"perplexity at {low}": cell(with_interval, "at_window"),
        "the same over the base’s": cell(with_interval, "short"),
        f"perplexity at {high}": cell(with_interval, "at_context"),
        "end of the text, against cutting it at L (nats)": cell(signed, "cut"),
        f"passkey up to {low}": cell(percent, "passkey_window"),
        f"passkey up to {high}": cell(percent, "passkey_context"),
        "training": lambda r: "–" if math.isnan(r.seconds) else f"{r.steps:,} steps, {duration(r.seconds)}",
    }
    shown = [{"model": r.label} | {name: text(r) for name, text in columns.items()} for r in rows_of(frame)]
    caption = (
        f"Perplexity of whole texts of {low} and {high} tokens; NLL of the last doubling with all text minus that of "
        f"the base with a window of {low} tokens, on the same tokens (below 0: better than cutting the text); passkeys "
        f"found over all tested lengths. {INTERVAL}."
    )
    measured = [kind for kind in ("perplexity", "context", "passkey") if kind in results.frames]
    sources = [[path for kind in measured for path in manifests_of(results, kind, arm)] for arm in frame["arm"]]
    return [DisplayTable(caption, pd.DataFrame(shown), sources)]


def _passkey(results: Results, arm: str, length: int) -> Estimate:
    present(results, "passkey")
    return retrieval(results, arm, passkey_lengths(results, results.arms()[arm], 0, length))
