"""Score of every arm by task and metric, and over all tasks ('mean'); delta: minus its base on the same items.

p: of `test`, McNemar's exact one for one seed; p_holm: corrected over the table. Where answers are not simply
right or wrong the interval is that of lm-eval's standard error and there is no test.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any

from yarnlab.lazy import np, pd
from yarnlab.results.bases import tree_of
from yarnlab.results.display import (
    Cell,
    DisplayTable,
    by_model,
    captioned,
    cell,
    mark_note,
    own_cell,
    percent,
    percent_points,
    rows_of,
    same_base,
    tested,
)
from yarnlab.results.estimates import (
    MMLU,
    NotMeasured,
    answers,
    group,
    mean_score,
    paired_answers,
    reported_score,
    score_gap,
    tasks,
)
from yarnlab.results.registry import table
from yarnlab.results.results import Model, Results
from yarnlab.results.rows import difference, head, named_arms, numbers, with_base, with_holm
from yarnlab.results.statistics import Array, Estimate, accuracy, mcnemar, mean, paired_difference_of_proportions


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
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
            row |= numbers("accuracy", mean_score(results, model.arm))
            if base is not None and model.arm != base.arm:
                with suppress(NotMeasured):
                    row |= difference(score_gap(results, model.arm, base.arm))
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
        return difference(score_gap(results, model.arm, base.arm, subjects)) if subjects else {}
    if task not in kept:
        return {}
    a, b, _ = paired_answers(results, model.arm, base.arm, [task], metric)
    if not (_binary(a) and _binary(b)):
        return difference(mean(a - b, over="items", unit="difference of proportions"))
    return difference(paired_difference_of_proportions(a, b)) | mcnemar(a, b).columns()


@table("Short tasks", tidy, needs=("benchmarks",), section="short-context", place=20, opened=2)
def benchmarks(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Models by task and metric; then the differences to the base on the same items. MMLU's subjects are left out."""
    frame = frame[[group(task) == task for task in frame["task"]]]
    shots = ", ".join(str(n) for n in sorted(frame["shots"].unique()))
    mean = "'mean' weighs the tasks equally, each by the metric that is reported for it."
    caption = captioned(f"Share of right answers, {shots} examples before each question", frame, mean)
    sections = [_by_task(results, caption, frame, own_cell(percent, "accuracy"))]
    if "delta" in frame:
        others = frame.dropna(subset=["delta"])
        text = "The same minus the base on the same items, in percentage points (below 0: worse than the base)"
        note = mark_note(others, " or ".join(others["test"].dropna().unique())) + same_base(frame)
        caption = captioned(text, others, note)
        sections.append(_by_task(results, caption, others, tested(cell(percent_points, "delta"))))
    return sections


def _by_task(results: Results, caption: str, frame: pd.DataFrame, cell: Cell) -> DisplayTable:
    named = frame.assign(column=[r.task if r.task == "mean" else f"{r.task} {r.metric}" for r in rows_of(frame)])
    columns = sorted(named["column"].unique(), key=lambda name: name == "mean")
    cells = {(r.label, r.column): cell(r) for r in rows_of(named)}
    return by_model(results, "benchmarks", caption, frame, cells, dict(zip(columns, columns, strict=True)))
