"""One row a model: does it reach the new length, against cutting the text, and what do short texts pay?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import (
    INTERVAL,
    DisplayTable,
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
    context_nll,
    gap,
    nll,
    over_documents,
    paired,
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
    reached = round(extended.context)
    measured: dict[str, Callable[[str], Estimate]] = {
        "at_window": lambda arm: perplexity(nll(results, arm, window)),
        "at_context": lambda arm: perplexity(nll(results, arm, reached)),
        "short": lambda arm: gap(nll(results, arm, window), nll(results, base.arm, window)).map(math.exp, "ratio"),
        "cut": lambda arm: _against_cut(results, arm, base.arm),
        "passkey_window": lambda arm: _passkey(results, arm, window),
        "passkey_context": lambda arm: _passkey(results, arm, reached),
    }
    seconds = {manifest["path"]: float(manifest.get("seconds") or math.nan) for manifest in results.manifests}
    rows = []
    for model, name in named_arms(results):
        row: dict[str, Any] = head(model, name) | {"context": reached, "steps": model.steps, "tokens": model.tokens}
        for column, estimate in measured.items():
            try:
                row |= estimate(model.arm).columns(column)
            except NotMeasured:
                row |= dict.fromkeys((column, f"{column}_low", f"{column}_high"), math.nan)
        own = [seconds.get(path, math.nan) for path in manifests_of(results, "training", model.arm)]
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
    columns = {
        f"perplexity at {low}": lambda r: with_interval(r.at_window, r.at_window_low, r.at_window_high),
        "the same over the base’s": lambda r: with_interval(r.short, r.short_low, r.short_high),
        f"perplexity at {high}": lambda r: with_interval(r.at_context, r.at_context_low, r.at_context_high),
        "end of the text, against cutting it at L (nats)": lambda r: signed(r.cut, r.cut_low, r.cut_high),
        f"passkey up to {low}": lambda r: percent(r.passkey_window, r.passkey_window_low, r.passkey_window_high),
        f"passkey up to {high}": lambda r: percent(r.passkey_context, r.passkey_context_low, r.passkey_context_high),
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


def _against_cut(results: Results, arm: str, base: str) -> Estimate:
    tokens, window = results.last_doubling(), results.original_context
    whole, cut = context_nll(results, arm, tokens[1], *tokens), context_nll(results, base, window, *tokens)
    return over_documents(paired(whole, cut), unit="nats per token")


def _passkey(results: Results, arm: str, length: int) -> Estimate:
    present(results, "passkey")
    return retrieval(results, arm, passkey_lengths(results, results.arms()[arm], 0, length))
