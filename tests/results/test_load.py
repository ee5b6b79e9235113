"""What is read of a results directory: what the study plans, and which of its arms may be compared."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from results.light import light
from results.synthetic import write_study
from yarnlab.results.analyse import built
from yarnlab.results.bases import compared_with
from yarnlab.results.claims.judge import evaluate
from yarnlab.results.registry import tables
from yarnlab.results.results import Model, Results, ResultsError, load
from yarnlab.results.tables.ablation import tidy as ablation
from yarnlab.rope import YaRN
from yarnlab.study.load import load_study
from yarnlab.study.summary import summarise

TABLES = tables()

STUDIES = Path(__file__).parents[2] / "config/studies"


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Results]:
    """The synthetic study with other `models` of some evaluations in its study.json, the files on disk unchanged."""

    def write(seeds: tuple[int, ...] = (42,), **models: list[str]) -> Results:
        study = write_study(tmp_path / "study", seeds=seeds)
        plan = json.loads((study / "study.json").read_text())
        for kind, arms in models.items():
            plan["evaluations"][kind]["models"] = arms
        (study / "study.json").write_text(json.dumps(plan))
        return load(study)

    return write


@pytest.mark.parametrize("seeds", [(42,), (1, 2)])
def test_a_model_that_an_evaluation_no_longer_names_is_ignored(planned: Callable[..., Results], seeds: tuple) -> None:
    """Its files of that evaluation reach no frame, manifest, table or claim; its training and other results stay."""
    kept = ["base", "yarn-s16", "yarn-s32", "pi-s16", "ntk-aware-s16", "ramp-only-s16", "temperature-only-s16"]
    results = planned(seeds, passkey=kept)
    assert set(results.frame("passkey")["arm"]) == set(kept)
    assert {"plain-s16", "plain-s32"} == set(results.frame("perplexity")["arm"]) - set(kept)
    assert "plain-s16" in set(results.frame("training")["arm"])
    stages = {manifest["stage"] for manifest in results.manifests if manifest["name"].startswith("plain-s16")}
    assert stages == {"train", "perplexity"}
    assert results.plans("perplexity", "plain-s16") and not results.plans("passkey", "plain-s16")
    with light():
        assert "plain-s16" not in set(built(results, TABLES["passkey"])[0]["arm"])
        read = {source for _, verdict in evaluate(results) for part in verdict.parts for source in part.models}
    assert "passkey:pi-s16" in read and "passkey:plain-s16" not in read


def test_a_table_that_its_manifest_names_does_not_go_missing(tmp_path: Path) -> None:
    """It would drop the model out of every table in silence; what does not read that evaluation stays readable."""
    study = write_study(tmp_path / "study")
    manifest = study / "evaluations/passkey/base.manifest.json"
    named = {"outputs": {"evaluations/passkey/base.parquet": {"sha256": "", "bytes": 1}}}
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | named))
    assert load(study).frame("passkey") is not None
    (study / "evaluations/passkey/base.parquet").unlink()
    results = load(study)
    with pytest.raises(ResultsError, match=r"base\.parquet is missing, but base\.manifest\.json names it"):
        results.frame("passkey")
    assert results.frame("perplexity") is not None


def test_an_evaluation_of_no_model_on_disk_is_absent(planned: Callable[..., Results]) -> None:
    """Files of other models do not stand in for those that are planned."""
    results = planned(zero_shot=["yarn-s16"])
    assert not results.has("zero_shot") and results.missing(("zero_shot",)) is not None


def test_a_ramp_is_read_as_the_study_declares_it() -> None:
    """From a study file through study.json: ramp, rounding, borders and temperature of an arm's rope."""
    plan = summarise(load_study(STUDIES / "paper.yaml"))["models"]
    models = {name: Model.of(name, json.loads(json.dumps(entry))) for name, entry in plan.items()}
    other = {name for name, model in models.items() if not model.official_ramp}
    assert other == {"paper-ramp-32k", "untruncated-32k", "yarn-mistral-s8", "yarn-mistral-s16"}
    assert models["paper-ramp-32k"].ramp == "rotations" and not models["untruncated-32k"].truncate
    own, paper = models["yarn-mistral-s8"], models["yarn-mistral-s8-paper"]
    assert (own.alpha, own.beta, paper.alpha, paper.beta) == (2, 128, 1, 32)
    assert (own.attention_factor, paper.attention_factor) == (
        pytest.approx(1.1456, abs=1e-4),
        pytest.approx(1.2079, abs=1e-4),
    )
    assert own.steps == 1000 and models["pi-32k"].attention_factor == 1


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 8.0},
        {"trained_length": 2048},
        {"batches": '[{"global_batch": 4}]'},
        {"steps": 9},
        {"tokens": 9},
        {"parent": "yarn-s16"},
    ],
)
def test_arms_are_alike_by_parent_scale_batches_and_budget(results: Results, change: dict[str, Any]) -> None:
    """Whatever of these differs, the arm stands beside the other no more; only steps and tokens may be let off."""
    yarn, pi = results.models["yarn-s16"], results.models["pi-s16"]
    assert results.beside(yarn, "pi") == pi and results.alike(yarn, pi)
    changed = replace(pi, **change)
    study = replace(results, models={**results.models, "pi-s16": changed})
    assert study.beside(yarn, "pi") is None
    assert study.alike(yarn, changed, as_long=False) == (not change.keys().isdisjoint({"steps", "tokens"}))


