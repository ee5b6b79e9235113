"""Perplexity against the window: the paper's Figure 1, its shape beside the paper's, and the loss by position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from yarnlab.lazy import alt, pd
from yarnlab.results.bases import tree_of
from yarnlab.results.charts import (
    WIDE,
    bounds,
    curves,
    doublings_of,
    log_axis,
    log_scale,
    rounded,
    scales,
    tooltip,
    window_axis,
)
from yarnlab.results.display import windows
from yarnlab.results.estimates import NotMeasured, nll, over_documents, perplexity
from yarnlab.results.published.data import load_reference
from yarnlab.results.published.overlay import background, in_tokens, overlaid, relative
from yarnlab.results.registry import PAPER, figure
from yarnlab.results.results import Model, Results
from yarnlab.results.rows import named_arms
from yarnlab.results.style import QUIET, labels, style_of


@figure(
    "Perplexity by context window",
    needs=("perplexity",),
    section="perplexity",
    place=10,
    paper_names=("figure_1", "figure_6"),
    parts="groups",
    alt="Lines of perplexity against context window, one per model, both axes logarithmic; vertical rules "
    "mark the windows that models were trained on.",
    caption="Both axes are logarithmic; lower is better. Every point is the geometric mean over the same "
    "documents, each read once from its start. Dashed verticals mark the longest rows that models "
    "were trained on. A curve that leaves the top exceeds 100 times the lowest value. Hover a marker "
    "for its 95 % interval and n.",
)
def figure_1(results: Results) -> Any:
    """Perplexity of the whole window against its length, over the paper's for models that stand for published ones."""
    rows: list[dict[str, Any]] = []
    marked = doublings_of(results.original_context)
    for model, name in named_arms(results):
        for length in lengths_of(results, model):
            table = nll(results, model.arm, length)
            row = {"model": name, "N": length, "n": table.size}
            if length in marked:  # only markers show an interval
                e = perplexity(table)
                rows.append(row | {"perplexity": e.value, "interval": bounds(e.low, e.high)})
            else:
                rows.append(row | {"perplexity": math.exp(min(table.to_numpy().mean(), 700.0))})
    title = "perplexity (geometric mean over documents)"
    return _by_window(results, rounded(rows), "perplexity", title, log=True, published=in_tokens(results))


@figure(
    "Loss by position in the window",
    needs=("perplexity",),
    section="perplexity",
    place=40,
    fold="Loss by position in the window",
    parts="groups",
    alt="Lines of mean negative log-likelihood of the tokens in each stretch of the window, one per model.",
    caption="Cumulative perplexity averages over the whole window and hides where a model fails; this is the "
    "mean loss of only the tokens between one measured length and the next.",
)
def bucket_nll(results: Results) -> Any:
    """Mean NLL of each stretch of the window, which cumulative perplexity smooths over."""
    rows = []
    marked = doublings_of(results.original_context)
    for model, name in named_arms(results):
        for length in lengths_of(results, model):
            table = nll(results, model.arm, length, "bucket_nll")
            row = {"model": name, "N": length, "nll": float(table.to_numpy().mean()), "n": table.size}
            if length in marked:  # only markers show an interval
                e = over_documents(table)
                row |= {"interval": bounds(e.low, e.high)}
            rows.append(row)
    return _by_window(results, rounded(rows), "nll", "mean NLL of the stretch that ends here (nats/token)", log=False)


