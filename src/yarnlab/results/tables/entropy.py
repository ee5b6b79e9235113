"""Entropy of the base's attention by method and scale, mean over layers, heads and queries, in nats.

normalised: as a share of the entropy of uniform attention. delta: minus that of the unchanged base.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import INTERVAL, DisplayTable, base_manifests, count, rows_of, signed, wide, with_interval
from yarnlab.results.estimates import cells, paired
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import difference, numbers
from yarnlab.results.statistics import mean
from yarnlab.results.style import method_label


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
    tables = cells(results, "entropy", "entropy", ("method", "scale"))
    shares = cells(results, "entropy", "normalised_entropy", ("method", "scale"))
    reference = tables.get(("none", 1.0))
    rows = []
    for (method, scale), own in tables.items():
        row: dict[str, Any] = {"method": method, "scale": float(scale)}
        row |= numbers("entropy", mean(own.to_numpy()))
        row |= mean(shares[method, scale].to_numpy(), unit="share").columns("normalised")
        if reference is not None and (method, scale) != ("none", 1.0):
            row |= difference(mean(paired(own, reference)))
        rows.append(row)
    return pd.DataFrame(rows)


@table("Entropy of the attention", tidy, needs=("entropy",), section="entropy", place=20, per_base=True)
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


def _scale(s: float) -> str:
    return f"s = {s:g}"
