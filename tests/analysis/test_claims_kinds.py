"""Verdicts on the further evaluations: that they hold on data built so, and fall when the data say otherwise."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.synthetic import with_frames
from yarnlab.analysis import claims
from yarnlab.analysis.criteria import CLAIMS
from yarnlab.analysis.judge_mechanism import _interquartile_range, _range_of_modes
from yarnlab.analysis.load import Results
from yarnlab.analysis.statistics import Estimate

BY_ID = {claim.id: claim for claim in CLAIMS}


def judged(results: Results, claim: str) -> claims.Verdict:
    return claims.judge(BY_ID[claim], results)


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


def test_a_fine_tuned_arm_with_the_papers_ramp_is_compared(results: Results) -> None:
    """Such an arm is not the YaRN arm, is named apart, and adds one comparison to the claim."""
    twin = replace(results.models["yarn-s16"], name="paper-ramp-s16", arm="paper-ramp-s16", ramp="rotations")
    frame = results.frame("perplexity")
    own = frame[frame["arm"] == "yarn-s16"].assign(arm=twin.arm, model=twin.name, nll=lambda f: f["nll"] + 0.001)
    models = {twin.name: twin, **results.models}
    study = replace(with_frames(results, perplexity=pd.concat([own, frame])), models=models)
    first = study.extended()
    assert first is not None and first.arm == "yarn-s16"
    part = judged(study, "35").parts[-1]
    assert part.name.startswith("fine-tuned, 4,096 tokens") and "ramp of Eq. 18" in part.name
    assert part.estimate.value == pytest.approx(0.001) and part.status == "holds"


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
    frame = frame[frame["scale"].isin([2.0, 8.0, 32.0])]
    flipped = frame.assign(scale=frame["scale"].map({2.0: 32.0, 8.0: 8.0, 32.0: 2.0}))
    verdict = judged(with_frames(results, temperature=flipped), "15")
    assert verdict.parts[0].status == "fails" and verdict.parts[0].estimate.value == pytest.approx(-0.1, abs=0.01)


def test_a_sweep_without_the_papers_scale_is_not_run(results: Results) -> None:
    """Claims at s = 8 need s = 8, and say so."""
    frame = results.frame("temperature")
    mutant = with_frames(results, temperature=frame[frame["scale"] != 8.0])
    assert {judged(mutant, claim).status for claim in ("13", "14")} == {"not run"}
    assert "no scale 8" in judged(mutant, "13").text


def test_a_proven_inversion_is_found(results: Results) -> None:
    """With RoPE's arm retrieving everything in spite of its perplexity, claim 30 holds; the count starts there."""
    frame = results.frame("passkey")
    perfect = frame.assign(hit=frame["hit"] | (frame["arm"] == "plain-s16"))
    nothing = perfect.assign(hit=perfect["hit"] & (perfect["arm"] == "plain-s16"))
    verdict = judged(with_frames(results, passkey=nothing), "30")
    assert verdict.status == "holds"
    assert verdict.decisive is not None and verdict.decisive.estimate.low >= 1


def test_agreement_of_all_pairs_fails_claim_30(results: Results) -> None:
    """When the better model by perplexity provably retrieves more in every pair, no inversion is possible."""
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


@pytest.mark.parametrize(
    ("value", "low", "high", "p", "status"),
    [
        (0.1, 0.05, 0.2, 0.01, "holds"),
        (-0.1, -0.2, -0.05, 0.01, "fails"),
        (0.1, 0.05, 0.2, 0.06, "undecided"),
        (0.1, -0.01, 0.2, 0.01, "undecided"),
        (0.0, -0.05, 0.05, 1.0, "undecided"),
    ],
)
def test_a_tested_part_needs_both_p_and_interval(value: float, low: float, high: float, p: float, status: str) -> None:
    """A corrected p-value alone does not decide where seeds make the interval wider."""
    estimate = Estimate(value, low, high, 100, "paired trials", "difference of proportions", "x")
    assert claims.tested("x", estimate, p).status == status


def test_ranges_of_best_factors_by_hand() -> None:
    """The interquartile range over documents, and the largest minus the smallest mode over segments."""
    assert _interquartile_range(np.array([[1.1, 1.2, 1.3, 1.4, 1.5]])) == pytest.approx(0.2)
    modes = np.array([[[1.1, 1.2], [1.1, 1.3], [1.2, 1.3]]])
    assert _range_of_modes(modes) == pytest.approx(0.2)
