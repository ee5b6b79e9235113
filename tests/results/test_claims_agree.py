"""Both evaluators of the claims, in Python and from config/claims.yaml, say the same of every study."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest

from results.light import light
from results.published_study import perfect
from results.synthetic import with_frames, write_study
from results.test_claims_full_scale import PARENTS, ROOTS
from results.test_mutations import MUTATIONS, with_model
from results.test_roots import other
from yarnlab.results.claims import claims, judge
from yarnlab.results.claims.new_criteria import load_criteria
from yarnlab.results.results import Model, Results, load


def same(results: Results) -> None:
    """Status, text, and of every part name, estimate, sign, threshold, status and models; in the same order."""
    old, new = claims.evaluate(results), judge.evaluate(results)
    assert [claim.id for claim, _ in old] == [claim.id for claim, _ in new]
    for (claim, expected), (data, found) in zip(old, new, strict=True):
        if claim.id == "accept-zero-shot-order" and expected.status == "not run":
            assert found.status == "not run"  # a study without a YaRN arm: the reason is told in other words
        else:
            assert asdict(found) == asdict(expected), claim.id
        assert (data.title, data.source, data.reference, data.base) == (
            claim.title,
            claim.source,
            claim.reference,
            claim.role,
        )
        assert data.needs == claim.needs


@pytest.fixture(autouse=True)
def few_resamples() -> Iterator[None]:
    with light():
        yield


def test_on_the_synthetic_study(results: Results) -> None:
    same(replace(results))


@pytest.mark.parametrize("claim", MUTATIONS)
def test_on_contrary_results(results: Results, claim: str) -> None:
    mutate, _ = MUTATIONS[claim]
    mutant = mutate(replace(results))
    chosen, data = next(c for c in claims_of() if c.id == claim), load_criteria().claim(claim)
    assert asdict(judge.judge(data, mutant)) == asdict(claims.judge(chosen, mutant))


def claims_of() -> list[claims.Claim]:
    from yarnlab.results.claims.criteria import CLAIMS

    return CLAIMS


@pytest.mark.parametrize("form", ["scale-free", "full-scale"])
@pytest.mark.parametrize("seeds", [(42,), (1, 2, 3)])
def test_on_both_forms_and_several_seeds(tmp_path: Path, form: str, seeds: tuple[int, ...]) -> None:
    same(replace(load(write_study(tmp_path / "study", seeds=seeds, further=True)), form=form))


KINDS = "perplexity zero_shot passkey training dynamic temperature ramp entropy key_cache"
KINDS += " sliding_window passkey_official benchmarks"


@pytest.mark.parametrize("skip", KINDS.split())
@pytest.mark.parametrize("form", ["scale-free", "full-scale"])
def test_on_a_study_that_lacks_results(tmp_path: Path, skip: str, form: str) -> None:
    same(replace(load(write_study(tmp_path / "study", skip=(skip,), further=True)), form=form))


@pytest.mark.parametrize("form", ["scale-free", "full-scale"])
def test_on_a_study_without_rivals(tmp_path: Path, form: str) -> None:
    same(replace(load(write_study(tmp_path / "study", ablation=False, further=True)), form=form))


@pytest.mark.parametrize("gone", ["base", "yarn-s16", "yarn-s32", "pi-s16", "ntk-aware-s16", "ramp-only-s16"])
@pytest.mark.parametrize("form", ["scale-free", "full-scale"])
def test_on_a_study_that_lacks_a_models_results(results: Results, gone: str, form: str) -> None:
    frames = {kind: frame[frame["arm"] != gone] for kind, frame in results.frames.items()}
    same(replace(results, frames={k: f for k, f in frames.items() if not f.empty}, form=form))
    if gone != "base":
        models = {n: m for n, m in results.models.items() if gone not in (m.arm, m.parent)}
        same(replace(results, models=models, form=form))


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("form", ["scale-free", "full-scale"])
def test_on_a_study_with_half_of_the_lengths(results: Results, half: int, form: str) -> None:
    kept = {}
    for kind, frame in results.frames.items():
        if "length" in frame:
            among = sorted(frame["length"].unique())
            kept[kind] = frame[frame["length"].isin(among[half::2])]
    same(replace(with_frames(results, **kept), form=form))


@pytest.mark.parametrize("form", ["scale-free", "full-scale"])
def test_at_other_scales(results: Results, form: str) -> None:
    """Scales that are no power of two, short rows, s = 2, and a continued PI arm."""
    odd = with_model(with_model(results, "yarn-s16", scale=6.0), "yarn-s32", scale=10.0)
    same(replace(odd, form=form))
    same(replace(with_model(results, "yarn-s16", trained_length=512), form=form))
    two = results
    for name in ("yarn-s16", "pi-s16", "ntk-aware-s16"):
        two = with_model(two, name, scale=2.0)
    same(replace(two, form=form))
    pi = replace(results.models["pi-s16"], name="pi-s32", arm="pi-s32", scale=32.0, parent="pi-s16")
    frame = results.frame("perplexity")
    moved = frame[frame["arm"] == "pi-s16"].assign(arm="pi-s32", model="pi-s32")
    study = replace(results, models=results.models | {"pi-s32": pi}, form=form)
    same(with_frames(study, perplexity=pd.concat([frame, moved])))


@pytest.mark.parametrize("form", ["scale-free", "full-scale"])
@pytest.mark.parametrize("named", [True, False])
def test_on_several_bases(results: Results, form: str, named: bool) -> None:
    second = other(results)
    own = {name: replace(model, original_context=256) for name, model in results.models.items()}
    lone = Model("lone", "lone", "none", 1.0, None, 42, None, "hub", original_context=1024)
    frames = {kind: pd.concat([results.frame(kind), second.frame(kind)]) for kind in results.frames}
    roots = {"ablation": "base", "extension": "b-base", "portability": "base"} if named else {}
    same(replace(results, models=own | second.models | {"lone": lone}, frames=frames, roots=roots, form=form))


@pytest.mark.parametrize("form", ["scale-free", "full-scale"])
def test_on_the_published_numbers(tmp_path: Path, form: str) -> None:
    exact = perfect(tmp_path)
    models = {name: replace(m, parent=PARENTS.get(name, m.parent)) for name, m in exact.models.items()}
    evaluations = exact.evaluations | {"dynamic": exact.evaluations["dynamic"] | {"tail": 256}}
    study = replace(exact, models=models, evaluations=evaluations, form=form, roots=ROOTS)
    same(study)
    for gone in models:
        if ("llama-2" in gone or "mistral" in gone) and gone not in ROOTS.values():
            same(replace(study, models={n: m for n, m in models.items() if gone not in (n, m.parent)}))
