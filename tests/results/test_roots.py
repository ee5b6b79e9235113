"""A study of several bases: each base's tables and figures are those of its study alone, and no number crosses over."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from results.light import light
from results.synthetic import ENTRY, with_frames
from yarnlab.results.analyse import built, sources, specification
from yarnlab.results.bases import OTHERS, by_base, groups
from yarnlab.results.compare import numbers
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.registry import figures, tables
from yarnlab.results.results import Model, Results
from yarnlab.results.style import STYLES, labels, style_of

FIGURES = figures()
TABLES = tables()
OF_ONE_BASE = [name for name, table in TABLES.items() if table.per_base]

OF_MODELS = ("passkey_comparison", "sliding_window", "benchmarks", "passkey", "passkey_official", "perplexity")
LENGTHS = ("length", "bucket_start", "bucket_end", "start")
FIRST, SECOND = "base", "b-base"
ARMS = ("base", "yarn-s16", "pi-s16", "plain-s16", "yarn-s32")  # of the study of one base; others add no other code
LONE = {"lone": 1024, "longer": 2048}  # published models that nothing starts from, with L in tokens


def other(results: Results) -> Results:
    """The same study from another base of twice the window: other names and numbers, lengths twice as long."""
    models = {}
    for name, model in results.models.items():
        parent = model.parent and f"b-{model.parent}"
        own = replace(model, name=f"b-{name}", arm=f"b-{model.arm}", parent=parent, original_context=512)
        models[own.name] = own
    frames = {}
    for kind, frame in results.frames.items():
        changed: dict[str, Any] = {column: "b-" + frame[column] for column in ("model", "arm")}
        changed |= {column: 2 * frame[column] for column in LENGTHS if column in frame}
        changed |= {column: 1.5 * frame[column] for column in ("nll", "tail_nll", "loss", "entropy") if column in frame}
        changed |= {"nll": frame["nll"] + frame["factor"]} if "factor" in frame else {}
        changed |= {column: 1 - frame[column] for column in ("acc", "acc_norm", "value") if column in frame}
        changed |= {"hit": ~frame["hit"]} if "hit" in frame else {}
        frames[kind] = frame.assign(**changed)
    return replace(results, models=models, frames=frames, original_context=512)


@pytest.fixture(scope="module")
def studies(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Results]]:
    """Two studies by the name of their base, and as '' one of both together with LONE."""
    with light(100):
        models = {name: model for name, model in results.models.items() if model.arm in ARMS}
        frames = {kind: frame[frame["arm"].isin(ARMS)] for kind, frame in results.frames.items()}
        first = replace(results, models=models, frames=frames)
        second = other(first)
        own = {name: replace(model, original_context=256) for name, model in first.models.items()}
        alone = {n: Model(n, n, "none", 1.0, None, 42, None, "hub", original_context=L) for n, L in LONE.items()}
        frames = {kind: pd.concat([first.frame(kind), second.frame(kind)]) for kind in first.frames}
        read = first.frame("perplexity").query("arm == 'base'")
        frames["perplexity"] = pd.concat([frames["perplexity"], *(read.assign(model=n, arm=n) for n in LONE)])
        models = own | second.models | alone
        directory = tmp_path_factory.mktemp("several")
        (directory / "study.json").write_text(json.dumps({"models": {name: ENTRY for name in models}}))
        both = replace(first, models=models, frames=frames, directory=directory)
        yield {FIRST: first, SECOND: replace(second, directory=directory), "": both}


def same(rows: pd.DataFrame, expected: pd.DataFrame, *but: str) -> None:
    """The columns of `expected` stand in `rows`; a column may be of another type where another base lacks values."""
    kept = [column for column in expected if column not in but]
    pd.testing.assert_frame_equal(rows[kept].reset_index(drop=True), expected[kept], check_dtype=False)


@pytest.mark.parametrize("name", OF_ONE_BASE)
def test_a_bases_table_is_that_of_its_study_alone(studies: dict[str, Results], name: str) -> None:
    """Rows, test results and displayed cells; the captions name the base."""
    frame, sections = built(studies[""], TABLES[name])
    assert frame.columns[0] == "base" and set(frame["base"]) == {FIRST, SECOND}
    for base in (FIRST, SECOND):
        expected, shown = built(studies[base], TABLES[name])
        same(frame[frame["base"] == base], expected)
        own = [section for section in sections if section.caption.startswith(f"{base}: ")]
        assert [s.caption for s in own] == [f"{base}: {s.caption}" for s in shown]
        assert [s.sources for s in own] == [s.sources for s in shown]
        assert all(a.frame.equals(b.frame) for a, b in zip(own, shown, strict=True))


@pytest.mark.parametrize("name", OF_MODELS)
def test_a_model_is_compared_within_its_base(studies: dict[str, Results], name: str) -> None:
    """One table of all models: every number is that of the base's study alone, corrections for many tests excepted."""
    frame, sections = built(studies[""], TABLES[name])
    for base in (FIRST, SECOND):
        expected, _ = built(studies[base], TABLES[name])
        rows = frame[frame["base"] == base]
        if name == "perplexity":  # at the multiples of every base's L
            assert set(rows["length"]) >= set(expected["length"])
            rows = rows[rows["length"].isin(expected["length"])]
        same(rows, expected, "label", "p_holm")
    assert list(sections[0].frame)[:2] == ["model", "base"] and sections[0].frame["model"].is_unique
    assert not any("L" in str(column) for column in sections[0].frame.columns)  # multiples of which L?


