"""From frames to arrays: what is measured on the untrained base by method, scale, variant or cache."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pandas as pd

from yarnlab.results.load import Results
from yarnlab.results.measure import NotMeasured, present, split

REFERENCE_VARIANT = "official"  # the ramp variant that the others are compared with


def cell(results: Results, kind: str, column: str, **where: Any) -> pd.DataFrame:
    """One cell of the base's results of `kind`: seeds x documents of `column`, where its keys have these values.

    Entropy is averaged over layers and heads. NotMeasured names the cell that is absent.
    """
    tables = cells(results, kind, column, tuple(where))
    if tuple(where.values()) not in tables:
        named = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in where.items())
        raise NotMeasured(f"no {kind.replace('_', '-')} results for {named}")
    return tables[tuple(where.values())]


@lru_cache(maxsize=64)
def cells(results: Results, kind: str, column: str, keys: tuple[str, ...]) -> dict[Any, pd.DataFrame]:
    """All cells of the base's results of `kind` by the values of `keys`."""
    frame, base = present(results, kind), results.base()
    if base is None:
        raise NotMeasured("this study has no pretrained base")
    rows = frame[frame["arm"] == base.arm]
    if kind == "entropy":
        rows = rows.groupby([*keys, "seed", "document"], sort=False)[column].mean().reset_index()
    return split(rows, list(keys), "document", column)


def beyond(results: Results, method: str, cache: str, start: int, end: int) -> pd.DataFrame:
    """Mean NLL in nats of the tokens in [start, end) of a decoding with this cache: seeds x documents."""
    total, tokens = None, 0
    for (found, kind, low, high), nll in cells(
        results, "key_cache", "nll", ("method", "cache", "bucket_start", "bucket_end")
    ).items():
        if (found, kind) == (method, cache) and start <= low and high <= end:
            total = nll * (high - low) if total is None else total + nll * (high - low)
            tokens += high - low
    if total is None:
        raise NotMeasured(f"no {cache} decoding of {method} on tokens {start:,} to {end:,}")
    return total / tokens
