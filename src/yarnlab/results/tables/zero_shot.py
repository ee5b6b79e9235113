"""Base under every method and scale at every measured length, with the gap to YaRN paired by document.

p: sign-flip test of the gaps at N = sL; p_holm: corrected over these. The gaps at other lengths are not tested: a
dozen documents can't decide a hundred comparisons.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache

from yarnlab.lazy import pd
from yarnlab.results.display import DisplayTable, captioned, delta_cell, mark_note, perplexity_cell, tested, wide
from yarnlab.results.estimates import NotMeasured, over_documents, paired, perplexity, tested_by_document
from yarnlab.results.estimates import zero_shot as zero_shot_nll
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import difference, numbers, with_holm


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
    frame, base = results.frame("zero_shot"), results.base()
    rows = []
    cells = frame[["method", "scale", "length"]].drop_duplicates()
    for method, scale, length in cells.itertuples(index=False):
        try:
            own = zero_shot_nll(results, method, scale, length)
        except NotMeasured:
            continue
        row = {"arm": base.arm if base else "", "method": method, "scale": float(scale), "length": int(length)}
        row |= {"at_full_window": length == scale * results.original_context}
        row |= numbers("perplexity", perplexity(own))
        if method != "yarn":
            with suppress(NotMeasured):
                differences = paired(own, zero_shot_nll(results, "yarn", scale, length))
                row |= difference(over_documents(differences))
                if row["at_full_window"]:
                    row |= tested_by_document(differences).columns()
        rows.append(row)
    return with_holm(pd.DataFrame(rows))


@table(
    "Extension without fine-tuning", tidy, needs=("zero_shot",), section="zero-shot", place=20, per_base=True, opened=2
)
def zero_shot(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """At N = sL: method by scale, with tested gaps to YaRN; then for each scale method by length."""
    sections = []
    full = frame[frame["at_full_window"]]
    if not full.empty:
        caption = captioned("Perplexity at N = sL without fine-tuning", full)
        sections.append(wide(results, "zero_shot", caption, full, "method", "scale", perplexity_cell))
    if "delta" in full and full["delta"].notna().any():
        others = full.dropna(subset=["delta"])
        text = "Gap to YaRN at the same s in ln perplexity at N = sL, both without fine-tuning, paired by document "
        caption = captioned(f"{text}(above 0: YaRN is better)", others, mark_note(others, "the sign-flip test"))
        sections.append(wide(results, "zero_shot", caption, others, "method", "scale", tested(delta_cell)))
    for scale, part in frame.groupby("scale"):
        caption, name = captioned(f"Perplexity at N tokens without fine-tuning, s = {scale:g}", part), "{:,}".format
        sections.append(wide(results, "zero_shot", caption, part, "method", "length", perplexity_cell, name))
    return sections