def test_a_published_model_has_numbers_and_nothing_to_compare(studies: dict[str, Results]) -> None:
    """It is a base of its own: in the table of perplexities, in no comparison."""
    assert LONE.keys() <= set(built(studies[""], TABLES["perplexity"])[0]["arm"])
    for name in (*OF_ONE_BASE, "passkey_comparison", "sliding_window", "benchmarks"):
        assert LONE.keys().isdisjoint(built(studies[""], TABLES[name])[0]["base"])


@pytest.mark.parametrize("kind", ["key_cache", "ramp", "dynamic"])
def test_what_was_measured_on_another_base_is_not_lost(studies: dict[str, Results], kind: str) -> None:
    """A kind measured on the second base alone has its table, and its figure where there is one."""
    frame = studies[""].frame(kind)
    second = with_frames(studies[""], **{kind: frame[frame["arm"] == SECOND]})
    assert set(built(second, TABLES[kind])[0]["base"]) == {SECOND}
    if kind in FIGURES:
        spec = specification(second, FIGURES[kind])
        assert "vconcat" not in spec and spec["title"] == SECOND
    neither = with_frames(studies[""], **{kind: frame.assign(arm="yarn-s16")})
    with pytest.raises(NotMeasured):
        built(neither, TABLES[kind])


@pytest.mark.parametrize("name", [name for name, figure in FIGURES.items() if figure.parts == "bases"])
def test_a_bases_figure_is_that_of_its_study_alone(studies: dict[str, Results], name: str) -> None:
    """One chart below the other, with the data of both and no other data."""
    spec, first, second = (specification(studies[base], FIGURES[name]) for base in ("", FIRST, SECOND))
    assert [part["title"] for part in spec["vconcat"]] == [FIRST, SECOND]
    assert spec["datasets"] == first["datasets"] | second["datasets"] and first["datasets"] != second["datasets"]


@pytest.mark.parametrize("name", [name for name, figure in FIGURES.items() if figure.parts == "groups"])
def test_curves_of_models_have_a_panel_a_base(studies: dict[str, Results], name: str) -> None:
    """Models that nothing starts from share the last one."""
    spec, first, second = (specification(studies[base], FIGURES[name]) for base in ("", FIRST, SECOND))
    assert [part["title"] for part in spec["vconcat"]] == [FIRST, SECOND, OTHERS]
    assert first["datasets"].items() <= spec["datasets"].items() >= second["datasets"].items()


