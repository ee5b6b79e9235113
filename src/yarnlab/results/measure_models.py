"""From frames to arrays: sliding windows and multiple-choice items of every model."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from yarnlab.results.load import Results
from yarnlab.results.measure import NotMeasured, present, split
from yarnlab.results.statistics import Array, Estimate, Z, mean, student_half

# The paper reports these tasks by accuracy normalised by length, all others by plain accuracy (Table 3).
NORMALISED = ("arc_challenge", "hellaswag")
MMLU = "mmlu"


@dataclass(frozen=True, eq=False)
class Windows:
    """Sliding windows of one arm: mean NLL in nats, seeds x documents.

    by_window: windows of a document with equal weight; by_token: with the tokens they score; count: windows a
    document has, which is its weight in the official pooled value (eval/perplexity.py:75, 86).
    """

    by_window: pd.DataFrame
    by_token: pd.DataFrame
    count: Array


@lru_cache(maxsize=64)
def windows_of(results: Results, arm: str) -> Windows:
    """The sliding windows of an arm, or NotMeasured."""
    frame = present(results, "sliding_window")
    rows = frame[frame["arm"] == arm]
    if rows.empty:
        raise NotMeasured(f"no sliding windows of {arm}")
    rows = rows.assign(weighted=rows["nll"] * rows["tokens"])
    keys = ["arm", "seed", "document"]
    grouped = rows.groupby(keys, as_index=False).agg(
        nll=("nll", "mean"), weighted=("weighted", "sum"), tokens=("tokens", "sum"), windows=("nll", "size")
    )
    grouped["weighted"] /= grouped["tokens"]
    by_window, by_token, count = (
        split(grouped, ["arm"], "document", column)[(arm,)] for column in ("nll", "weighted", "windows")
    )
    return Windows(by_window, by_token, count.to_numpy()[0])


def tasks(results: Results) -> list[str]:
    """Names of the multiple-choice tasks, in the order of the file; MMLU's subjects are tasks."""
    return [str(name) for name in present(results, "benchmarks.samples")["task"].drop_duplicates()]


def reported(task: str) -> str:
    """The metric that counts for a task: acc_norm or acc."""
    return "acc_norm" if task in NORMALISED else "acc"


def group(task: str) -> str:
    """What a task counts as in a mean over tasks: MMLU's subjects are one task together."""
    return MMLU if task.startswith(f"{MMLU}_") else task


def answers(results: Results, arm: str, names: list[str], metric: str | None = None) -> tuple[pd.DataFrame, Array]:
    """Scores of an arm (seeds x items, 1 for a right answer) and each item's weight.

    Groups weigh the same, tasks in a group the same, items in a task the same. `metric`: acc or acc_norm; None: the
    one that is reported for each task.
    """
    found, weights = [], []
    size = Counter(group(task) for task in names)
    for task in names:
        table = _answers(results, metric or reported(task)).get((arm, task))
        if table is None:
            raise NotMeasured(f"no answers of {arm} to {task}")
        found.append(table)
        weights.append(np.full(table.shape[1], 1 / (table.shape[1] * size[group(task)])))
    joined = pd.concat(dict(zip(names, found, strict=True)), axis=1, join="inner")
    return joined, np.concatenate(weights)


def paired_answers(
    results: Results, arm: str, rival: str, names: list[str], metric: str | None = None
) -> tuple[Array, Array, Array]:
    """Scores of two arms on the same items (seeds x items each) and the items' weights."""
    (a, weights), (b, _) = (answers(results, one, names, metric) for one in (arm, rival))
    items, seeds = a.columns.intersection(b.columns, sort=False), a.index.intersection(b.index)
    if len(items) != a.shape[1] or len(items) != b.shape[1] or seeds.empty:
        raise NotMeasured(f"{arm} and {rival} did not answer the same items")
    return np.asarray(a.loc[seeds, items].to_numpy(float)), np.asarray(b.loc[seeds, items].to_numpy(float)), weights


def reported_score(values: Array, errors: Array, n: int, over: str) -> Estimate:
    """Mean over seeds of lm-eval's scores, with its standard error of each; n: the items (`over`) of one seed.

    Seeds answer the same items, so that their errors do not average out; the spread of the seeds comes on top.
    """
    value, seeds = float(values.mean()), len(values)
    half = math.hypot(Z * math.sqrt(float((errors**2).mean())), student_half(values) if seeds > 1 else 0.0)
    method = "normal, lm-eval's standard error"
    if seeds > 1:
        over, method = f"{over} x seeds ({n} x {seeds})", f"{method}; Student's t over seeds (MOVER)"
    return Estimate(value, value - half, value + half, n * seeds, over, "proportion", method)


def battery(results: Results, arm: str) -> Estimate:
    """Unweighted mean over tasks of the reported metric, items resampled with their weights."""
    found, weights = answers(results, arm, tasks(results))
    return mean(found.to_numpy(), weights=weights, over="items", unit="proportion")


def battery_gap(results: Results, arm: str, rival: str, names: list[str] | None = None) -> Estimate:
    """Mean over tasks of the reported metric, arm minus rival on the same items."""
    a, b, weights = paired_answers(results, arm, rival, names or tasks(results))
    return mean(a - b, weights=weights, over="items", unit="difference of proportions")


@lru_cache(maxsize=8)
def _answers(results: Results, column: str) -> dict[tuple[str, str], pd.DataFrame]:
    return split(present(results, "benchmarks.samples"), ["arm", "task"], "item", column)
