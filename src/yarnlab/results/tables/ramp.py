"""Each variant of the ramp at each scale and length: perplexity, and its gap to the official one in nats.

Paired by document; p: sign-flip test; p_holm: corrected over all comparisons of the table.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import (
    INTERVAL,
    DisplayTable,
    at_scale,
    base_manifests,
    count,
    delta_cell,
    mark_note,
    perplexity_cell,
    tested,
    wide,
)
from yarnlab.results.estimates import REFERENCE_VARIANT, cells, gap, paired, perplexity, tested_by_document
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import difference, numbers, with_holm


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
    tables = cells(results, "ramp", "nll", ("variant", "scale", "length"))
    rows = []
    for (variant, scale, length), own in tables.items():
        row: dict[str, Any] = {"variant": variant, "scale": float(scale), "length": int(length)}
        row |= {"at_full_window": length == scale * results.original_context}
        row |= numbers("perplexity", perplexity(own))
        reference = tables.get((REFERENCE_VARIANT, scale, length))
        if reference is not None and variant != REFERENCE_VARIANT:
            row |= difference(gap(own, reference)) | tested_by_document(paired(own, reference)).columns()
        rows.append(row)
    return with_holm(pd.DataFrame(rows))


@table("Shapes of the ramp", tidy, needs=("ramp",), section="ramp", place=20, per_base=True)
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
        gap_cell = tested(delta_cell)
        sections.append(wide(caption, others, "variant", "scale", gap_cell, name=at_scale, sources=sources))
    caption = f"Perplexity of each variant at N = sL (or the longest measured), n = {count(ends)}. {INTERVAL}."
    sections.append(wide(caption, ends, "variant", "scale", perplexity_cell, name=at_scale, sources=sources))
    return sections
