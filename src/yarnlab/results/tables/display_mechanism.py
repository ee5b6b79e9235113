"""Tables of the temperature, the ramp and the attention's entropy laid out for reading."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import (
    INTERVAL,
    DisplayTable,
    base_manifests,
    count,
    mark_note,
    marked,
    rows_of,
    signed,
    value,
    wide,
    with_interval,
)
from yarnlab.results.estimates import REFERENCE_VARIANT
from yarnlab.results.results import Results
from yarnlab.results.style import METHOD_LABELS, method_label


def temperature(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Best factor by scale beside the formula's; then the fit beside the paper's numbers."""
    sources = base_manifests(results, "temperature")
    scales = frame[frame["quantity"] == "best √(1/t)"]
    baseline = "delta" in frame
    rows = [
        {
            "scale": f"s = {r.scale:g}",
            "best √(1/t)": with_interval(r.value, r.low, r.high, 4)
            + (" at the grid's edge" if r.at_edge else "")
            + (" on documents read to fewer than s·L tokens" if r.cut_off else ""),
            "formula 0.1 ln s + 1": value(r.paper, 4),
        }
        | ({"formula minus no temperature": signed(r.delta, r.delta_low, r.delta_high)} if baseline else {})
        | {
            "formula minus best of grid": signed(
                r.ln_ppl_over_formula, r.ln_ppl_over_formula_low, r.ln_ppl_over_formula_high
            ),
            "√(formula) minus formula": signed(r.reading, r.reading_low, r.reading_high),
        }
        for r in rows_of(scales)
    ]
    caption = f"Factor √(1/t) of lowest loss at each scale, without fine-tuning, n = {count(scales)}. {INTERVAL}. "
    caption += "The columns with 'minus' are differences in ln perplexity (below 0: the first is better)."
    if not baseline:
        caption += " The grid has no √(1/t) = 1 to compare with."
    sections = [DisplayTable(caption, pd.DataFrame(rows), [list(sources) for _ in rows])]
    fit = frame[frame["quantity"].isin(["a", "b"])]
    if not fit.empty:
        meanings = {"a": "a, slope over ln s", "b": "b, value at s = 1"}
        lines = [
            {"√(1/t) = a·ln s + b": meanings[r.quantity], "here": with_interval(r.value, r.low, r.high)}
            | {"paper": f"{r.paper:g}"}
            for r in rows_of(fit)
        ]
        caption = f"Line through the best factors over ln s, n = {count(fit)}. {INTERVAL}. Left out: scales whose best "
        caption += "factor is at an edge of the grid, and those with a document read to fewer than s·L tokens."
        sections.append(DisplayTable(caption, pd.DataFrame(lines), [list(sources) for _ in lines]))
    return sections


def ramp(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Gap to the official ramp at the longest length of each scale; then every variant's perplexity there."""
    sources = base_manifests(results, "ramp")
    ends = frame[frame["length"] == frame.groupby("scale")["length"].transform("max")]
    sections = []
    if "delta" in frame:
        others = ends.dropna(subset=["delta"])
        caption = f"ln perplexity minus that of the variant '{REFERENCE_VARIANT}' at N = sL (or the longest measured), "
        caption += f"paired by document (above 0: the official ramp is better), n = {count(others)}. {INTERVAL}. "
        caption += mark_note(frame, "the sign-flip test, all lengths")
        sections.append(
            wide(
                caption,
                others,
                "variant",
                "scale",
                lambda r: marked(signed(r.delta, r.delta_low, r.delta_high), r.p_holm),
                name=_scale,
                sources=sources,
            )
        )
    caption = f"Perplexity of each variant at N = sL (or the longest measured), n = {count(ends)}. {INTERVAL}."
    cell = lambda r: with_interval(r.perplexity, r.low, r.high)  # noqa: E731
    sections.append(wide(caption, ends, "variant", "scale", cell, name=_scale, sources=sources))
    return sections


def entropy(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Difference to the unchanged base, methods by scale; then the entropies themselves."""
    sources = base_manifests(results, "entropy")
    sections = []
    if "delta" in frame:
        others = frame.dropna(subset=["delta"])
        caption = "Mean entropy of the attention minus that of the base with plain RoPE, in nats, paired by document "
        caption += f"(above 0: more spread out), n = {count(others)}. {INTERVAL}."
        cell = lambda r: signed(r.delta, r.delta_low, r.delta_high)  # noqa: E731
        sections.append(wide(caption, others, "method", "scale", cell, name=_scale, sources=sources))
    rows: list[dict[str, Any]] = [
        {
            "method": method_label(r.method),
            "scale": _scale(r.scale),
            "entropy (nats)": with_interval(r.entropy, r.low, r.high),
            "share of uniform": with_interval(r.normalised, r.normalised_low, r.normalised_high),
        }
        for r in rows_of(frame)
    ]
    caption = f"Entropy of the attention, mean over layers, heads and queries, n = {count(frame)}. {INTERVAL}."
    sections.append(DisplayTable(caption, pd.DataFrame(rows), [list(sources) for _ in rows]))
    return sections


def entropy_by_layer(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Difference to the unchanged base, layers by method and scale; then each of these: its layers and their heads."""
    sources = base_manifests(results, "entropy")
    order = list(dict.fromkeys([*METHOD_LABELS, *frame["method"]]))
    runs = [(order.index(r.method), r.scale) for r in rows_of(frame)]
    frame = frame.assign(run=pd.Series(runs, index=frame.index, dtype=object))
    name = lambda run: f"{method_label(order[run[0]])} {_scale(run[1])}"  # noqa: E731
    numbered = "Layers and heads are numbered from 0 on; layer 0 reads the text."
    sections = []
    if "delta" in frame:
        others = frame[frame["head"] == "all"].dropna(subset=["delta"])
        caption = "Entropy of each layer's attention, mean over its heads, minus that of the base with plain RoPE, in "
        caption += f"nats, paired by document (above 0: more spread out), n = {count(others)}. {INTERVAL}. {numbered}"
        cell = lambda r: signed(r.delta, r.delta_low, r.delta_high)  # noqa: E731
        sections.append(wide(caption, others, "layer", "run", cell, name=name, sources=sources))
    for run, own in frame.groupby("run"):
        rows = [_layer(part) for _, part in own.groupby("layer")]
        caption = f"{name(run)}: entropy of the attention in nats by layer, with the layer's lowest and "
        caption += f"highest head, n = {count(own)}. {INTERVAL}. {numbered}"
        sections.append(DisplayTable(caption, pd.DataFrame(rows), [list(sources) for _ in rows]))
    return sections


def _layer(own: pd.DataFrame) -> dict[str, str]:
    """One row: a layer's mean, and of its heads the two furthest apart."""
    whole, heads = next(rows_of(own[own["head"] == "all"])), own[own["head"] != "all"].sort_values("entropy")
    row = {"layer": str(whole.layer), "mean over heads": with_interval(whole.entropy, whole.low, whole.high)}
    for name, head in (("lowest head", heads.iloc[[0]]), ("highest head", heads.iloc[[-1]])):
        r = next(rows_of(head))
        row[name] = f"{with_interval(r.entropy, r.low, r.high)}, head {r.head}"
    return row


def _scale(s: float) -> str:
    return f"s = {s:g}"
