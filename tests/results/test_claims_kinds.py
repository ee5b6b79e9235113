"""Verdicts on the further evaluations: that they hold on data built so, and fall when the data say otherwise."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from results.synthetic import with_frames
from yarnlab.results.claims.criteria import load_criteria
from yarnlab.results.claims.judge import judge
from yarnlab.results.claims.parts import Verdict
from yarnlab.results.claims.special import interquartile_range
from yarnlab.results.results import Results

BY_ID = {claim.id: claim for claim in load_criteria().claims}


def judged(results: Results, claim: str) -> Verdict:
    return judge(BY_ID[claim], results)


def judged_at_full_scale(results: Results, claim: str) -> Verdict:
    return judge(BY_ID[claim].in_form("full-scale"), results)


@pytest.mark.parametrize("claim", ["6", "11", "12", "13", "14", "15", "16", "28", "31", "32"])
def test_what_the_data_were_built_to_show_holds(results: Results, claim: str) -> None:
    """The invented numbers follow the paper."""
    verdict = judged(results, claim)
    assert verdict.status == "holds", verdict.text


def test_a_ramp_that_matters_is_noticed(results: Results) -> None:
    """One variant costs 0.01 (negligible), the other 0.06: the claim holds in part, and the text names it."""
    verdict = judged(results, "35")
    assert verdict.status == "holds in part"
    assert "beta-low" in verdict.text
    assert [part.status for part in verdict.parts if "rotations" in part.name] == ["holds", "holds"]


def with_arm(results: Results, like: str, cost: float, /, **changes: Any) -> Results:
    """The study with another arm like one of its own but for `changes`, its NLL higher by `cost`."""
    twin = replace(results.models[like], **changes, arm=changes["name"])
    frame = results.frame("perplexity")
    own = frame[frame["arm"] == like].assign(arm=twin.arm, model=twin.name, nll=lambda f: f["nll"] + cost)
    study = with_frames(results, perplexity=pd.concat([own, frame]))
    planned = results.evaluations["perplexity"]
    evaluations = results.evaluations | {"perplexity": planned | {"models": [*planned["models"], twin.arm]}}
    return replace(study, models={twin.name: twin, **results.models}, evaluations=evaluations)


def test_a_fine_tuned_arm_with_the_papers_ramp_is_compared(results: Results) -> None:
    """Such an arm is not the YaRN arm, is named apart, and adds one comparison to the claim."""
    study = with_arm(results, "yarn-s16", 0.001, name="paper-ramp-s16", ramp="rotations")
    first = study.extended()
    assert first is not None and first.arm == "yarn-s16"
    part = judged(study, "35").parts[-1]
    assert part.name.startswith("fine-tuned, 4,096 tokens") and "ramp of Eq. 18" in part.name
    assert part.estimate.value == pytest.approx(0.001) and part.status == "holds"


@pytest.mark.parametrize("ramp", [{"truncate": False}, {"alpha": 2.0}, {"beta": 128.0}, {"ramp": "rotations"}])
@pytest.mark.parametrize(("cost", "status"), [(0.001, "holds"), (0.1, "fails")])
def test_every_trained_ramp_is_judged(results: Results, ramp: dict[str, Any], cost: float, status: str) -> None:
    """Rounding and borders are ramps as Eq. 18 is; the arm is told from the official one by name."""
    part = judged(with_arm(results, "yarn-s16", cost, name="other-ramp", **ramp), "35").parts[-1]
    assert part.name.startswith("fine-tuned, 4,096 tokens") and part.status == status
    assert part.models == ("perplexity:other-ramp", "perplexity:yarn-s16")
    assert ("ramp" in ramp) or "YaRN s=16 (other-ramp) to YaRN s=16 (yarn-s16)" in part.name


def test_the_familys_borders_are_the_official_ramp(results: Results) -> None:
    """An arm whose α and β suit its family is no other ramp."""
    models = {name: replace(m, family_beta=16.0, beta=16.0) for name, m in results.models.items()}
    study = replace(results, models=models)
    assert all(m.official_ramp for m in study.models.values())
    part = judged(with_arm(study, "yarn-s16", 0.001, name="other-ramp", beta=32.0), "35").parts[-1]
    assert part.models == ("perplexity:other-ramp", "perplexity:yarn-s16")


@pytest.mark.parametrize(
    "otherwise", [{"attention_factor": 1.2}, {"scale": 8.0}, {"trained_length": 512}, {"parent": "yarn-s16"}]
)
def test_a_ramp_is_compared_with_nothing_else_changed(results: Results, otherwise: dict[str, Any]) -> None:
    """An arm that differs in temperature, scale, rows or parent too says nothing of the ramp."""
    study = with_arm(results, "yarn-s16", 0.1, name="other-ramp", truncate=False, **otherwise)
    assert judged(study, "35") == judged(results, "35")


def test_a_variant_with_another_temperature_is_no_other_ramp(results: Results) -> None:
    """What changes √(1/t) as well as the ramp is left out, so that the ramp alone is judged."""
    variants = results.evaluations["ramp"]["variants"] | {"beta-low": {"beta": 2, "temperature": {"slope": 0.07}}}
    ramp = results.evaluations["ramp"] | {"variants": variants}
    study = replace(results, evaluations=results.evaluations | {"ramp": ramp})
    assert not any("beta-low" in part.name for part in judged(study, "35").parts)
    assert judged(study, "35").status == "holds"


@pytest.mark.parametrize("documents", [4, 7, 8])
def test_a_handful_of_documents_does_not_decide_where_factors_lie(results: Results, documents: int) -> None:
    """Below 8 documents claim 14 is undecided, however much the best factors drift; from 8 on it fails."""
    frame = drifting(results.frame("temperature"))
    few = frame[frame["document"].isin(sorted(frame["document"].unique())[:documents])]
    verdict = judged(with_frames(results, temperature=few), "14")
    assert (verdict.status == "undecided") == (documents < 8)
    assert verdict.decisive is not None and verdict.decisive.estimate.n == documents
    if documents < 8:
        assert verdict.decisive.estimate.method == "none: fewer than 8 documents"
        assert "[−∞, ∞]" in verdict.text


def test_segments_of_a_document_are_no_further_documents(results: Results) -> None:
    """Full-scale claim 14: the share of documents × segments has the interval of its documents."""
    frame = results.frame("temperature")
    right = frame["document"].isin(sorted(frame["document"].unique())[:5])
    found = frame.assign(nll=3.0 + (frame["factor"] - np.where(right, 1.2, 1.4)) ** 2)
    parts = judged_at_full_scale(with_frames(results, temperature=found), "14").parts
    share = parts[-1].estimate
    assert (share.value, share.n, share.over) == (pytest.approx(5 / 12), 12, "documents")
    assert share.low < 0.2 and share.high > 0.65 and parts[-1].status == "undecided"


def swap(column: str, a: str, b: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(**{column: frame[column].replace({a: b, b: a})})


def at_factor_one(frame: pd.DataFrame) -> pd.DataFrame:
    """No temperature is best, everywhere."""
    return frame.assign(nll=3.0 + (frame["factor"] - 1.0) ** 2)


def drifting(frame: pd.DataFrame) -> pd.DataFrame:
    """The best factor moves from 1.05 in the first segment to 1.40 in the last."""
    return frame.assign(nll=3.0 + (frame["factor"] - 1.05 - 0.05 * frame["segment"]) ** 2)


MUTATIONS: list[tuple[str, str, Callable[[pd.DataFrame], pd.DataFrame]]] = [
    ("6", "key_cache", swap("cache", "pre-rope", "post-rope")),
    ("11", "dynamic", swap("method", "none", "dynamic-yarn")),
    ("12", "dynamic", swap("method", "none", "dynamic-yarn")),
    ("13", "temperature", at_factor_one),
    ("14", "temperature", drifting),
    ("16", "entropy", swap("method", "yarn", "ntk-by-parts")),
    ("28", "sliding_window", swap("arm", "yarn-s16", "pi-s16")),
    ("31", "benchmarks.samples", swap("arm", "yarn-s16", "pi-s16")),
    ("32", "benchmarks.samples", swap("arm", "yarn-s32", "pi-s16")),
]


@pytest.mark.parametrize(("claim", "kind", "mutate"), MUTATIONS)
def test_a_mutation_overturns_its_claim(
    results: Results, claim: str, kind: str, mutate: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    """Mutation: with the deciding numbers exchanged the verdict is no longer 'holds'."""
    mutant = with_frames(results, **{kind: mutate(results.frame(kind))})
    assert judged(mutant, claim).status in ("fails", "holds in part")


def test_a_temperature_that_does_not_grow_fails(results: Results) -> None:
    """With the sweeps of small and large scales exchanged the slope is negative."""
    frame = results.frame("temperature")
    frame = frame[frame["scale"].isin([2.0, 4.0, 8.0, 16.0, 32.0])]
    flipped = frame.assign(scale=frame["scale"].map({2.0: 32.0, 4.0: 16.0, 8.0: 8.0, 16.0: 4.0, 32.0: 2.0}))
    verdict = judged(with_frames(results, temperature=flipped), "15")
    assert verdict.parts[0].status == "fails" and verdict.parts[0].estimate.value == pytest.approx(-0.1, abs=0.01)


def test_a_sweep_without_the_papers_scale_is_not_run(results: Results) -> None:
    """Claims at s = 8 need s = 8, and say so."""
    frame = results.frame("temperature")
    mutant = with_frames(results, temperature=frame[frame["scale"] != 8.0])
    assert {judged(mutant, claim).status for claim in ("13", "14")} == {"not run"}
    assert "no scale 8" in judged(mutant, "13").text


def test_a_proven_inversion_is_found(results: Results) -> None:
    """With RoPE's arm retrieving everything in spite of its perplexity, claim 30 holds."""
    frame = results.frame("passkey")
    perfect = frame.assign(hit=frame["hit"] | (frame["arm"] == "plain-s16"))
    nothing = perfect.assign(hit=perfect["hit"] & (perfect["arm"] == "plain-s16"))
    verdict = judged(with_frames(results, passkey=nothing), "30")
    assert verdict.status == "holds"
    assert verdict.decisive is not None and verdict.decisive.estimate.low > 0.9