@pytest.mark.parametrize("key", ["global_batch", "corpus", "rows"])
def test_arms_on_other_batches_are_not_compared(tmp_path: Path, key: str) -> None:
    """From a study file on: PI on larger batches, another corpus or other rows has no gap and judges no claim."""
    study = load_study(STUDIES / "micro.yaml").model_copy(update={"replicates": 1})  # as the invented results
    train = study.models["pi-s16"].train
    assert train is not None
    other = {"global_batch": 4, "corpus": "held-out", "rows": train.rows.model_copy(update={"text": "blocks"})}
    arm = study.models["pi-s16"].model_copy(update={"train": train.model_copy(update={key: other[key]})})
    folder = write_study(tmp_path / "study", skip=("zero_shot",))
    plan = json.loads((folder / "study.json").read_text())
    for changed, compared in (
        (study, True),
        (study.model_copy(update={"models": study.models | {"pi-s16": arm}}), False),
    ):
        summary = json.loads(json.dumps(summarise(changed)))["models"]
        models = {
            name: entry | {k: summary[name][k] for k in ("batches", "tokens")} for name, entry in plan["models"].items()
        }
        (folder / "study.json").write_text(json.dumps(plan | {"models": models}))
        results = load(folder)
        assert results.alike(results.models["yarn-s16"], results.models["pi-s16"]) == compared
        with light():
            gaps = ablation(results).dropna(subset=["delta"])
            verdicts = {claim.id: verdict.status for claim, verdict in evaluate(results)}
        assert ("pi-s16" in set(gaps["arm"])) == compared and "ntk-aware-s16" in set(gaps["arm"])
        assert ("not run" not in {verdicts["17"], verdicts["33"]}) == compared


class Scalar:
    """A number that json can't write, as those of NumPy and torch."""

    def __float__(self) -> float:
        return 1.25


def test_an_own_methods_factor_may_be_any_scalar(monkeypatch: pytest.MonkeyPatch) -> None:
    """study.json is written whatever kind of number a method's attention factor is."""
    monkeypatch.setattr(YaRN, "attention_factor", property(lambda _: Scalar()))
    models = summarise(load_study(STUDIES / "micro.yaml"))["models"]
    assert json.loads(json.dumps(models))["yarn-s16-seed31"]["attention_factor"] == 1.25


def test_the_compared_yarn_arm_is_the_one_that_others_were_trained_like(results: Results) -> None:
    """Of two YaRN arms at the ablation's scale it is not the continued one, where the methods have other rows than that."""
    first = compared_with(results)
    assert first is not None and first.arm == "yarn-s16"
    short = replace(first, name="yarn-short", arm="yarn-short", trained_length=1024)
    methods = {
        n: replace(m, trained_length=1024) for n, m in results.models.items() if m.scale == 16 and n != "yarn-s16"
    }
    study = replace(results, models={**results.models, **methods, "yarn-short": short})
    extended, compared = study.extended(), compared_with(study)
    assert extended is not None and extended.arm == "yarn-s16"
    assert compared is not None and compared.arm == "yarn-short"
