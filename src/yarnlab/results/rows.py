"""The columns that tidy tables share: which model, the number with its interval and n, a paired difference."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.bases import by_base
from yarnlab.results.results import Model, Results
from yarnlab.results.statistics import Estimate, holm
from yarnlab.results.style import labels


def named_arms(results: Results) -> list[tuple[Model, str]]:
    """The first model of every arm with its label, in the study's order."""
    names = labels(results)
    return [(model, names[arm]) for arm, model in results.arms().items()]


def head(model: Model, name: str) -> dict[str, Any]:
    """What every row of a table of models begins with."""
    return {"arm": model.arm, "label": name, "method": model.method, "scale": model.scale}


def numbers(column: str, e: Estimate) -> dict[str, Any]:
    """The estimate called `column`, with low, high, n and what n counts."""
    return {column: e.value, "low": e.low, "high": e.high, "n": e.n, "over": e.over}


def difference(e: Estimate) -> dict[str, Any]:
    """A second estimate in the same row: a paired difference."""
    return {"delta": e.value, "delta_low": e.low, "delta_high": e.high}


def with_base(results: Results, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the root arm of each row's arm first, as `base`, where the study has several roots."""
    if len(by_base(results)) < 2 or frame.empty:
        return frame
    return pd.concat([frame["arm"].map(results.root).rename("base"), frame], axis=1)


def with_holm(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with `p_holm` beside `p`, corrected over all of the table's comparisons."""
    if "p" not in frame:
        return frame
    tested = frame["p"].notna()
    frame = frame.assign(p_holm=float("nan"))
    frame.loc[tested, "p_holm"] = holm(frame.loc[tested, "p"].tolist())
    return frame
