"""Tables of a study with several seeds: seeds share their prompts and items, and do not count as further ones."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from results.light import light
from results.synthetic import with_frames
from yarnlab.results.claims.criteria import load_criteria
from yarnlab.results.claims.judge import judge
from yarnlab.results.estimates import NotMeasured, of_same_seeds, paired_hits, reported_score, score_gap
from yarnlab.results.results import Results
from yarnlab.results.tables import benchmarks as benchmarks_table
from yarnlab.results.tables import passkey as passkey_table
from yarnlab.results.tables import passkey_official as passkey_official_table
from yarnlab.results.tables.passkey_official import passkey_context
from yarnlab.results.tables.passkey_official import passkey_official as shown

KINDS = ("passkey", "passkey_official", "benchmarks", "benchmarks.samples")


def of_seeds(results: Results, seeds: int) -> Results:
    """The same study with each table of KINDS once for every seed: seeds that agree in everything."""
    return with_frames(
        results, **{kind: pd.concat([results.frame(kind).assign(seed=k) for k in range(seeds)]) for kind in KINDS}
    )


@pytest.fixture(scope="module")
def agreeing(results: Results) -> Results:
    return of_seeds(results, 3)


@pytest.fixture(scope="module")
def apart(agreeing: Results) -> Results:
    """YaRN's models of the first two seeds always find the key, the third one never does."""
    frames = {}
    for kind in ("passkey", "passkey_official"):
        frame = agreeing.frame(kind)
        frames[kind] = frame.assign(hit=np.where(frame["arm"] == "yarn-s16", frame["seed"] < 2, frame["hit"]))
    return with_frames(agreeing, **frames)


def test_seeds_that_agree_leave_every_p_value(results: Results, agreeing: Results) -> None:
    """Nothing was learnt from the copies, so no table's test is surer."""
    for build in (passkey_table.compared, passkey_official_table.tidy, benchmarks_table.tidy):
        with light():
            one, three = build(replace(results)), build(replace(agreeing))
        tested = one["p"].notna()
        assert tested.any() and three["test"][tested].str.contains("over seeds").all()
        assert (three["p"][tested] >= one["p"][tested] - 1e-9).all()


def test_seeds_that_agree_leave_the_claims_p_values(results: Results, agreeing: Results) -> None:
    """Claim 21 states its p-values: the same of one seed and of its copies."""
    claim = next(claim for claim in load_criteria().claims if claim.id == "21")
    with light():
        one, three = (judge(claim, replace(study)) for study in (results, agreeing))
    assert [part.name for part in one.parts] == [part.name for part in three.parts]
    assert all("(p = " in part.name for part in one.parts)


def test_a_depth_is_no_surer_than_its_seeds(apart: Results) -> None:
    """One of three seeds fails at every depth: a cell of 15 hits and misses says nothing of the next seed."""
    frame = passkey_table.tidy(apart)
    cells = frame[(frame["arm"] == "yarn-s16") & (frame["depth_high"] - frame["depth_low"] < 0.5)]
    assert cells["accuracy"].to_numpy() == pytest.approx(2 / 3)
    assert (cells["low"] == 0).all() and (cells["high"] == 1).all()
    assert cells["over"].str.contains("seeds").all() and set(cells["n"]) == {15}


def test_the_passkey_context_is_no_surer_than_its_seeds(apart: Results) -> None:
    """With 100, 100 and 50 % of hits the accuracy up to the context may be anything from a half to 1, not 83 % ± 4."""
    frame = apart.frame("passkey_official")
    half = frame.assign(hit=np.where((frame["seed"] == 2) & (frame["trial"] % 2 == 0), True, frame["hit"]))
    row = passkey_context(with_frames(apart, passkey_official=half)).set_index("arm").loc["yarn-s16"]
    assert row["context"] == 4096 and row["accuracy"] == pytest.approx(5 / 6)
    assert row["low"] < 0.5 and row["high"] == 1 and "seeds" in row["over"]


