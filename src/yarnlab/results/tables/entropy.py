"""Entropy of the base's attention by method and scale, mean over layers, heads and queries, in nats.

normalised: as a share of the entropy of uniform attention. delta: minus that of the unchanged base.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import (
    DisplayTable,
    at_scale,
    captioned,
    cell,
    delta_cell,
    of_base,
    own_cell,
    rows_of,
    wide,
    with_interval,
)
from yarnlab.results.estimates import cells, over_documents, paired, rows_of_base, split
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import difference, numbers
from yarnlab.results.style import METHOD_LABELS, method_label


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
    tables = cells(results, "entropy", "entropy", ("method", "scale"))
    shares = cells(results, "entropy", "normalised_entropy", ("method", "scale"))
    reference = tables.get(("none", 1.0))
    rows = []
    for (method, scale), own in tables.items():
        row: dict[str, Any] = {"method": method, "scale": float(scale)}
        row |= numbers("entropy", over_documents(own))
        row |= over_documents(shares[method, scale], unit="share").columns("normalised")
        if reference is not None and (method, scale) != ("none", 1.0):
            row |= difference(over_documents(paired(own, reference)))
        rows.append(row)
    return pd.DataFrame(rows)


@table("Entropy of the attention", tidy, needs=("entropy",), section="entropy", place=20, per_base=True)
def entropy(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Difference to the unchanged base, methods by scale; then the entropies themselves."""
    sections = []
    if "delta" in frame:
        others = frame.dropna(subset=["delta"])
        text = "Mean entropy of the attention minus that of the base with plain RoPE, in nats, paired by document "
        caption = captioned(f"{text}(above 0: more spread out)", others)
        sections.append(wide(results, "entropy", caption, others, "method", "scale", delta_cell))
    mean, share = own_cell(with_interval, "entropy"), cell(with_interval, "normalised")
    rows: list[dict[str, Any]] = [
        {
            "method": method_label(r.method),
            "scale": at_scale(r.scale),
            "entropy (nats)": mean(r),
            "share of uniform": share(r),
        }
        for r in rows_of(frame)
    ]
    caption = captioned("Entropy of the attention, mean over layers, heads and queries", frame)
    return [*sections, of_base(results, "entropy", caption, rows)]


@lru_cache(maxsize=4)
def by_layer(results: Results) -> pd.DataFrame:
    """The same by layer: the mean over heads (`head` is 'all'), then every head's; both numbered from 0, in nats."""
    heads, by = rows_of_base(results, "entropy", "entropy results"), ["method", "scale", "layer"]
    layers = heads.groupby([*by, "seed", "document"], sort=False)["entropy"].mean().reset_index()
    tables = {(*key, "all"): table for key, table in split(layers, by, "document", "entropy").items()}
    tables |= split(heads, [*by, "head"], "document", "entropy")
    rows = []
    for (method, scale, layer, head), own in tables.items():
        row: dict[str, Any] = {"method": method, "scale": float(scale), "layer": int(layer), "head": head}
        row |= numbers("entropy", over_documents(own))
        reference = tables.get(("none", 1.0, layer, head))
        if reference is not None and (method, scale) != ("none", 1.0):
            row |= difference(over_documents(paired(own, reference)))
        rows.append(row)
    return pd.DataFrame(rows)


@table(
    "Entropy of the attention by layer and head",
    by_layer,
    needs=("entropy",),
    section="entropy",
    place=30,
    per_base=True,
    fold="By layer, with the lowest and the highest head",
)
def entropy_by_layer(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Difference to the unchanged base, layers by method and scale; then each of these: its layers and their heads."""
    order = list(dict.fromkeys([*METHOD_LABELS, *frame["method"]]))
    runs = [(order.index(r.method), r.scale) for r in rows_of(frame)]
    frame = frame.assign(run=pd.Series(runs, index=frame.index, dtype=object))
    name = lambda run: f"{method_label(order[run[0]])} {at_scale(run[1])}"  # noqa: E731
    numbered = "Layers and heads are numbered from 0 on; layer 0 reads the text."
    sections = []
    if "delta" in frame:
        others = frame[frame["head"] == "all"].dropna(subset=["delta"])
        text = (
            "Entropy of each layer's attention, mean over its heads, minus that of the base with plain RoPE, in nats, "
        )
        caption = captioned(f"{text}paired by document (above 0: more spread out)", others, numbered)
        sections.append(wide(results, "entropy", caption, others, "layer", "run", delta_cell, name))
    for run, own in frame.groupby("run"):
        text = f"{name(run)}: entropy of the attention in nats by layer, with the layer's lowest and highest head"
        rows = [_layer(part) for _, part in own.groupby("layer")]
        sections.append(of_base(results, "entropy", captioned(text, own, numbered), rows))
    return sections


def _layer(own: pd.DataFrame) -> dict[str, str]:
    """One row: a layer's mean, and of its heads the two furthest apart."""
    whole, heads = next(rows_of(own[own["head"] == "all"])), own[own["head"] != "all"].sort_values("entropy")
    row = {"layer": str(whole.layer), "mean over heads": with_interval(whole.entropy, whole.low, whole.high)}
    for name, head in (("lowest head", heads.iloc[[0]]), ("highest head", heads.iloc[[-1]])):
        r = next(rows_of(head))
        row[name] = f"{with_interval(r.entropy, r.low, r.high)}, head {r.head}"
    return row
