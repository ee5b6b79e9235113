"""The base at each length under each dynamic method and plain RoPE: the whole length and its tail by itself.

delta: difference in ln perplexity to plain RoPE, paired by document.
"""

from __future__ import annotations

from functools import lru_cache

from yarnlab.lazy import pd
from yarnlab.results.display import DisplayTable, captioned, delta_cell, perplexity_cell, wide
from yarnlab.results.estimates import cells, gap, perplexity
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import difference, numbers

MEASURES = {"whole length": "nll", "tail": "tail_nll"}


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
    keys = ("method", "length")
    scales = cells(results, "dynamic", "scale_in_force", keys)
    rows = []
    for measure, column in MEASURES.items():
        tables = cells(results, "dynamic", column, keys)
        for (method, length), own in tables.items():
            row = {"method": method, "length": int(length), "measure": measure}
            row |= {"scale": float(scales[method, length].to_numpy()[0, 0])}
            row |= numbers("perplexity", perplexity(own))
            plain = tables.get(("none", length))
            if plain is not None and method != "none":
                row |= difference(gap(own, plain))
            rows.append(row)
    return pd.DataFrame(rows)


@table("Dynamic scaling", tidy, needs=("dynamic",), section="dynamic", place=20, per_base=True)
def dynamic(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Methods by length: over the whole length, over its tail alone, and the gap to plain RoPE on the tail."""
    texts = {
        "whole length": "Perplexity of N tokens without fine-tuning, the scale set to max(1, N/L)",
        "tail": f"Perplexity of the last {results.evaluations['dynamic']['tail']} of these N tokens alone",
    }
    sections = []
    for measure, text in texts.items():
        part = frame[frame["measure"] == measure]
        sections.append(wide(results, "dynamic", captioned(text, part), part, "method", "length", perplexity_cell))
    if "delta" in frame:
        part = frame[(frame["measure"] == "tail") & frame["delta"].notna()]
        text = "Tail of N tokens: ln perplexity minus that of plain RoPE, paired by document (below 0: scaling helps)"
        sections.append(wide(results, "dynamic", captioned(text, part), part, "method", "length", delta_cell))
    return sections
