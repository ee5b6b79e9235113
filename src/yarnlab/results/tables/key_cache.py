"""NLL under each way of decoding minus that under a cache of unrotated keys, by stretch of the text, in nats."""

from __future__ import annotations

from functools import lru_cache

from yarnlab.lazy import pd
from yarnlab.results.display import DisplayTable, captioned, own_cell, signed, wide
from yarnlab.results.estimates import cells, gap
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import numbers

CACHES = {
    "post-rope": "keys cached after the rotation",
    "recomputed": "everything recomputed under one scale, that of the length",
}


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
    keys = ("method", "cache", "bucket_start", "bucket_end")
    tables = cells(results, "key_cache", "nll", keys)
    rows = []
    for (method, cache, start, end), own in sorted(tables.items()):
        reference = tables.get((method, "pre-rope", start, end))
        if cache not in CACHES or reference is None:
            continue
        row = {"method": method, "cache": cache, "bucket_start": int(start), "bucket_end": int(end)}
        row |= {"pre_rope_nll": float(reference.to_numpy().mean())}
        rows.append(row | numbers("delta", gap(own, reference)))
    return pd.DataFrame(rows)


@table(
    "What the wrong key cache costs",
    tidy,
    needs=("key_cache",),
    section="dynamic",
    place=40,
    per_base=True,
    opened=2,
    fold="What it costs to cache keys after the rotation",
    caption="With a dynamic scale every key’s rotation changes whenever the text grows. A cache of rotated keys keeps "
    "the old ones.",
)
def key_cache(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Methods by stretch of the text, one table for each other way of decoding."""
    sections = []
    for cache, text in CACHES.items():
        part = frame[frame["cache"] == cache]
        if part.empty:
            continue
        stretch = [f"{r.bucket_start:,}–{r.bucket_end:,}" for r in part.itertuples()]
        names = dict(zip(part["bucket_start"], stretch, strict=True))
        text = (
            f"NLL with {text} minus NLL with keys cached before it, in nats a token, by stretch of the text, paired by "
        )
        caption, cell = captioned(f"{text}document", part), own_cell(signed, "delta")
        sections.append(wide(results, "key_cache", caption, part, "method", "bucket_start", cell, names.__getitem__))
    return sections
