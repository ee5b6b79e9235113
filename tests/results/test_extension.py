"""A study about one model: its statements turn with the results, and its page tells nothing of the paper."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from results.light import light
from results.report.check import check_report
from results.report.conftest import COMMAND, without_pictures
from results.synthetic import write_study
from yarnlab.results import analyse
from yarnlab.results.claims import judge
from yarnlab.results.claims.criteria import load_criteria
from yarnlab.results.registry import criteria_file
from yarnlab.results.report.render import write_report
from yarnlab.results.results import Results, load

SCALE = 16
EXTENSION_1 = "158148d64be9f7b2e437a8effef2494ecc32c50430befe317c656155c96d0e42"
ARMS = {"base": "base", "extended": "yarn-s16", "interpolated": "pi-s16", "plain": "plain-s16"}
UNTRAINED = {"untrained": "yarn", "untrained-interpolated": "pi"}
STATEMENTS = load_criteria(criteria_file("extension")).claims


def of_one_model(folder: Path) -> Path:
    """The synthetic study cut down to what `yarnlab new` writes: the untrained arms have the base's numbers, worse."""
    study = write_study(folder, further=True)
    plan = json.loads((study / "study.json").read_text())
    models = {new: {**plan["models"][old], "arm": new} for new, old in ARMS.items()}
    for model in models.values():
        model |= {"parent": model["parent"] and "base"} | ({"steps": 100, "tokens": 409_600} if model["parent"] else {})
    for name, method in UNTRAINED.items():
        models[name] = {**models["base"], "arm": name, "kind": "zero-shot", "parent": "base", "method": method}
        models[name] |= {"scale": SCALE, "trained_length": None}
    kinds = {
        kind: plan["evaluations"][kind] | {"models": list(models)} for kind in ("perplexity", "context", "passkey")
    }
    claims = {"form": "extension", "published": False, "roots": {}}
    changes = {"models": models, "evaluations": dict.fromkeys(plan["evaluations"]) | kinds, "claims": claims}
    (study / "study.json").write_text(json.dumps(plan | {"title": "Mine", "study": "mine"} | changes))
    for kind in kinds:
        place = study / "evaluations" / kind
        for name in models:
            old = ARMS.get(name, "base")
            frame = pd.read_parquet(place / f"{old}.parquet").assign(model=name, arm=name)
            frame = frame.assign(method=models[name]["method"], scale=float(models[name]["scale"]))
            if name in UNTRAINED:
                frame = frame.assign(
                    **{column: frame[column] + 0.5 for column in ("nll", "bucket_nll") if column in frame}
                )
            frame.to_parquet(place / f"{name}.parquet")
            manifest = json.loads((place / f"{old}.manifest.json").read_text())
            (place / f"{name}.manifest.json").write_text(json.dumps(manifest | {"name": name}))
    for new, old in ARMS.items():
        (study / "models" / new).mkdir(exist_ok=True)
        (study / "models" / new / "manifest.json").write_bytes((study / "models" / old / "manifest.json").read_bytes())
        (study / "training" / f"{new}.jsonl").write_bytes((study / "training" / f"{old}.jsonl").read_bytes())
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return of_one_model(tmp_path_factory.mktemp("results") / "mine")


@pytest.fixture(scope="module")
def mine(study: Path) -> Results:
    return load(study)


def judged(results: Results) -> dict[str, str]:
    with light(1000):
        return {claim.id: verdict.status for claim, verdict in judge.evaluate(replace(results))}


def test_a_model_that_works_has_every_statement(mine: Results) -> None:
    found = judged(mine)
    assert set(found) == {claim.id for claim in STATEMENTS}
    assert {name for name, status in found.items() if status != "holds"} <= {"short-texts", "short-texts-plain"}


