"""Tidy tables laid out for reading: wide, as strings, with n in the caption and each row's source files."""

from __future__ import annotations

import math
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import (
    INTERVAL,
    DisplayTable,
    base_manifests,
    by_length,
    count,
    duration,
    extended_of,
    manifests_of,
    mark_note,
    marked,
    percent,
    percent_points,
    rows_of,
    same_base,
    signed,
    value,
    with_interval,
)
from yarnlab.results.results import Results
from yarnlab.results.style import labels, method_label
from yarnlab.results.tables.tidy import compared_with


def perplexity(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Arms by window length, once for the whole window and once for its last bucket."""
    texts = {
        "cumulative": "Perplexity of the whole window of N tokens",
        "last bucket": "Perplexity of the last bucket of a window of N tokens",
    }
    sections = []
    for measure, text in texts.items():
        part = frame[frame["measure"] == measure]
        cells = {(row.label, row.length): with_interval(row.perplexity, row.low, row.high) for row in rows_of(part)}
        caption = f"{text}: geometric mean over documents, n = {count(part)}. {INTERVAL}."
        sections.append(by_length(results, "perplexity", caption, part, cells))
    return sections


def ablation(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Perplexity and passkey; then the paired gaps to YaRN."""
    cells = {(r.label, r.length): with_interval(r.perplexity, r.low, r.high) for r in rows_of(frame)}
    caption = f"Perplexity of the ablation's arms and the base at N tokens, n = {count(frame)}. {INTERVAL}."
    first = by_length(results, "perplexity", caption, frame, cells)
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
    cells = {(r.label, r.length): marked(signed(r.delta, r.delta_low, r.delta_high), r.p_holm) for r in rows_of(others)}
    caption = f"Gap to {labels(results)[against.arm]} in ln perplexity at N tokens, paired by document (above 0: that "
    caption += "is better), "
    caption += f"n = {count(others)}. {INTERVAL}. {mark_note(others, 'the sign-flip test')}"
    return [first, by_length(results, "perplexity", caption, others, cells)]


def zero_shot(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """At N = sL: method by scale, with tested gaps to YaRN; then for each scale method by length."""
    sources = base_manifests(results, "zero_shot")
    sections = []
    full = frame[frame["at_full_window"]]
    if not full.empty:
        cells = {(r.method, r.scale): with_interval(r.perplexity, r.low, r.high) for r in rows_of(full)}
        caption = f"Perplexity at N = sL without fine-tuning, n = {count(full)}. {INTERVAL}."
        sections.append(_by_scale(caption, full, cells, sources))
    if "delta" in full and full["delta"].notna().any():
        others = full.dropna(subset=["delta"])
        cells = {
            (r.method, r.scale): marked(signed(r.delta, r.delta_low, r.delta_high), r.p_holm) for r in rows_of(others)
        }
        caption = "Gap to YaRN at the same s in ln perplexity at N = sL, both without fine-tuning, paired by document "
        caption += "(above 0: YaRN is better), "
        caption += f"n = {count(others)}. {INTERVAL}. {mark_note(others, 'the sign-flip test')}"
        sections.append(_by_scale(caption, others, cells, sources))
    for scale in sorted(frame["scale"].unique()):
        part = frame[frame["scale"] == scale]
        cells = {(r.method, r.length): with_interval(r.perplexity, r.low, r.high) for r in rows_of(part)}
        lengths = sorted(part["length"].unique())
        rows = [
            {"method": method_label(m)} | {f"{n:,}": cells.get((m, n), "–") for n in lengths}
            for m in part["method"].unique()
        ]
        caption = f"Perplexity at N tokens without fine-tuning, s = {scale:g}, n = {count(part)}. {INTERVAL}."
        sections.append(DisplayTable(caption, pd.DataFrame(rows), [list(sources) for _ in rows]))
    return sections


def passkey(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Accuracy over all depths, arms by prompt length; then what is continuous where that is 0 or 1."""
    overall = frame[(frame["depth_low"] == 0) & (frame["depth_high"] == 1)]
    cells = {(r.label, r.length): percent(r.accuracy, r.low, r.high) for r in rows_of(overall)}
    caption = f"Passkey accuracy at prompts of N tokens, n = {count(overall)} a cell. {INTERVAL} (Wilson)."
    sections = [by_length(results, "passkey", caption, overall, cells)]
    cells = {(r.label, r.length): percent(r.expected, r.expected_low, r.expected_high) for r in rows_of(overall)}
    caption = "Expected accuracy at prompts of N tokens: the probability that sampling as the released checkpoints do "
    caption += f"gives the key and no digit more, mean over n = {count(overall)} a cell. {INTERVAL} (bootstrap)."
    sections.append(by_length(results, "passkey", caption, overall, cells))
    cells = {(r.label, r.length): signed(r.margin, r.margin_low, r.margin_high) for r in rows_of(overall)}
    caption = "Margin at prompts of N tokens: by how many nats the key's least certain token leads its best rival, "
    caption += f"median over n = {count(overall)} a cell (below 0: at least half of the keys are missed). {INTERVAL} "
    caption += "(bootstrap)."
    sections.append(by_length(results, "passkey", caption, overall, cells))
    return sections


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


def training(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """One row per trained model."""
    rows = [
        {
            "model": r.model,
            "row length": "–" if pd.isna(r.row_length) else f"{int(r.row_length):,}",
            "steps": f"{r.steps:,}",
            "tokens": f"{value(r.tokens / 1e6)} M",
            "time": duration(r.seconds),
            "tokens/s": value(r.tokens_per_second, 4),
            "MFU (causal)": percent(r.mfu_causal),
            "MFU (PaLM)": percent(r.mfu_palm),
            "peak memory": f"{r.peak_memory_gib:.2f} GiB",
            "final loss": _final(r, "loss"),
            "text": _final(r, "text_loss"),
            "answers": _final(r, "answer_loss"),
        }
        for r in rows_of(frame)
    ]
    steps = int(frame["averaged_steps"].min()) if len(frame) else 0
    caption = f"Training by model. Losses: nats/token, mean of the last {steps} steps, resampled by step. Speed: "
    caption += f"median step. {INTERVAL}."
    return [DisplayTable(caption, pd.DataFrame(rows), [[f"models/{m}/manifest.json"] for m in frame["model"]])]


def cost(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """One row per stage and name, and their sum."""
    rows: list[dict[str, Any]] = [
        {
            "stage": r.stage,
            "name": r.name_,
            "wall time": duration(r.seconds),
            "peak memory": "–" if pd.isna(r.peak_memory_gib) else f"{r.peak_memory_gib:.2f} GiB",
        }
        for r in rows_of(frame.rename(columns={"name": "name_"}))
    ]
    total, peak = frame["seconds"].sum(), frame["peak_memory_gib"].max()
    rows.append(
        {
            "stage": "all",
            "name": f"{len(frame)} stages",
            "wall time": duration(float(total)),
            "peak memory": "–" if pd.isna(peak) else f"{peak:.2f} GiB",
        }
    )
    caption = f"Wall time and peak memory from the manifests (n = {len(frame)} stages, one run each)."
    return [DisplayTable(caption, pd.DataFrame(rows), [[path] for path in frame["manifest"]] + [[]])]


def _final(row: Any, loss: str) -> str:
    """The columns are absent where no model has this loss."""
    x, low, high = (getattr(row, f"final_{loss}{end}", math.nan) for end in ("", "_low", "_high"))
    return with_interval(x, low, high)


def _by_scale(caption: str, frame: pd.DataFrame, cells: dict, sources: list[str]) -> DisplayTable:
    scales = sorted(frame["scale"].unique())
    rows = [
        {"method": method_label(m)} | {f"s = {s:g}": cells.get((m, s), "–") for s in scales}
        for m in frame["method"].unique()
    ]
    return DisplayTable(caption, pd.DataFrame(rows), [list(sources) for _ in rows])
