"""Tables of dynamic scaling laid out for reading."""

from __future__ import annotations

from yarnlab.lazy import pd
from yarnlab.results.display import INTERVAL, DisplayTable, base_manifests, count, signed, wide, windows, with_interval
from yarnlab.results.results import Results
from yarnlab.results.tables.tidy_dynamic import CACHES


def dynamic(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Methods by length: over the whole length, over its tail alone, and the gap to plain RoPE on the tail."""
    sources = base_manifests(results, "dynamic")
    name = lambda n: windows(int(n), results.original_context)  # noqa: E731
    texts = {
        "whole length": "Perplexity of N tokens without fine-tuning, the scale set to max(1, N/L)",
        "tail": f"Perplexity of the last {results.evaluations['dynamic']['tail']} of these N tokens alone",
    }
    sections = []
    for measure, text in texts.items():
        part = frame[frame["measure"] == measure]
        caption = f"{text}, n = {count(part)}. {INTERVAL}."
        sections.append(
            wide(
                caption,
                part,
                "method",
                "length",
                lambda r: with_interval(r.perplexity, r.low, r.high),
                name=name,
                sources=sources,
            )
        )
    if "delta" in frame:
        part = frame[(frame["measure"] == "tail") & frame["delta"].notna()]
        caption = "Tail of N tokens: ln perplexity minus that of plain RoPE, paired by document (below 0: scaling "
        caption += f"helps), n = {count(part)}. {INTERVAL}."
        sections.append(
            wide(
                caption,
                part,
                "method",
                "length",
                lambda r: signed(r.delta, r.delta_low, r.delta_high),
                name=name,
                sources=sources,
            )
        )
    return sections


def key_cache(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Methods by stretch of the text, one table for each other way of decoding."""
    sections = []
    for cache, text in CACHES.items():
        part = frame[frame["cache"] == cache]
        if part.empty:
            continue
        stretch = [f"{r.bucket_start:,}–{r.bucket_end:,}" for r in part.itertuples()]
        names = dict(zip(part["bucket_start"], stretch, strict=True))
        caption = f"NLL with {text} minus NLL with keys cached before it, in nats a token, by stretch of the text, "
        caption += f"paired by document, n = {count(part)}. {INTERVAL}."
        sections.append(
            wide(
                caption,
                part,
                "method",
                "bucket_start",
                lambda r: signed(r.delta, r.low, r.high),
                name=names.__getitem__,
                sources=base_manifests(results, "key_cache"),
            )
        )
    return sections