def test_the_best_of_both_kinds_fails_claim_30(results: Results) -> None:
    """When the model of lowest perplexity provably retrieves as much as any, there is no inversion."""
    keep = ("yarn-s16", "pi-s16")
    study = replace(results, models={k: m for k, m in results.models.items() if k in ("base", *keep)})
    frame = study.frame("passkey")
    frame = frame.assign(hit=frame["arm"] == "yarn-s16")
    assert judged(with_frames(study, passkey=frame), "30").status == "fails"


def test_the_control_of_claim_26(results: Results) -> None:
    """Without a continued PI arm there is no control; with one that lost perplexity it holds."""
    assert judged(results, "26-control").status == "not run"
    pi = replace(results.models["yarn-s32"], name="pi-s32", arm="pi-s32", method="pi", parent="pi-s16")
    frame = results.frame("perplexity")
    own = frame[frame["arm"] == "pi-s16"].assign(arm="pi-s32", model="pi-s32", nll=lambda f: f["nll"] + 0.2)
    study = replace(with_frames(results, perplexity=pd.concat([frame, own])), models={**results.models, "pi-s32": pi})
    assert judged(study, "26-control").status == "holds"


def test_methods_that_retrieve_alike_fail_claim_21(results: Results) -> None:
    """A tie is no advantage of 5 points, one of 10 is, and one of 4 shown by few trials is neither."""

    def ahead(points: float) -> str:
        frame = results.frame("passkey")
        hit = frame["trial"] % 50 < np.where(frame["arm"] == "yarn-s16", 20 + points / 2, 20)
        return judged(with_frames(results, passkey=frame.assign(hit=hit)), "21").status

    assert (ahead(0), ahead(20), ahead(8)) == ("fails", "holds", "undecided")


def test_ranges_of_best_factors_by_hand() -> None:
    """The interquartile range over documents; that over segments is in test_temperature.py."""
    assert interquartile_range(np.array([[1.1, 1.2, 1.3, 1.4, 1.5]])) == pytest.approx(0.2)
