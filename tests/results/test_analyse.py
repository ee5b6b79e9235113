"""All of a study's tables, figures and claims in one go, and the index that names them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from results.light import light
from results.report.conftest import COMMAND, without_pictures
from results.synthetic import write_study
from yarnlab.provenance import sha256_of
from yarnlab.results import analyse
from yarnlab.results.registry import figures, tables


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


def small(folder: Path) -> Path:
    """A study of two kinds of evaluations that does not stand for the paper."""
    study = write_study(folder, ablation=False, documents=4, skip=("zero_shot",))
    plan = json.loads((study / "study.json").read_text())
    plan["claims"]["published"] = False
    plan["evaluations"]["zero_shot"] = None
    (study / "study.json").write_text(json.dumps(plan))
    return study


def test_a_study_makes_what_it_asks_for(tmp_path: Path) -> None:
    """No table or figure of an evaluation that it does not have, none of the paper's; every file as the index says."""
    study = small(tmp_path / "study")
    with light():
        index = json.loads(analyse.analyse(study, command=COMMAND).read_text())
    assert {"perplexity", "passkey", "training", "cost"} <= set(index["tables"])
    assert not {"zero_shot", "entropy", "table_1", "verdicts"} & set(index["tables"])
    assert not {"zero_shot", "temperature_fit"} & set(index["figures"])
    for name, written in index["outputs"].items():
        assert (sha256_of(study / name), (study / name).stat().st_size) == (written["sha256"], written["bytes"])
    stems = {Path(name).stem for name in index["outputs"] if name.startswith("tables/")}
    assert stems == set(index["tables"]) and "claims.json" in index["outputs"]


def test_what_fails_takes_nothing_else_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure with a mistake: all others are written, its error is raised, and no index says that all is well."""

    def mistaken(results: object) -> None:
        raise ZeroDivisionError("a mistake")

    broken = {**figures(), "figure_1": replace(figures()["figure_1"], draw=mistaken)}
    monkeypatch.setattr(analyse, "figures", lambda: broken)
    study = small(tmp_path / "study")
    with light(), pytest.raises(ZeroDivisionError, match="a mistake"):
        analyse.analyse(study, command=COMMAND)
    assert not (study / analyse.INDEX).exists() and (study / "claims.json").is_file()
    assert (study / "tables/perplexity.csv").is_file() and (study / "figures/passkey.json").is_file()
    assert not (study / "figures/figure_1.json").exists() and "figure_1" in figures() and "passkey" in tables()
