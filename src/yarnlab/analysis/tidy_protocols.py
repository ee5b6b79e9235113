"""Tidy tables of the paper's other protocols: sliding windows, the official passkey prompt, benchmarks."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from yarnlab.analysis.hypothesis import fisher, mcnemar
from yarnlab.analysis.load import Model, Results
from yarnlab.analysis.measure import NotMeasured, paired, split
from yarnlab.analysis.measure_models import (
    MMLU,
    Windows,
    answers,
    battery,
    battery_gap,
    group,
    paired_answers,
    tasks,
    windows_of,
)
from yarnlab.analysis.rows import difference, head, named_arms, numbers, with_holm
from yarnlab.analysis.statistics import (
    Array,
    Estimate,
    accuracy,
    geometric_mean_perplexity,
    mean,
    paired_difference_of_proportions,
    proportion,
)

FOUND = 0.8  # a window counts as usable from this passkey accuracy on (caption of the paper's Table 5)


@lru_cache(maxsize=4)
def sliding_window(results: Results) -> pd.DataFrame:
    """Sliding-window perplexity of every arm: the official pooled value and the mean over documents.

    Both are resampled by document, since windows of one document overlap. delta: ln perplexity minus YaRN's,
    paired by document.
    """
    rows: list[dict[str, Any]] = []
    present = set(results.frame("sliding_window")["arm"])
    first = results.extended()
    for model, name in named_arms(results):
        if model.arm not in present:
            continue
        own = windows_of(results, model.arm)
        for measure in ("windows pooled", "documents"):
            values, weights = _measured(own, measure)
            row = head(model, name) | {"measure": measure, "windows": int(own.count.sum())}
            row |= numbers("perplexity", geometric_mean_perplexity(values.to_numpy(), weights))
            if first is not None and first.arm in present and model.arm != first.arm:
                row |= difference(sliding_gap(results, model, first, measure))
            rows.append(row)
    return pd.DataFrame(rows)


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

    p: Fisher's exact test between the two protocols (their trials differ); p_holm: corrected over the table.
    """
    tables = split(results.frame("passkey_official"), ["arm", "length"], "trial", "hit")
    other = {}
    if results.has("passkey"):
        other = split(results.frame("passkey"), ["arm", "length"], "trial", "hit")
    rows = []
    for model, name in named_arms(results):
        for length in sorted(length for arm, length in tables if arm == model.arm):
            hits = tables[model.arm, length].to_numpy()
            row = head(model, name) | {"length": int(length)} | numbers("accuracy", accuracy(hits))
            if (model.arm, length) in other:
                forced = other[model.arm, length].to_numpy()
                row |= {"teacher_forced": float(forced.mean()), "teacher_forced_n": forced.size}
                row |= {"p": fisher(int(hits.sum()), hits.size, int(forced.sum()), forced.size).p}
            rows.append(row)
    return with_holm(pd.DataFrame(rows))


def passkey_context(frame: pd.DataFrame) -> pd.DataFrame:
    """The paper's summary: the longest length with at least 80 % accuracy, and the accuracy up to it."""
    rows = []
    for arm, own in frame.groupby("arm", sort=False):
        usable = own.loc[own["accuracy"] >= FOUND, "length"]
        context = int(usable.max()) if len(usable) else 0
        upto = own[own["length"] <= context]
        trials = int(upto["n"].sum())
        row: dict[str, Any] = {"arm": arm, "label": own["label"].iloc[0], "context": context}
        row |= {"accuracy": math.nan, "low": math.nan, "high": math.nan, "n": 0, "over": "trials"}
        if trials:
            row |= numbers("accuracy", proportion(round(float((upto["accuracy"] * upto["n"]).sum())), trials))
        rows.append(row)
    return pd.DataFrame(rows)


@lru_cache(maxsize=4)
def benchmarks(results: Results) -> pd.DataFrame:
    """Score of every arm by task and metric, and over all tasks ('mean'); delta: minus the base on the same items.

    p: McNemar's exact test; p_holm: corrected over the table. Where answers are not simply right or wrong the
    interval is that of lm-eval's standard error and there is no test.
    """
    frame, base = results.frame("benchmarks"), results.base()
    kept = tasks(results) if results.has("benchmarks.samples") else []
    rows: list[dict[str, Any]] = []
    for model, name in named_arms(results):
        own = frame[frame["arm"] == model.arm]
        for (task, metric), part in own.groupby(["task", "metric"], sort=False):
            row = head(model, name) | {"task": task, "metric": metric, "shots": int(part["shots"].iloc[0])}
            row |= numbers("accuracy", _score(results, model.arm, str(task), str(metric), part, kept))
            if base is not None and model.arm != base.arm:
                row |= _against(results, model, base, str(task), str(metric), kept)
            rows.append(row)
        if len(own) and kept:
            row = head(model, name) | {"task": "mean", "metric": "reported", "shots": int(own["shots"].iloc[0])}
            row |= numbers("accuracy", battery(results, model.arm))
            if base is not None and model.arm != base.arm:
                row |= difference(battery_gap(results, model.arm, base.arm))
            rows.append(row)
    return with_holm(pd.DataFrame(rows))


def _binary(hits: Array) -> bool:
    return bool(np.isin(hits, (0.0, 1.0)).all())


def _score(results: Results, arm: str, task: str, metric: str, part: pd.DataFrame, kept: list[str]) -> Estimate:
    if task in kept:
        hits = answers(results, arm, [task], metric)[0].to_numpy()
        if _binary(hits):
            return accuracy(hits)
    value, n = float(part["value"].mean()), int(part["n"].sum())
    half = 1.96 * math.sqrt(float((part["stderr"] ** 2).sum())) / len(part)
    return Estimate(value, value - half, value + half, n, "items", "proportion", "lm-eval's standard error")


def _against(results: Results, model: Model, base: Model, task: str, metric: str, kept: list[str]) -> dict[str, Any]:
    if task == MMLU and metric == "acc":
        subjects = [name for name in kept if group(name) == MMLU]
        return difference(battery_gap(results, model.arm, base.arm, subjects)) if subjects else {}
    if task not in kept:
        return {}
    a, b, _ = paired_answers(results, model.arm, base.arm, [task], metric)
    if not (_binary(a) and _binary(b)):
        return difference(mean(a - b, over="items", unit="difference of proportions"))
    return difference(paired_difference_of_proportions(a, b)) | {"p": mcnemar(a, b).p}
