"""Each variant of the ramp at each scale and length: perplexity, and its gap to the official one in nats.

Paired by document; p: sign-flip test; p_holm: corrected over all comparisons of the table.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import DisplayTable, captioned, delta_cell, mark_note, perplexity_cell, tested, wide
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
    ends = frame[frame["length"] == frame.groupby("scale")["length"].transform("max")]
    sections = []
    if "delta" in frame:
        others = ends.dropna(subset=["delta"])
        text = f"ln perplexity minus that of the variant '{REFERENCE_VARIANT}' at N = sL (or the longest measured), "
        text += "paired by document (above 0: the official ramp is better)"
        caption = captioned(text, others, mark_note(frame, "the sign-flip test, all lengths"))
        sections.append(wide(results, "ramp", caption, others, "variant", "scale", tested(delta_cell)))
    caption = captioned("Perplexity of each variant at N = sL (or the longest measured)", ends)
    return [*sections, wide(results, "ramp", caption, ends, "variant", "scale", perplexity_cell)]
