"""A RoPE method of the user's own is shown and judged like those that yarnlab brings."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest

from results.synthetic import with_frames
from yarnlab.results.analyse import built, specification
from yarnlab.results.claims.judge import evaluate
from yarnlab.results.registry import figures, tables
from yarnlab.results.results import Results
from yarnlab.rope import METHODS, Dynamic, PositionInterpolation

FIGURES = figures()
TABLES = tables()


class Mine(PositionInterpolation):
    method = "mine"


class DynamicMine(Dynamic, Mine):
    method = "dynamic-mine"
    static = Mine


def renamed(frame: pd.DataFrame, method: str, own: str) -> pd.DataFrame:
    """The frame with the rows of a method once more, as those of another method."""
    return pd.concat([frame, frame[frame["method"] == method].assign(method=own)], ignore_index=True)


@pytest.fixture
def own(results: Results, monkeypatch: pytest.MonkeyPatch) -> Results:
    """The study with a static and a dynamic method more in every evaluation of several methods, and an arm of it."""
    monkeypatch.setitem(METHODS, "mine", Mine)
    monkeypatch.setitem(METHODS, "dynamic-mine", DynamicMine)
    static = {kind: renamed(results.frame(kind), "pi", "mine") for kind in ("zero_shot", "entropy")}
    dynamic = {kind: renamed(results.frame(kind), "dynamic-pi", "dynamic-mine") for kind in ("dynamic", "key_cache")}
    arm = replace(results.models["pi-s16"], name="mine-s16", arm="mine-s16", method="mine")
    return replace(with_frames(results, **static, **dynamic), models=results.models | {"mine-s16": arm})


@pytest.mark.parametrize(
    ("figure", "method"),
    [
        ("zero_shot", "mine"),
        ("entropy", "mine"),
        ("frequencies", "mine"),
        ("dynamic", "dynamic-mine"),
        ("dynamic_relative", "dynamic-mine"),
    ],
)
def test_is_drawn(own: Results, figure: str, method: str) -> None:
    spec = specification(own, FIGURES[figure])
    rows = [row for data in spec["datasets"].values() for row in data]
    assert method in {row.get("method") or row.get("model") for row in rows}
    assert f'"{method}"' in json.dumps(spec["config"] | {"rest": [spec[k] for k in spec if k != "datasets"]})  # a scale


@pytest.mark.parametrize(
    ("table", "method"),
    [("zero_shot", "mine"), ("entropy", "mine"), ("dynamic", "dynamic-mine"), ("key_cache", "dynamic-mine")],
)
def test_is_tabulated(own: Results, table: str, method: str) -> None:
    frame, sections = built(own, TABLES[table])
    assert method in set(frame["method"])
    assert any(method in section.frame.to_csv() for section in sections)


def test_is_judged(own: Results, results: Results) -> None:
    """Every claim has a verdict, and the wrong key cache of an own dynamic method counts."""
    verdicts = {claim.id: verdict for claim, verdict in evaluate(own)}
    before = {claim.id: verdict for claim, verdict in evaluate(results)}
    assert {name: v.status for name, v in verdicts.items()} == {name: v.status for name, v in before.items()}
    assert any(part.name.startswith("dynamic-mine") for part in verdicts["6"].parts)