@figure(
    "Shape of the paper’s Figure 1",
    needs=("perplexity",),
    section="perplexity",
    place=30,
    fold="The shape of these curves over the paper’s Figure 1",
    forms=PAPER,
    parts="groups",
    alt="Lines of perplexity divided by its value at the original context, against the context window in "
    "units of the original context, both axes logarithmic; this study's models in colour over the "
    "paper's in grey.",
    caption="Perplexities of different models on different text cannot be compared, but the shape of the "
    "curve can: every curve is divided by its own value at L. Coloured: this study. Grey: the paper’s "
    "models, from the authors’ own result files.",
)
def figure_1_relative(results: Results) -> Any:
    """Perplexity relative to that at L against N/L: base, YaRN and PI of this study over the paper's Figure 1."""
    names = labels(results)
    shown = [model for model in _compared(results) if _measured(results, model)]
    rows: list[dict[str, Any]] = []
    for model in shown:
        window = tree_of(results, model.arm).original_context
        start = nll(results, model.arm, window)
        for length in (n for n in lengths_of(results, model) if n >= window / 2):
            change = (nll(results, model.arm, length) - start).dropna(axis=1).to_numpy(float)
            row = {"model": names[model.arm], "x": length / window, "y": math.exp(min(change.mean(), 700.0))}
            rows.append(row | {"n": change.size})
    published = relative(load_reference().figure("Figure 1"), "model")
    styles = {names[model.arm]: style_of(model, results) for model in shown}
    return overlaid(rows, styles, published, "perplexity(N) / perplexity(L)")


def _by_window(
    results: Results, data: Any, column: str, title: str, log: bool, published: Sequence[dict[str, Any]] = ()
) -> Any:
    arms = [m for m, name in named_arms(results) if any(row["model"] == name for row in data.values)]
    names = labels(results)
    looks = scales([names[m.arm] for m in arms], [style_of(m, results) for m in arms])
    x = window_axis("N", results.original_context)
    values = pd.Series([row[column] for row in data.values], dtype=float)
    scale = log_scale(values) if log else alt.Scale(zero=False)
    y = alt.Y(f"{column}:Q", title=title, scale=scale, axis=log_axis() if log else alt.Axis())
    marked = alt.FieldOneOfPredicate(field="N", oneOf=doublings_of(results.original_context))
    tips = tooltip("model", column)
    layers = curves(alt.Chart(data), "model", looks, x, y, tips, marked=marked, clipped="all")
    if reach := _windows(results):
        marks = alt.Chart(alt.Data(values=reach))
        rules = marks.mark_rule(color=QUIET, strokeDash=[4, 4]).encode(x="N:Q")
        text = marks.mark_text(angle=270, align="right", baseline="bottom", dx=-4, dy=-4, color=QUIET).encode(
            x="N:Q", y=alt.value(0), text="text:N"
        )
        layers = [rules, *layers, text]
    chart = alt.layer(*layers)
    if published:
        behind = [row | {"marked": row["N"] in doublings_of(results.original_context)} for row in published]
        tips = [alt.Tooltip("N:Q", format=","), alt.Tooltip("perplexity:Q", format=".4g")]
        chart = alt.layer(background(behind, x, y, tips), chart)
        chart = chart.resolve_scale(shape="independent", color="independent", strokeDash="independent")
    return chart.properties(width=WIDE, height=400)


def _windows(results: Results) -> list[dict[str, Any]]:
    """Windows that models were trained on, each once, with the reason."""
    marks: dict[int, str] = {}
    for model in results.arms().values():
        if model.trained_length is not None:
            what = "pretraining rows" if model.kind == "pretrain" else "fine-tuning rows"
            marks.setdefault(model.trained_length, f"{what}: {windows(model.trained_length, results.original_context)}")
    return [{"N": n, "text": text} for n, text in sorted(marks.items())]


def lengths_of(results: Results, model: Model) -> list[int]:
    frame = results.frame("perplexity")
    return sorted(int(n) for n in frame.loc[frame["arm"] == model.arm, "length"].unique())


def _compared(results: Results) -> list[Model]:
    """Arms that have a counterpart in the paper's Figure 1: base, YaRN at its scales, PI and NTK-aware."""
    kept = {"yarn", "pi", "ntk-aware"}
    bases = ("pretrain", "hub")
    return [m for m, _ in named_arms(results) if m.kind in bases or (m.method in kept and m.ramp == "dimension")]


def _measured(results: Results, model: Model) -> bool:
    try:
        nll(results, model.arm, tree_of(results, model.arm).original_context)
    except NotMeasured:
        return False
    return True
