"""Tidy tables of the paper's other protocols: sliding windows, the official passkey prompt, benchmarks."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import lru_cache
from typing import Any

from yarnlab.lazy import np, pd
from yarnlab.results.bases import tree_of
from yarnlab.results.estimates import (
    MMLU,
    NotMeasured,
    Windows,
    answers,
    battery,
    battery_gap,
    group,
    paired,
    paired_answers,
    reported_score,
    split,
    tasks,
    windows_of,
)
from yarnlab.results.results import Model, Results
from yarnlab.results.rows import difference, head, named_arms, numbers, with_base, with_holm
from yarnlab.results.statistics import (
    Array,
    Estimate,
    accuracy,
    difference_of_proportions,
    fisher,
    geometric_mean_perplexity,
    mcnemar,
    mean,
    paired_difference_of_proportions,
)

FOUND = 0.8  # a window counts as usable from this passkey accuracy on (caption of the paper's Table 5)


@lru_cache(maxsize=4)
def sliding_window(results: Results) -> pd.DataFrame:
    """Sliding-window perplexity of every arm: the official pooled value and the mean over documents.

    Both are resampled by document, since windows of one document overlap. delta: ln perplexity minus that of YaRN from
    the same base, paired by document.
    """
    rows: list[dict[str, Any]] = []
    present = set(results.frame("sliding_window")["arm"])
    for model, name in named_arms(results):
        if model.arm not in present:
            continue
        first = tree_of(results, model.arm).extended()
        own = windows_of(results, model.arm)
        for measure in ("windows pooled", "documents"):
            values, weights = _measured(own, measure)
            row = head(model, name) | {"measure": measure, "windows": int(own.count.sum())}
            row |= numbers("perplexity", geometric_mean_perplexity(values.to_numpy(), weights))
            if first is not None and first.arm in present and model.arm != first.arm:
                row |= difference(sliding_gap(results, model, first, measure))
            rows.append(row)
    return with_base(results, pd.DataFrame(rows))


def sliding_gap(results: Results, a: Model, b: Model, measure: str) -> Estimate:
    """ln perplexity of a minus that of b over the same windows, paired by document."""
    own, other = windows_of(results, a.arm), windows_of(results, b.arm)
    if not np.array_equal(own.count, other.count):
        raise NotMeasured(f"{a.arm} and {b.arm} were not evaluated on the same windows")
    values, weights = _measured(own, measure)
    differences = paired(values, _measured(other, measure)[0])
    return mean(differences, weights=weights, unit="difference in ln perplexity")


def _measured(windows: Windows, measure: str) -> tuple[pd.DataFrame, Array | None]:
    return (windows.by_window, windows.count) if measure == "windows pooled" else (windows.by_token, None)


@lru_cache(maxsize=4)
def passkey_official(results: Results) -> pd.DataFrame:
    """Accuracy under the official prompt by length, beside the teacher-forced one at the same length.

    delta: official minus teacher-forced, over the seeds that both have, on different trials. p: of `test`, Fisher's
    exact one for one seed; p_holm: corrected over the table.
    """
    tables, other = _hits(results, "passkey_official"), {}
    if results.has("passkey"):
        other = _hits(results, "passkey")
    rows = []
    for model, name in named_arms(results):
        for length in sorted(length for arm, length in tables if arm == model.arm):
            own = tables[model.arm, length]
            row = head(model, name) | {"length": int(length)} | numbers("accuracy", accuracy(own.to_numpy()))
            forced = other.get((model.arm, length))
            if forced is not None and len(seeds := own.index.intersection(forced.index)):
                row |= _protocols(own.loc[seeds].to_numpy(), forced.loc[seeds].to_numpy())
            rows.append(row)
    return with_base(results, with_holm(pd.DataFrame(rows)))


def _protocols(hits: Array, forced: Array) -> dict[str, Any]:
    """Teacher-forced accuracy and what the official one is above it, from hits of the same seeds (seeds x trials)."""
    own, other = accuracy(hits), accuracy(forced)
    row = other.columns("teacher_forced") | {"teacher_forced_n": other.n}
    return row | difference(difference_of_proportions(own, other)) | fisher(hits, forced).columns()


def passkey_context(results: Results) -> pd.DataFrame:
    """The paper's summary: the longest length with at least 80 % accuracy, and the accuracy up to it."""
    tables, rows = _hits(results, "passkey_official"), []
    for model, name in named_arms(results):
        own = {length: table for (arm, length), table in tables.items() if arm == model.arm}
        if not own:
            continue
        context = max((n for n, hits in own.items() if hits.to_numpy().mean() >= FOUND), default=0)
        row: dict[str, Any] = {"arm": model.arm, "label": name, "context": int(context)}
        row |= {"accuracy": math.nan, "low": math.nan, "high": math.nan, "n": 0, "over": "trials"}
        if context:
            upto = pd.concat({n: hits for n, hits in own.items() if n <= context}, axis=1, join="inner")
            row |= numbers("accuracy", accuracy(upto.to_numpy()))
        rows.append(row)
    return pd.DataFrame(rows)


