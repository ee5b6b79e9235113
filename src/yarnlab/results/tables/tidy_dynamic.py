"""Tidy tables of dynamic scaling: perplexity by method and length, and what the wrong key cache costs."""

from __future__ import annotations

from functools import lru_cache

from yarnlab.lazy import pd
from yarnlab.results.estimates import cells, gap
from yarnlab.results.results import Results
from yarnlab.results.rows import difference, numbers
from yarnlab.results.statistics import geometric_mean_perplexity

MEASURES = {"whole length": "nll", "tail": "tail_nll"}
CACHES = {
    "post-rope": "keys cached after the rotation",
    "recomputed": "everything recomputed under one scale, that of the length",
}


@lru_cache(maxsize=4)
def dynamic(results: Results) -> pd.DataFrame:
    """The base at each length under each dynamic method and plain RoPE: the whole length and its tail by itself.

    delta: difference in ln perplexity to plain RoPE, paired by document.
    """
    keys = ("method", "length")
    scales = cells(results, "dynamic", "scale_in_force", keys)
    rows = []
    for measure, column in MEASURES.items():
        tables = cells(results, "dynamic", column, keys)
        for (method, length), own in tables.items():
            row = {"method": method, "length": int(length), "measure": measure}
            row |= {"scale": float(scales[method, length].to_numpy()[0, 0])}
            row |= numbers("perplexity", geometric_mean_perplexity(own.to_numpy()))
            plain = tables.get(("none", length))
            if plain is not None and method != "none":
                row |= difference(gap(own, plain))
            rows.append(row)
    return pd.DataFrame(rows)


@lru_cache(maxsize=4)
def key_cache(results: Results) -> pd.DataFrame:
    """NLL under each way of decoding minus that under a cache of unrotated keys, by stretch of the text, in nats."""
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