def worse(arm: str, by: float, **where: int) -> Callable[[Results], Results]:
    """The study with more loss of one arm, and none of its passkeys found; `where`: in these rows alone."""

    def change(results: Results) -> Results:
        frames = dict(results.frames)
        for kind, columns in {"perplexity": ["nll", "bucket_nll"], "context": ["nll"], "passkey": ["hit"]}.items():
            frame = frames[kind].copy()
            rows = frame["arm"] == arm
            if not where.keys() <= {*frame}:
                continue
            for key, value in where.items():
                rows &= frame[key] == value
            for column in columns:
                changed = frame[column] * 0 if column == "hit" else frame[column] + by
                frame[column] = frame[column].where(~rows, changed)
            frames[kind] = frame
        return replace(results, frames=frames)

    return change


@pytest.mark.parametrize(
    ("statement", "change"),
    [
        ("reaches", worse("extended", 5.0, context=8192)),
        ("truncation", worse("extended", 5.0)),
        ("perplexity", worse("extended", 5.0, length=256 * SCALE)),
        ("passkey-base", worse("base", 0.0)),
        ("passkey", worse("extended", 0.0)),
        ("short-texts", worse("extended", 5.0)),
        ("short-texts-plain", worse("extended", 5.0)),
        ("base", worse("extended", 9.0)),
        ("untrained", worse("extended", 9.0)),
        ("plain", worse("extended", 9.0)),
        ("interpolated", worse("extended", 5.0)),
        ("untrained-interpolated", worse("extended", 9.0)),
    ],
)
def test_every_statement_can_fail(mine: Results, statement: str, change: Callable[[Results], Results]) -> None:
    assert judged(change(mine))[statement] == "fails"


def test_an_arm_that_is_missing_is_named(mine: Results) -> None:
    models = {name: model for name, model in mine.models.items() if name in ("base", "extended")}
    with light():
        found = {claim.id: verdict for claim, verdict in judge.evaluate(replace(mine, models=models))}
    assert found["interpolated"].text == "this study has no PI arm trained like extended"
    assert found["untrained"].text == "this study has no untrained YaRN arm of its scale"
    assert found["reaches"].status == "holds"


@pytest.mark.parametrize(
    "rope",
    [{"method": "yarn", "scale": 4.0}, {"method": "llama3", "scale": 32.0, "max_position_embeddings": 1024}],
)
def test_a_model_that_was_extended_before_is_judged_from_its_window(rope: dict, study: Path, tmp_path: Path) -> None:
    """Its L is the window that it has; s is what the new one is of that. A scale of llama3 does not say it."""
    plan = json.loads((study / "study.json").read_text())
    plan["models"]["base"] |= {**rope, "kind": "hub"}
    (tmp_path / "study.json").write_text(json.dumps(plan))
    found = load(tmp_path)
    assert found.original_context == 4 * 256
    assert (found.extension().name, found.last_doubling()) == ("extended", (2048, 4096))


def test_its_page_is_about_the_model(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer first, then what it cost and how to load it; neither claims of the paper nor published numbers."""
    without_pictures(monkeypatch)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with light():
        analyse.analyse(study, command=COMMAND)
        page = html.unescape(write_report(study, command=COMMAND).read_text())
    assert check_report(study) == []
    text = " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL).split())
    assert "From 256 to 4,096 tokens: did it work?" in text and f'folder = "{study.resolve()}/models/extended"' in page
    assert "trained for 100 steps on rows of 4,096 tokens" in text and "Training took 1 min 10 s" in text
    assert not re.search(r"\b(claims?(?!\.json)|published|paper.s)\b", text, re.IGNORECASE)
    index = json.loads((study / "analysis.json").read_text())
    assert "extension" in index["tables"]
    assert not {"verdicts", "table_1", "ablation", "figure_1_relative"} & {*index["tables"], *index["figures"]}


def test_criteria_cannot_change_without_a_new_version() -> None:
    """A criterion is fixed before its result: editing one fails here until the version is raised too."""
    criteria = load_criteria(criteria_file("extension"))
    assert (criteria.version, criteria.sha256) == ("1", EXTENSION_1)