def _hits(results: Results, kind: str) -> dict[Any, pd.DataFrame]:
    return split(results.frame(kind), ["arm", "length"], "trial", "hit")


@lru_cache(maxsize=4)
def benchmarks(results: Results) -> pd.DataFrame:
    """Score of every arm by task and metric, and over all tasks ('mean'); delta: minus its base on the same items.

    p: of `test`, McNemar's exact one for one seed; p_holm: corrected over the table. Where answers are not simply
    right or wrong the interval is that of lm-eval's standard error and there is no test.
    """
    frame = results.frame("benchmarks")
    kept = tasks(results) if results.has("benchmarks.samples") else []
    rows: list[dict[str, Any]] = []
    for model, name in named_arms(results):
        own, base = frame[frame["arm"] == model.arm], tree_of(results, model.arm).base()
        for (task, metric), part in own.groupby(["task", "metric"], sort=False):
            row = head(model, name) | {"task": task, "metric": metric, "shots": int(part["shots"].iloc[0])}
            row |= numbers("accuracy", _score(results, model.arm, str(task), str(metric), part, kept))
            if base is not None and model.arm != base.arm:
                with suppress(NotMeasured):  # the base has not answered yet
                    row |= _against(results, model, base, str(task), str(metric), kept)
            rows.append(row)
        if len(own) and kept:
            row = head(model, name) | {"task": "mean", "metric": "reported", "shots": int(own["shots"].iloc[0])}
            row |= numbers("accuracy", battery(results, model.arm))
            if base is not None and model.arm != base.arm:
                with suppress(NotMeasured):
                    row |= difference(battery_gap(results, model.arm, base.arm))
            rows.append(row)
    return with_base(results, with_holm(pd.DataFrame(rows)))


def _binary(hits: Array) -> bool:
    return bool(np.isin(hits, (0.0, 1.0)).all())


def _score(results: Results, arm: str, task: str, metric: str, part: pd.DataFrame, kept: list[str]) -> Estimate:
    if task in kept:
        hits = answers(results, arm, [task], metric)[0].to_numpy()
        if _binary(hits):
            return accuracy(hits)
    values, errors = (part[column].to_numpy(float) for column in ("value", "stderr"))
    return reported_score(values, errors, int(part["n"].iloc[0]), "items")


def _against(results: Results, model: Model, base: Model, task: str, metric: str, kept: list[str]) -> dict[str, Any]:
    if task == MMLU and metric == "acc":
        subjects = [name for name in kept if group(name) == MMLU]
        return difference(battery_gap(results, model.arm, base.arm, subjects)) if subjects else {}
    if task not in kept:
        return {}
    a, b, _ = paired_answers(results, model.arm, base.arm, [task], metric)
    if not (_binary(a) and _binary(b)):
        return difference(mean(a - b, over="items", unit="difference of proportions"))
    return difference(paired_difference_of_proportions(a, b)) | mcnemar(a, b).columns()
