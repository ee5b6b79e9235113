"""Tables of the paper's other protocols laid out for reading."""

from __future__ import annotations

from yarnlab.lazy import pd
from yarnlab.results.display import (
    INTERVAL,
    DisplayTable,
    by_length,
    by_model,
    count,
    extended_of,
    manifests_of,
    mark_note,
    marked,
    percent,
    percent_points,
    rows_of,
    same_base,
    signed,
    with_interval,
)
from yarnlab.results.estimates import group
from yarnlab.results.results import Results
from yarnlab.results.tables.tidy_protocols import FOUND, passkey_context


def sliding_window(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """One row per model: pooled as the official code does, and by document; gaps to YaRN where there are any."""
    compared = frame.dropna(subset=["delta"]) if "delta" in frame else frame.head(0)
    against = extended_of(results, compared["arm"])
    yarn = against[0] if len(against) == 1 else "YaRN"
    rows = []
    for arm, own in frame.groupby("arm", sort=False):
        row = {name: own[column].iloc[0] for name, column in (("model", "label"), ("base", "base")) if column in own}
        for r in rows_of(own):
            row[f"{r.measure}: perplexity"] = with_interval(r.perplexity, r.low, r.high)
            if against:
                row[f"{r.measure}: gap to {yarn}"] = signed(r.delta, r.delta_low, r.delta_high)
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


def passkey_official(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Accuracy by length; the paper's summary; and how far the two protocols agree."""
    cells = {(r.label, r.length): percent(r.accuracy, r.low, r.high) for r in rows_of(frame)}
    caption = f"Accuracy under the official prompt of N tokens, n = {count(frame)} a cell. {INTERVAL} (Wilson)."
    sections = [by_length(results, "passkey_official", caption, frame, cells)]
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
    caption += f"over all tested lengths up to it (the paper's Table 5), n = {_range(summary['n'])} trials. {INTERVAL}."
    sources = [manifests_of(results, "passkey_official", arm) for arm in summary["arm"]]
    sections.append(DisplayTable(caption, pd.DataFrame(rows), sources))
    if "p" in frame and frame["p"].notna().any():
        both = frame.dropna(subset=["p"])
        cells = {
            (r.label, r.length): marked(percent_points(r.delta, r.delta_low, r.delta_high), r.p_holm)
            for r in rows_of(both)
        }
        caption = "Accuracy under the official prompt minus that of teacher-forced trials of the same length (other "
        caption += f"prompts), in percentage points, n = {count(both)} and {_range(both['teacher_forced_n'])}. "
        caption += f"{INTERVAL} (Newcombe). {mark_note(both, ' or '.join(both['test'].unique()))}"
        sections.append(by_length(results, "passkey_official", caption, both, cells))
    return sections


def benchmarks(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Models by task and metric; then the differences to the base on the same items. MMLU's subjects are left out."""
    frame = frame[[group(task) == task for task in frame["task"]]]
    cell = lambda r: percent(r.accuracy, r.low, r.high)  # noqa: E731
    shots = ", ".join(str(n) for n in sorted(frame["shots"].unique()))
    caption = f"Share of right answers, {shots} examples before each question, n = {count(frame)}. {INTERVAL}. "
    caption += "'mean' weighs the tasks equally, each by the metric that is reported for it."
    sections = [_by_task(results, caption, frame, cell)]
    if "delta" in frame:
        others = frame.dropna(subset=["delta"])
        caption = "The same minus the base on the same items, in percentage points (below 0: worse than the base), "
        caption += f"n = {count(others)}. {INTERVAL}. "
        caption += mark_note(others, " or ".join(others["test"].dropna().unique())) + same_base(frame)

        def gap(r) -> str:  # type: ignore[no-untyped-def]
            text = percent_points(r.delta, r.delta_low, r.delta_high)
            return text if pd.isna(r.p) else marked(text, r.p_holm)

        sections.append(_by_task(results, caption, others, gap))
    return sections


def _by_task(results: Results, caption: str, frame: pd.DataFrame, cell) -> DisplayTable:  # type: ignore[no-untyped-def]
    named = frame.assign(column=[r.task if r.task == "mean" else f"{r.task} {r.metric}" for r in rows_of(frame)])
    columns = sorted(named["column"].unique(), key=lambda name: name == "mean")
    cells = {(r.label, r.column): cell(r) for r in rows_of(named)}
    return by_model(results, "benchmarks", caption, frame, cells, dict(zip(columns, columns, strict=True)))


def _range(n: pd.Series) -> str:
    low, high = int(n.min()), int(n.max())
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
