"""The paper's tables with our numbers beside the published ones, laid out as in the paper.

Every table has a tidy form, a row for each published number (`verdict_table`) or curve (`curve_table`), and a displayed
one: models down, lengths, tasks or quantities across, and for each of them the published number and ours with its
interval, n and verdict. A cell without a number of ours says why in the tidy form and 'not run' in the displayed one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import INTERVAL, DisplayTable, count, extent, manifests_of, rows_of, value, with_interval
from yarnlab.results.published.counterpart import command_for, counterpart_of
from yarnlab.results.published.data import Cell, load_reference
from yarnlab.results.published.ours import STRICT
from yarnlab.results.published.verdict import (
    DIFFERS,
    NOT_COMPARABLE,
    NOT_EXCLUDED,
    NOT_RUN,
    REPRODUCED,
    VERDICTS,
    Verdict,
    grade_artifact,
    grade_curve,
)
from yarnlab.results.registry import Build
from yarnlab.results.results import Results
from yarnlab.results.style import METHOD_LABELS, method_label

SHARE = 0.95  # of the points of a curve that have to be reproduced for the curve to be
# Of both tidy forms: our number, how far it is from the published one, and the verdict.
OURS = ("our_model", "our_x", "ours", "low", "high", "n", "over", "interval", "manifest",
        "difference", "relative", "tolerance", "tolerance_reason", "verdict", "reason")  # fmt: skip
COLUMNS = ("cell", "artifact", "version", "model", "label", "method", "scale", "protocol", "metric", "unit", "x",
           "printed", "published", "published_low", "published_high", "rounding", *OURS,
           "orders_kept", "orders_reversed", "orders_open", "command", "source", "exact_source", "note")  # fmt: skip
CURVE_COLUMNS = ("curve", "artifact", "version", "model", "method", "scale", "metric", "unit", "points", "blank",
                 "our_model", "measured", "n_least", "n_most", "compared", "within", "largest",
                 "verdict", "reason", "source", "note")  # fmt: skip

# How the columns of a displayed table are called: by metric or protocol, else by length.
HEADINGS = {
    "arc-challenge": "ARC-c",
    "hellaswag": "HellaSwag",
    "mmlu": "MMLU",
    "truthfulqa": "TruthfulQA",
    "trained_tokens": "trained tokens",
    "training_data_context": "training context",
    "passkey_context": "passkey context",
    "passkey_accuracy": "passkey accuracy",
    "gpu_hours": "GPU-hours",
}
NOT_AS_PRINTED = ("truncated", "misprint")
QUANTITIES = {
    "alpha": "α",
    "beta": "β",
    "temperature_slope": "√(1/t) by ln s",
    "attention_factor": "√(1/t)",
    "lr": "learning rate",
    "beta1": "AdamW β1",
    "beta2": "AdamW β2",
    "global_batch": "rows a step",
    "seq_len": "row length",
    "ntk_scale": "s of NTK-aware",
    "ntk_context": "s·L of NTK-aware",
    "mean_drop": "mean score drop from s=16 to s=32",
    "pretraining_share": "share of pre-training tokens",
    "token_reduction": "fewer tokens than Code Llama",
    "step_reduction": "fewer steps than Chen et al.",
}
XS = {"ntk_scale": "base", "ntk_context": "base"}
LEGEND = (
    "Ours is reproduced when its whole interval is within the tolerance of the rule in docs/deviations.md, differs "
    "when the whole is outside, contradicted when an order of the paper's table is reversed as well, and not excluded "
    "when the interval is too wide to tell"
)
ANALOGUE = (
    "Analogues (same method and s, at the same multiple of L) are not comparable in value; the length named is its own"
)


def verdict_table(results: Results, *artifacts: str) -> pd.DataFrame:
    """The published cells of these tables, figures or sections, or all of them, in the paper's order.

    published_low, published_high: what the published number can have been. our_x: the length in tokens that ours was
    measured at, or up to; it is the study's own, whatever the published one is.
    difference and tolerance are in `unit`; the tolerance is counted from the end of the published range.
    manifest: that of ours (the first, for several seeds).
    """
    wanted = artifacts or load_reference().artifacts
    rows = [_row(results, verdict) for name in wanted for verdict in grade_artifact(results, name)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(results: Results, verdict: Verdict) -> dict[str, Any]:
    cell, orders = verdict.cell, verdict.orders
    assert isinstance(cell, Cell)
    published = load_reference().model_of(cell)
    low, high = cell.range
    row = dict(cell) | _ours(verdict)
    row |= {"label": published.label if published else "YaRN"}
    row |= {"published": cell.target, "published_low": low, "published_high": high}
    row |= {"orders_kept": len(orders.kept), "orders_reversed": len(orders.reversed), "orders_open": len(orders.open)}
    return row | {"command": command_for(results, cell) if verdict.verdict == NOT_RUN else ""}


def _ours(verdict: Verdict) -> dict[str, Any]:
    """The columns OURS."""
    row: dict[str, Any] = dict.fromkeys(OURS)
    if verdict.ours is not None:
        found, e = verdict.ours, verdict.ours.estimate
        row |= {"ours": e.value, "low": e.low, "high": e.high, "n": e.n, "over": e.over, "interval": e.method}
        row |= {"our_x": found.length, "manifest": found.sources[0] if found.sources else None}
        row["our_model"] = found.counterpart.model.arm if found.counterpart is not None else None
    if verdict.tolerance is not None:
        row |= {"tolerance": verdict.tolerance.amount, "tolerance_reason": verdict.tolerance.reason}
    row |= {"difference": verdict.difference, "relative": verdict.relative}
    return row | {"verdict": verdict.verdict, "reason": verdict.reason}


def count_table(results: Results) -> pd.DataFrame:
    """How many cells of each table, figure or section have each verdict, and all of them together."""
    table = verdict_table(results)
    parts = dict(iter(table.groupby("artifact", sort=False))) | {"all": table}
    counted = {name: {v: int((part["verdict"] == v).sum()) for v in VERDICTS} for name, part in parts.items()}
    return pd.DataFrame([{"artifact": name, "cells": len(parts[name])} | of for name, of in counted.items()])


@lru_cache(maxsize=16)
def overlay(results: Results, *artifacts: str) -> pd.DataFrame:
    """The published points of these figures with ours beside them; NaN where this study has none.

    Columns: the fields of `Point`, the columns OURS, x_in_L (lengths only), and whether a number of ours is comparable.
    Cached: do not change it in place.
    """
    reference = load_reference()
    curves = [curve for curve in reference.curves if curve.artifact in artifacts]
    rows = [dict(verdict.cell) | _ours(verdict) for curve in curves for verdict in grade_curve(results, curve)]
    frame = pd.DataFrame(rows)
    context = frame["model"].map({name: model.original_context for name, model in reference.models.items()})
    return frame.assign(
        x_in_L=frame["x"].where(frame["x_unit"] == "tokens") / context,
        comparable=~frame["verdict"].isin([NOT_RUN, NOT_COMPARABLE]),
    )


def curve_table(results: Results) -> pd.DataFrame:
    """One row a published curve: points, how many of them this study measured, how many are within tolerance.

    A curve is reproduced when SHARE of its comparable points are, and differs when more than the rest do. n_least,
    n_most: documents (steps of a loss) behind a measured point. largest: the largest relative difference of a compared
    point. blank: points without a value in the authors' file.
    """
    reference = load_reference()
    frame = overlay(results, *dict.fromkeys(curve.artifact for curve in reference.curves))
    compared = frame["comparable"] & frame["target"].notna()
    columns = {
        "measured": frame["ours"].notna(),
        "compared": compared,
        "within": compared & (frame["verdict"] == REPRODUCED),
        "apart": compared & (frame["verdict"] == DIFFERS),
        "largest": (frame["difference"] / frame["target"]).abs().where(compared),
    }
    found = frame.assign(**columns).groupby("curve", sort=False)
    table = pd.DataFrame([dict(curve) for curve in reference.curves]).set_index("curve", drop=False)
    models = [counterpart_of(results, reference.models[name]) for name in table["model"]]
    table["our_model"] = [model.model.arm if model else None for model in models]
    table[["measured", "compared", "within"]] = found[["measured", "compared", "within"]].sum()
    table["n_least"], table["n_most"], table["largest"] = found["n"].min(), found["n"].max(), found["largest"].max()
    table["reason"] = found["reason"].agg(lambda reasons: next((text for text in reasons if text), ""))
    table["verdict"] = REPRODUCED
    table.loc[table["within"] < SHARE * table["compared"], "verdict"] = NOT_EXCLUDED
    apart = found["apart"].sum()
    table.loc[apart > (1 - SHARE) * table["compared"], "verdict"] = DIFFERS
    table.loc[table["compared"] == 0, "verdict"] = NOT_COMPARABLE
    table.loc[table["measured"] == 0, "verdict"] = NOT_RUN
    return table[list(CURVE_COLUMNS)].reset_index(drop=True)


def counts(results: Results) -> tuple[pd.DataFrame, list[DisplayTable]]:
    """Every published cell; shown is how many have each verdict."""
    frame, shown = verdict_table(results), count_table(results)
    used = frame.dropna(subset=["manifest"]).groupby("artifact")["manifest"].unique()
    sources = [list(used.get(name, ())) for name in shown["artifact"]]  # none for the sum over all of them
    caption = f"Published numbers by verdict: {len(frame)} cells. {LEGEND}"
    return frame, [DisplayTable(caption, shown.astype(str), sources)]


def curves(results: Results) -> tuple[pd.DataFrame, list[DisplayTable]]:
    """Every published curve."""
    frame, reference = curve_table(results), load_reference()
    rows = [
        {
            "figure": row.artifact,
            "curve": row.curve.partition(".")[2],
            "points": f"{row.points:,}",
            "ours": f"{row.measured:,}" if row.measured else NOT_RUN,
            "n a point": "–" if pd.isna(row.n_least) else extent((row.n_least, row.n_most)),
            "within tolerance": f"{row.within:,} of {row.compared:,}" if row.compared else "–",
            "largest relative difference": "–" if pd.isna(row.largest) else f"{100 * row.largest:.1f} %",
            "verdict": row.verdict,
        }
        for row in rows_of(frame)
    ]
    kinds = {curve.curve: reference.kind_of(curve) for curve in reference.curves}
    sources = [manifests_of(results, kinds[row.curve], row.our_model) if row.measured else [] for row in rows_of(frame)]
    caption = f"Published curves beside ours: {int(frame['points'].sum()):,} points. {LEGEND}"
    return frame, [DisplayTable(caption, pd.DataFrame(rows), sources)]


def cells(*artifacts: str, models: tuple[str, ...] = ()) -> Build:
    """A table of these artifacts (and of these models only): one section for each, both numbers side by side."""

    def build(results: Results) -> tuple[pd.DataFrame, list[DisplayTable]]:
        frame = verdict_table(results, *artifacts)
        frame = frame[frame["model"].isin(models)].reset_index(drop=True) if models else frame
        return frame, [_section(str(name), part) for name, part in frame.groupby("artifact", sort=False)]

    return build


def values(*artifacts: str) -> Build:
    """A table of these sections and equations, one row a number: for values that make no grid."""

    def build(results: Results) -> tuple[pd.DataFrame, list[DisplayTable]]:
        frame = verdict_table(results, *artifacts)
        rows = [
            {
                "where": row.artifact,
                "quantity": _quantity(row),
                "model": row.label,
                "published": printed_text(row),
                "ours": our_text(row),
                "n": f"{int(row.n):,} {row.over}" if _sampled(row) else "–",
            }
            for row in rows_of(frame)
        ]
        sources = [[path] if isinstance(path, str) else [] for path in frame["manifest"]]
        caption = f"Published values and ours. {LEGEND}. {INTERVAL}."
        return frame, [DisplayTable(caption, pd.DataFrame(rows), sources)]

    return build


def _section(name: str, part: pd.DataFrame) -> DisplayTable:
    columns = list(dict.fromkeys(_column(row) for row in rows_of(part)))
    rows: dict[str, dict[str, str]] = {}
    sources: dict[str, list[str]] = {}
    for row in rows_of(part):
        label, column = _label(row), _column(row)
        line = rows.setdefault(label, {"model": label})
        line[f"{column} published"], line[f"{column} ours"] = printed_text(row), our_text(row)
        sources.setdefault(label, [])
        if isinstance(row.manifest, str) and row.manifest not in sources[label]:
            sources[label].append(row.manifest)
    wide = ["model", *(f"{column} {which}" for column in columns for which in ("published", "ours"))]
    shown = pd.DataFrame(list(rows.values()), columns=wide).fillna("–")
    by_verdict = ", ".join(f"{n} {v}" for v in VERDICTS if (n := int((part["verdict"] == v).sum())))
    caption = f"{name} of the paper and ours: {by_verdict}. {LEGEND}{_certainty(part)}"
    if part["reason"].str.contains(STRICT, regex=False).any():
        caption += f". Ours is {STRICT}"
    if part["reason"].str.contains("analogue").any():
        caption += f". {ANALOGUE}"
    if part["rounding"].isin(NOT_AS_PRINTED).any():
        caption += ". In brackets the authors' raw number where the printed one is cut or a misprint"
    return DisplayTable(caption + ".", shown, list(sources.values()))


def printed_text(row: Any) -> str:
    """What the paper prints, with the raw number where that is cut or a misprint: '3.30 [3.605]'."""
    raw = row.rounding in NOT_AS_PRINTED and not pd.isna(row.published)
    return f"{row.printed} [{value(float(row.published), 4)}]" if raw else str(row.printed)


def our_text(row: Any) -> str:
    """Our number with its interval and verdict: '3.53 [3.1, 4.0] reproduced', '19.3 at 512 (analogue)', 'not run'.

    The length is ours, and named where it is not the published one.
    """
    if row.verdict == NOT_RUN or pd.isna(row.ours):
        return NOT_RUN
    short = row.unit != "tokens" and row.protocol in ("setting", "formula", "derived")
    text = f"{row.ours:g}" if short else value(float(row.ours))
    if _sampled(row):
        text = with_interval(float(row.ours), float(row.low), float(row.high))
    named = row.ours if pd.isna(row.x) else row.x
    if not pd.isna(row.our_x) and row.our_x != named:
        text += f" {'up to' if row.metric == 'passkey_accuracy' else 'at'} {int(row.our_x):,}"
    if row.verdict != NOT_COMPARABLE:
        return f"{text} {row.verdict}"
    return f"{text} ({'analogue' if 'analogue' in row.reason else NOT_COMPARABLE})"


def _sampled(row: Any) -> bool:
    """Is there an interval? A setting, a sum of tokens or a standard error has none."""
    return not pd.isna(row.ours) and row.low < row.high


def _certainty(part: pd.DataFrame) -> str:
    """What the caption says of our intervals: '. Ours: n = 10 documents; 95 % intervals in brackets'."""
    sampled = part[[_sampled(row) for row in rows_of(part)]]
    if sampled.empty:
        return ""
    of_each = ", ".join(count(own) for _, own in sampled.groupby("over", sort=False))
    return f". Ours: n = {of_each}; {INTERVAL}"


def _label(row: Any) -> str:
    """'YaRN 7B s=16'; for a base under another rope its method and scale too."""
    if row.protocol == "proof-pile-zero-shot":
        return f"{row.label}, {method_label(row.method)} s={row.scale:g}, no fine-tuning"
    if row.protocol == "proof-pile-dynamic":
        method = METHOD_LABELS.get(row.method, "Dynamic " + METHOD_LABELS.get(row.method.removeprefix("dynamic-"), ""))
        return f"{row.label}, {method}, no fine-tuning"
    return str(row.label)


def _column(row: Any) -> str:
    if row.metric in HEADINGS:
        return HEADINGS[row.metric]
    if row.protocol in HEADINGS:
        return HEADINGS[row.protocol] if row.unit == "percent" else f"{HEADINGS[row.protocol]} {row.metric}"
    return f"{int(row.x):,}" if not pd.isna(row.x) else str(row.metric)


def _quantity(row: Any) -> str:
    name = QUANTITIES.get(row.metric, str(row.metric).replace("_", " "))
    at = "" if pd.isna(row.x) else f" at {XS.get(row.metric, 's')} = {row.x:,.0f}"
    return f"{name}{at}" if row.unit == "1" or row.unit in name else f"{name}{at} ({row.unit})"