def test_protocols_are_compared_on_the_seeds_that_both_have(agreeing: Results) -> None:
    """A seed without the official trials drops out of the comparison, and the caption names the test over seeds."""
    frame = agreeing.frame("passkey_official")
    fewer = with_frames(agreeing, passkey_official=frame[frame["seed"] < 2])
    found = passkey_official_table.tidy(fewer)
    assert set(found["teacher_forced_n"]) == {100}
    assert "exact permutation test of the trials' sums over seeds" in shown(fewer, found)[2].caption


def test_one_seed_of_the_base_is_set_against_every_seed_of_an_arm(results: Results, agreeing: Results) -> None:
    """The base's weights are not trained here and have the first seed alone: comparisons are those of the copies."""
    one = with_frames(
        agreeing, **{k: f[(f["arm"] != "base") | (f["seed"] == 0)] for k, f in agreeing.frames.items() if k in KINDS}
    )
    with light():
        for table, low, high in (
            (passkey_table.compared, "low", "high"),
            (benchmarks_table.tidy, "delta_low", "delta_high"),
        ):
            alone, copies = (
                table(replace(study))[["delta", low, high, "p"]].to_numpy(float) for study in (one, agreeing)
            )
            assert alone == pytest.approx(copies, nan_ok=True) and (~np.isnan(alone)).any()
        a, b = paired_hits(one, "yarn-s16", "base", [256])
        assert a.shape == b.shape == (3, a.shape[1])
        gaps = [score_gap(study, "yarn-s16", "base") for study in (one, agreeing)]
    assert gaps[0] == gaps[1]


def test_seeds_that_differ_have_nothing_in_common() -> None:
    tables = [pd.DataFrame(np.zeros((2, 3)), index=seeds) for seeds in ([1, 2], [3, 4])]
    with pytest.raises(NotMeasured, match="no seed in common"):
        of_same_seeds(*tables)


def test_a_score_is_the_same_in_both_tables() -> None:
    """Beside the base and beside the paper's: the root of lm-eval's 95 % half width squared and Student's of the seeds."""
    values, errors = np.array([0.50, 0.53, 0.59]), np.array([0.01, 0.02, 0.02])
    e = reported_score(values, errors, 400, "items")
    half = np.hypot(1.96 * np.sqrt(0.0003), 4.3027 * values.std(ddof=1) / np.sqrt(3))
    assert (e.high - e.value, e.value - e.low) == (pytest.approx(half, rel=1e-4), pytest.approx(half, rel=1e-4))
    assert (e.value, e.n, e.over) == (pytest.approx(0.54), 1200, "items x seeds (400 x 3)")
    one = reported_score(values[:1], errors[:1], 400, "items")
    assert one.high - one.value == pytest.approx(0.0196, rel=1e-3) and (one.n, one.over) == (400, "items")


def test_an_error_of_lm_eval_is_not_divided_by_seeds(results: Results, agreeing: Results) -> None:
    """Where answers are no hits or misses: seeds that agree leave the interval, seeds that differ widen it."""

    def scored(study: Results, shift: float = 0.0) -> pd.Series:
        samples = study.frame("benchmarks.samples")
        summary = study.frame("benchmarks")
        graded = samples.assign(acc=samples["acc"] * 0.9 + 0.05)
        moved = summary.assign(value=summary["value"] + shift * summary["seed"])
        frame = benchmarks_table.tidy(with_frames(study, **{"benchmarks.samples": graded, "benchmarks": moved}))
        return frame.set_index(["arm", "task", "metric"]).loc[("base", "brackets", "acc")]

    with light():
        one, three, moved = scored(results), scored(agreeing), scored(agreeing, 0.03)
    width = [row["high"] - row["low"] for row in (one, three, moved)]
    assert width[1] == pytest.approx(width[0]) and width[2] > 1.2 * width[0]
    assert "seeds" in three["over"] and three["n"] == 3 * one["n"]