def test_a_curve_is_relative_to_its_own_models_window(studies: dict[str, Results]) -> None:
    """8,192 tokens are 8 times the window of one published model and 4 times that of the other, in one panel."""
    spec = specification(studies[""], FIGURES["figure_1_relative"])
    rows = [row for rows in spec["datasets"].values() for row in rows if "(lo" in row.get("model", "")]
    ends = {name: max(row["x"] for row in rows if row["model"] == f"base ({name})") for name in LONE}
    assert ends == {"lone": 8, "longer": 4}
    assert {row["y"] for row in rows if row["x"] == 1} == {1}


def test_a_figures_sources_are_what_it_draws(studies: dict[str, Results]) -> None:
    """Each model that was measured; of an ablation its arms alone, of each base."""
    found = {name: sources(studies[""], FIGURES[name]) for name in ("figure_1", "ablation", "ramp", "cost")}
    assert set(found["figure_1"]) == {f"evaluations/perplexity/{m}.manifest.json" for m in studies[""].models}
    arms = {model.arm for base in (FIRST, SECOND) for model in studies[base].ablation()}
    assert set(found["ablation"]) == {f"evaluations/perplexity/{arm}.manifest.json" for arm in arms}
    assert found["ramp"] == [f"evaluations/ramp/{base}.manifest.json" for base in (FIRST, SECOND)]
    assert found["cost"] == []


def test_names_and_looks_of_several_bases(studies: dict[str, Results]) -> None:
    """Names are unique; a base is called so wherever it is from; each base's continued YaRN has the look of one."""
    names = labels(studies[""])
    assert len(set(names.values())) == len(names)
    assert names["lone"] == "base (lone)" and style_of(studies[""].models["lone"], studies[""]) == STYLES["base"]
    for name in ("yarn-s32", "b-yarn-s32"):
        assert style_of(studies[""].models[name], studies[""]) == STYLES["continued"]


def test_a_study_of_one_base_is_not_divided(studies: dict[str, Results]) -> None:
    """The same object, so that nothing is measured twice; and published models alone are one group."""
    first = studies[FIRST]
    assert by_base(first)[FIRST] is first and groups(first) == {OTHERS: first}
    assert "base" not in built(first, TABLES["ramp"])[0] and "vconcat" not in json.dumps(
        specification(first, FIGURES["ramp"])
    )
    alone = {f"m{i}": replace(first.models[FIRST], name=f"m{i}", arm=f"m{i}", kind="hub") for i in range(3)}
    published = replace(first, models=alone)
    assert len(by_base(published)) == 3 and groups(published) == {OTHERS: published}


def test_arms_are_compared_with_the_yarn_of_their_scale(studies: dict[str, Results]) -> None:
    """The continued YaRN is no arm of an ablation at another scale (Llama 2 7B of the paper: s = 16 and s = 2)."""
    models = studies[FIRST].models
    short = {f"{m}-s2": replace(models[f"{m}-s16"], name=f"{m}-s2", arm=f"{m}-s2", scale=2.0) for m in ("yarn", "pi")}
    read = studies[FIRST].frame("perplexity")
    frames = [read, *(read[read["arm"] == f"{m}-s16"].assign(arm=f"{m}-s2", model=f"{m}-s2") for m in ("yarn", "pi"))]
    kept = {name: models[name] for name in ("base", "yarn-s16", "yarn-s32")}
    study = with_frames(replace(studies[FIRST], models=kept | short), perplexity=pd.concat(frames))
    first, frame = study.extended(), built(study, TABLES["ablation"])[0]
    assert first is not None and first.arm == "yarn-s16"
    assert set(frame["arm"]) == {"yarn-s2", "pi-s2", "base"} and set(frame["length"]) == {128, 256, 512, 768}
    assert set(frame.loc[frame["delta"].isna(), "arm"]) == {"yarn-s2"}


def test_two_bases_numbers_keep_apart_in_a_comparison_of_studies(studies: dict[str, Results], tmp_path: Path) -> None:
    """The base is part of what a number is of."""
    for base in (FIRST, ""):
        built(studies[base], TABLES["entropy"])[0].to_csv(tmp_path / f"{base}entropy.csv", index=False)
    assert len(numbers(tmp_path / "entropy.csv")) == 2 * len(numbers(tmp_path / "baseentropy.csv"))
