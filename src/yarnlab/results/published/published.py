"""The paper's tables with our numbers beside the published ones, laid out as in the paper.

Every table has a tidy form (the rows of `verdict_table`) and a displayed one: models down, lengths, tasks or quantities
across, and for each of them the published number and ours with its interval, n and verdict. A cell without a number of
ours says why in the tidy form and 'not run' in the displayed one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import INTERVAL, DisplayTable, count, manifests_of, rows_of, value, with_interval
from yarnlab.results.published.published_curves import curve_table
from yarnlab.results.published.published_needs import PUBLISHED_NEEDS
from yarnlab.results.published.published_ours import STRICT
from yarnlab.results.published.reference import load_reference
from yarnlab.results.published.verdict import NOT_COMPARABLE, NOT_RUN, VERDICTS
from yarnlab.results.published.verdict_table import count_table, verdict_table
from yarnlab.results.results import Results
from yarnlab.results.style import METHOD_LABELS, method_label

STATED = ("Abstract", "Section 3.2", "Section 4", "Section 4.1", "Section 4.2", "Section 4.3.3", "Equation 22",
          "Equation 25", "Appendix A.2", "Appendix B.4")  # fmt: skip
FINE_TUNED = tuple(f"emozilla/{name}-Llama-7b-32k" for name in ("Linear", "NTK", "NTK-by-parts", "Yarn"))

COLUMNS = {
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


@dataclass(frozen=True)
class PublishedTable:
    """A table of the paper: what it is made from (`needs`, all optional) and its two forms, as in `tables.Table`."""

    name: str
    title: str
    needs: tuple[str, ...]
    build: Callable[[Results], pd.DataFrame] = field(repr=False)
    show: Callable[[Results, pd.DataFrame], list[DisplayTable]] = field(repr=False)


def _cells(*artifacts: str, models: tuple[str, ...] = ()) -> Callable[[Results], pd.DataFrame]:
    def build(results: Results) -> pd.DataFrame:
        table = verdict_table(results, *artifacts)
        return table[table["model"].isin(models)].reset_index(drop=True) if models else table

    return build


def _verdicts(results: Results) -> pd.DataFrame:
    return verdict_table(results)


def _show_counts(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    counts = count_table(results)
    caption = f"Published numbers by verdict: {len(frame)} cells. {LEGEND}"
    used = frame.dropna(subset=["manifest"]).groupby("artifact")["manifest"].unique()
    sources = [list(used.get(name, ())) for name in counts["artifact"]]  # none for the sum over all of them
    return [DisplayTable(caption, counts.astype(str), sources)]


def _show_curves(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    rows = [
        {
            "figure": row.artifact,
            "curve": row.curve.partition(".")[2],
            "points": f"{row.points:,}",
            "ours": f"{row.measured:,}" if row.measured else NOT_RUN,
            "n a point": _range(row.n_least, row.n_most),
            "within tolerance": f"{row.within:,} of {row.compared:,}" if row.compared else "–",
            "largest relative difference": "–" if pd.isna(row.largest) else f"{100 * row.largest:.1f} %",
            "verdict": row.verdict,
        }
        for row in rows_of(frame)
    ]
    caption = f"Published curves beside ours: {int(frame['points'].sum()):,} points. {LEGEND}"
    reference = load_reference()
    kinds = {curve.curve: reference.protocols[curve.protocol].kind for curve in reference.curves}
    sources = [manifests_of(results, kinds[row.curve], row.our_model) if row.measured else [] for row in rows_of(frame)]
    return [DisplayTable(caption, pd.DataFrame(rows), sources)]


LEGEND = (
    "Ours is reproduced when it is within the tolerance of the rule in yarnlab.results.published.verdict, contradicted "
    "when it is not and an order of the paper's table is reversed as well"
)
ANALOGUE = (
    "Analogues (same method and s, at the same multiple of L) are not comparable in value; the length named is its own"
)


def show_cells(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """One section for each artifact among the rows: published and ours side by side."""
    return [_section(str(name), part) for name, part in frame.groupby("artifact", sort=False)]


def show_list(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """One row a number: for values that make no grid."""
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
    return [DisplayTable(f"Published values and ours. {LEGEND}. {INTERVAL}.", pd.DataFrame(rows), sources)]


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
    counts = ", ".join(f"{n} {v}" for v in VERDICTS if (n := int((part["verdict"] == v).sum())))
    caption = f"{name} of the paper and ours: {counts}. {LEGEND}{_certainty(part)}"
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
    counts = ", ".join(count(own) for _, own in sampled.groupby("over", sort=False))
    return f". Ours: n = {counts}; {INTERVAL}"


def _range(low: Any, high: Any) -> str:
    if pd.isna(low):
        return "–"
    return f"{int(low):,}" if low == high else f"{int(low):,}–{int(high):,}"


def _label(row: Any) -> str:
    """'YaRN 7B s=16'; for a base under another rope its method and scale too."""
    if row.protocol == "proof-pile-zero-shot":
        return f"{row.label}, {method_label(row.method)} s={row.scale:g}, no fine-tuning"
    if row.protocol == "proof-pile-dynamic":
        method = METHOD_LABELS.get(row.method, "Dynamic " + METHOD_LABELS.get(row.method.removeprefix("dynamic-"), ""))
        return f"{row.label}, {method}, no fine-tuning"
    return str(row.label)


def _column(row: Any) -> str:
    if row.metric in COLUMNS:
        return COLUMNS[row.metric]
    if row.protocol in COLUMNS:
        return COLUMNS[row.protocol] if row.unit == "percent" else f"{COLUMNS[row.protocol]} {row.metric}"
    return f"{int(row.x):,}" if not pd.isna(row.x) else str(row.metric)


def _quantity(row: Any) -> str:
    name = QUANTITIES.get(row.metric, str(row.metric).replace("_", " "))
    at = "" if pd.isna(row.x) else f" at {XS.get(row.metric, 's')} = {row.x:,.0f}"
    return f"{name}{at}" if row.unit == "1" or row.unit in name else f"{name}{at} ({row.unit})"


TABLES_OF_THE_PAPER: dict[str, tuple[str, Any, Any]] = {
    "verdicts": ("Every published number", _verdicts, _show_counts),
    "table_1": ("Table 1: extending Llama 2 7B to 8k", _cells("Table 1"), show_cells),
    "table_2": ("Table 2: long-range perplexity", _cells("Table 2"), show_cells),
    "table_3": ("Table 3: short benchmarks", _cells("Table 3"), show_cells),
    "table_4": ("Table 4: GovReport", _cells("Table 4"), show_cells),
    "table_5": ("Table 5: passkey", _cells("Table 5"), show_cells),
    "table_6": ("Table 6: Mistral", _cells("Table 6"), show_cells),
    "camera_ready_table_1": ("Camera-ready Table 1: long-range perplexity", _cells("Camera-ready Table 1"), show_cells),
    "camera_ready_table_2": ("Camera-ready Table 2: short benchmarks", _cells("Camera-ready Table 2"), show_cells),
    "camera_ready_table_4": ("Camera-ready Table 4: cost", _cells("Camera-ready Table 4"), show_cells),
    "camera_ready_table_5": (
        "Camera-ready Table 5: without and with fine-tuning",
        _cells("Camera-ready Table 5"),
        show_cells,
    ),
    "camera_ready_ablation": (
        "The camera-ready's ablation: LLaMA 7B, 2k to 32k, 400 steps",
        _cells("Camera-ready Table 5", "Camera-ready Figure 3", "Camera-ready Table 2", models=FINE_TUNED),
        show_cells,
    ),
    "stated_values": ("Values in the text", _cells(*STATED), show_list),
    "benchmark_results": ("The authors' lm-eval results", _cells("lm-eval results"), show_cells),
    "published_curves": ("Every published curve", curve_table, _show_curves),
}
PUBLISHED = {
    name: PublishedTable(name, title, PUBLISHED_NEEDS[name], build, show)
    for name, (title, build, show) in TABLES_OF_THE_PAPER.items()
}
