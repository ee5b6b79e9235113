"""From frames to arrays: mean NLL (seeds x documents) and passkey hits (seeds x trials) of one arm."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from yarnlab.results.load import Model, Results
from yarnlab.results.statistics import Array, Estimate, accuracy, mean


class NotMeasured(Exception):
    """A model, length or scale that a number needs is not in the results; the message names it."""


def nll(results: Results, arm: str, length: int, column: str = "nll") -> pd.DataFrame:
    """Mean NLL in nats of an arm at `length` tokens: rows are seeds, columns documents.

    `column` is 'nll' (positions 1..length-1) or 'bucket_nll' (the last bucket).
    """
    tables = _by_length(results, arm, column)
    if length not in tables:
        raise NotMeasured(f"no perplexity of {arm} at {length:,} tokens")
    return tables[length]


def segment(results: Results, arm: str, start: int, end: int) -> pd.DataFrame:
    """Mean NLL of the tokens between two window lengths, from the two cumulative means."""
    sums, counts = [], []
    for length in (start, end):
        # N tokens hold N-1 targets: the first one has no context.
        sums.append(nll(results, arm, length) * (length - 1))
        counts.append(length - 1)
    return (sums[1] - sums[0]) / (counts[1] - counts[0])


def zero_shot(results: Results, method: str, scale: float, length: int) -> pd.DataFrame:
    """Mean NLL in nats of the base with another RoPE and no training: rows are seeds, columns documents."""
    tables = _zero_shot(results)
    if (method, scale, length) not in tables:
        raise NotMeasured(f"no zero-shot perplexity of {method} at scale {scale:g} and {length:,} tokens")
    return tables[method, scale, length]


def paired(a: pd.DataFrame, b: pd.DataFrame) -> Array:
    """a - b, document by document and seed by seed (a single seed is set against every seed of the other)."""
    documents = a.columns.intersection(b.columns)
    if documents.empty:
        raise NotMeasured("the two models were not evaluated on the same documents")
    a, b = a[documents], b[documents]
    if len(a) > 1 and len(b) > 1:
        seeds = a.index.intersection(b.index)
        if seeds.empty:
            raise NotMeasured("the two arms have no seed in common")
        a, b = a.loc[seeds], b.loc[seeds]
    return np.asarray(a.to_numpy(float) - b.to_numpy(float))


def gap(a: pd.DataFrame, b: pd.DataFrame) -> Estimate:
    """Paired difference of mean NLL, a - b: the logarithm of the ratio of perplexities."""
    return mean(paired(a, b), unit="difference in ln perplexity")


def hits(results: Results, arm: str, lengths: list[int]) -> Array:
    """Passkey hits (0 or 1) of an arm at these prompt lengths: seeds x trials."""
    return np.asarray(_joined(results, arm, lengths).to_numpy(float))


def retrieval(results: Results, arm: str, lengths: list[int]) -> Estimate:
    """Passkey accuracy of an arm over these prompt lengths."""
    return accuracy(hits(results, arm, lengths))


def paired_hits(results: Results, arm: str, rival: str, lengths: list[int]) -> tuple[Array, Array]:
    """Hits of two arms on the same prompts, of the seeds and trials that both have: seeds x trials each."""
    a, b = (_joined(results, name, lengths) for name in (arm, rival))
    trials = a.columns.intersection(b.columns)
    seeds = a.index.intersection(b.index)
    if trials.empty or seeds.empty:
        raise NotMeasured(f"{arm} and {rival} have no passkey trials in common")
    return np.asarray(a.loc[seeds, trials].to_numpy(float)), np.asarray(b.loc[seeds, trials].to_numpy(float))


def losses(results: Results, arm: str, column: str = "loss") -> pd.Series:
    """Training loss of an arm by step in nats, averaged over its seeds."""
    return _log(results, arm).groupby("step")[column].mean()


def losses_by_seed(results: Results, arm: str) -> pd.DataFrame:
    """Training loss of an arm in nats: seeds x steps, of the steps that every seed has."""
    return split(_log(results, arm), ["arm"], "step", "loss")[(arm,)]


def paired_losses(results: Results, arm: str, rival: str) -> pd.DataFrame:
    """Loss of `rival` minus loss of `arm` on the same batches: seeds x steps, of those that both have."""
    own, other = losses_by_seed(results, arm), losses_by_seed(results, rival)
    steps, seeds = own.columns.intersection(other.columns), own.index.intersection(other.index)
    return other.loc[seeds, steps] - own.loc[seeds, steps]


def loss_gap(results: Results, arm: str, rival: str, window: int) -> pd.DataFrame:
    """Mean of `paired_losses` over seeds by step, and its trailing mean over `window` steps."""
    difference = paired_losses(results, arm, rival).mean().dropna()
    return pd.DataFrame({"gap": difference, "smooth": difference.rolling(window).mean()})


def doublings(window: int, end: float) -> list[int]:
    """L, 2L, 4L, … up to `end` tokens."""
    return [window * 2**k for k in range(32) if window * 2**k <= end]


def passkey_lengths(results: Results, model: Model, low: float, high: float) -> list[int]:
    """Prompt lengths from low to high (tokens, both included) tried on this arm; `high` must be one."""
    frame = present(results, "passkey")
    lengths = sorted({int(n) for n in frame.loc[frame["arm"] == model.arm, "length"] if low <= n <= high})
    if high not in lengths:
        raise NotMeasured(f"no passkey trials of {model.arm} at {high:,.0f} tokens")
    return lengths


def _joined(results: Results, arm: str, lengths: list[int]) -> pd.DataFrame:
    tables = _hits(results)
    for length in lengths:
        if (arm, length) not in tables:
            raise NotMeasured(f"no passkey trials of {arm} at {length:,} tokens")
    return pd.concat({length: tables[arm, length] for length in lengths}, axis=1, join="inner")


def _log(results: Results, arm: str) -> pd.DataFrame:
    frame = present(results, "training")
    rows = frame[frame["arm"] == arm]
    if rows.empty:
        raise NotMeasured(f"no training log of {arm}")
    return rows


@lru_cache(maxsize=256)
def _by_length(results: Results, arm: str, column: str) -> dict[int, pd.DataFrame]:
    frame = present(results, "perplexity")
    tables = split(frame[frame["arm"] == arm], ["length"], "document", column)
    return {int(n): table for (n,), table in tables.items()}


@lru_cache(maxsize=8)
def _zero_shot(results: Results) -> dict[tuple[str, float, int], pd.DataFrame]:
    frame, base = present(results, "zero_shot"), results.base()
    rows = frame[frame["arm"] == (base.arm if base else None)]
    tables = split(rows, ["method", "scale", "length"], "document", "nll")
    return {(m, float(s), int(n)): table for (m, s, n), table in tables.items()}


@lru_cache(maxsize=8)
def _hits(results: Results) -> dict[tuple[str, int], pd.DataFrame]:
    tables = split(present(results, "passkey"), ["arm", "length"], "trial", "hit")
    return {(arm, int(n)): table for (arm, n), table in tables.items()}


def present(results: Results, need: str) -> pd.DataFrame:
    """The frame called `need`, or NotMeasured with the reason why there is none."""
    reason = results.missing((need,))
    if reason is not None:
        raise NotMeasured(reason)
    return results.frame(need)


def split(rows: pd.DataFrame, keys: list[str], columns: str, values: str) -> dict[Any, pd.DataFrame]:
    """For each combination of `keys` a table of seeds by `columns`, without columns that any seed lacks."""
    # One pivot for all: thousands of small ones take seconds.
    wide = rows.pivot(index=[*keys, "seed"], columns=columns, values=values).astype(float)
    numbers, seeds = wide.to_numpy(), wide.index.get_level_values("seed")
    places: dict[Any, list[int]] = {}
    for place, key in enumerate(zip(*(wide.index.get_level_values(k) for k in keys), strict=True)):
        places.setdefault(key, []).append(place)
    tables = {}
    for key, at in places.items():
        kept = ~np.isnan(numbers[at]).any(axis=0)
        tables[key] = pd.DataFrame(numbers[at][:, kept], index=seeds[at], columns=wide.columns[kept])
    return tables
