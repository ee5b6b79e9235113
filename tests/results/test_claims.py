"""Verdicts: that they follow the numbers, flip with them, and say 'not run' instead of guessing."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from results.light import light
from results.synthetic import with_frames, write_study
from yarnlab.results.claims.criteria import Claim, load_criteria
from yarnlab.results.claims.judge import entry, evaluate, headline, judge, write_claims
from yarnlab.results.claims.parts import Verdict, combine, describe, interval
from yarnlab.results.results import Results, load
from yarnlab.results.statistics import Estimate

CRITERIA = load_criteria()
CLAIMS = CRITERIA.claims


def statuses(results: Results) -> dict[str, str]:
    return {claim.id: verdict.status for claim, verdict in evaluate(results)}


def status(claim: str, results: Results) -> str:
    """The verdict on one claim, without judging the others."""
    return judge(next(c for c in CLAIMS if c.id == claim), results).status


def estimate(low: float, high: float, value: float | None = None) -> Estimate:
    return Estimate((low + high) / 2 if value is None else value, low, high, 12, "documents", "x", "test")


@pytest.fixture(scope="module")
def judged(results: Results) -> list[tuple[Claim, Verdict]]:
    return evaluate(results)


@pytest.fixture(scope="module")
def found(judged: list[tuple[Claim, Verdict]]) -> dict[str, str]:
    return {claim.id: verdict.status for claim, verdict in judged}


def test_what_the_synthetic_study_was_built_to_show_holds(found: dict[str, str]) -> None:
    """The invented numbers follow the paper, so its claims hold; those built to break do not."""
    held = {claim for claim, status in found.items() if status == "holds"}
    assert {"accept-zero-shot-order", "accept-finetuned-order", "accept-collapse"} <= held
    assert {"accept-continuation", "7", "8", "9", "10", "17", "18", "21", "23", "24", "25", "26"} <= held
    assert found["19"] == found["20"] == "holds in part"


def test_a_claim_without_its_arms_is_not_run(found: dict[str, str], results: Results) -> None:
    """No arm was trained at s=2, so the claim on s=2 has no verdict, and the text says why."""
    assert found["22"] == "not run"
    claim = next(c for c in CLAIMS if c.id == "22")
    assert "s=2" in judge(claim, results).text


def swapped(frame: pd.DataFrame, a: str, b: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """The frame with the names of two methods (and arms) exchanged."""
    names = {a: b, b: a}
    return frame.assign(**{column: frame[column].replace(names) for column in columns})


def test_exchanging_yarn_and_pi_flips_the_claims(found: dict[str, str], results: Results) -> None:
    """Mutation: with YaRN's and PI's numbers exchanged, every claim of YaRN's superiority must fall."""
    arms = ("yarn-s16", "pi-s16")
    mutant = with_frames(
        results,
        perplexity=swapped(results.frame("perplexity"), *arms, ("arm",)),
        passkey=swapped(results.frame("passkey"), *arms, ("arm",)),
        training=swapped(results.frame("training"), *arms, ("arm",)),
        zero_shot=swapped(results.frame("zero_shot"), "yarn", "pi", ("method",)),
    )
    superior = ("accept-zero-shot-order", "accept-finetuned-order", "8", "17", "18", "21")
    changed = {claim: status(claim, mutant) for claim in (*superior, "9", "accept-passkey-first")}
    for claim in superior:
        assert found[claim] == "holds"
        assert changed[claim] in ("fails", "holds in part"), claim
    assert changed["accept-finetuned-order"] == "fails"
    assert changed["9"] == changed["17"] == changed["21"] == "fails"
    assert changed["accept-passkey-first"] in ("fails", "holds in part")


def test_a_curve_that_rises_within_the_window_is_noticed(found: dict[str, str], results: Results) -> None:
    """Mutation, of perplexity; those of contexts are in test_mutations.py."""
    frame = results.frame("perplexity")
    assert found["26"] == "holds"
    rise = np.where(frame["arm"] == "yarn-s32", 0.8 * np.log2(frame["length"] / 256), 0.0)
    assert status("26", with_frames(results, perplexity=frame.assign(nll=frame["nll"] + rise))) != "holds"


@pytest.mark.parametrize(
    ("claim", "arm"),
    [("accept-passkey-base", "base"), ("accept-passkey-first", "yarn-s16"), ("29", "yarn-s32")],
)
def test_a_model_that_retrieves_nothing_fails(results: Results, claim: str, arm: str) -> None:
    """Mutation: turning an arm's hits into misses fails the passkey claims on it."""
    frame = results.frame("passkey")
    mutant = with_frames(results, passkey=frame.assign(hit=frame["hit"] & (frame["arm"] != arm)))
    assert status(claim, mutant) in ("fails", "holds in part")


def test_one_changed_number_changes_only_what_depends_on_it(
    judged: list[tuple[Claim, Verdict]], results: Results
) -> None:
    """Changing the zero-shot grid moves the zero-shot claims and no other verdict."""
    frame = results.frame("zero_shot")
    at = (frame["method"] == "yarn") & (frame["scale"] == 16) & (frame["length"] == 4096)
    mutant = with_frames(results, zero_shot=frame.assign(nll=frame["nll"] + np.where(at, 0.01, 0.0)))
    moved = {c.id for (c, v), (_, w) in zip(judged, evaluate(mutant), strict=True) if v != w}
    assert moved == {"accept-zero-shot-order", "8", "9"}


@pytest.mark.parametrize("kind", ["perplexity", "zero_shot", "passkey", "training"])
def test_missing_results_are_not_run(tmp_path: Path, kind: str) -> None:
    """Every claim that needs absent files says 'not run'; the others keep their verdicts."""
    results = load(write_study(tmp_path / "study", skip=(kind,)))
    needing = [claim for claim in CLAIMS if kind in claim.needs]
    assert needing and {judge(claim, results).status for claim in needing} == {"not run"}
    others = (claim for claim in CLAIMS if kind not in claim.needs)
    assert any(judge(claim, results).status == "holds" for claim in others)


def test_a_study_without_rivals_judges_no_comparison(tmp_path: Path) -> None:
    """With no ablation arms, comparisons are not run while claims on one model still are."""
    found = statuses(load(write_study(tmp_path / "study", ablation=False, further=True)))
    assert {found[c] for c in ("accept-finetuned-order", "17", "18", "19", "20", "21")} == {"not run"}
    assert found["23"] == found["25"] == "holds"


def test_several_seeds_count_in_n(tmp_path: Path) -> None:
    """With three seeds an estimate rests on documents x seeds and says so."""
    results = load(write_study(tmp_path / "study", seeds=(1, 2, 3), further=True))
    verdict = judge(next(c for c in CLAIMS if c.id == "24"), results)
    assert verdict.status == "holds"
    assert verdict.decisive is not None
    assert verdict.decisive.estimate.n == 36
    assert "seeds" in verdict.decisive.estimate.over


@pytest.mark.parametrize(
    ("sign", "low", "high", "status"),
    [
        ("<", 0.8, 0.9, "holds"),
        ("<", 0.9, 1.1, "undecided"),
        ("<", 1.1, 1.2, "fails"),
        ("<=", 1.0, 1.0, "holds"),
        ("<", 1.0, 1.0, "fails"),
        (">", 1.1, 1.2, "holds"),
        (">", 0.9, 1.1, "undecided"),
        (">=", 0.8, 0.9, "fails"),
    ],
)
def test_a_part_is_decided_by_its_whole_interval(sign: str, low: float, high: float, status: str) -> None:
    """An interval that straddles the threshold decides nothing."""
    assert interval("x", estimate(low, high), sign, 1.0).status == status


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ("hh", "holds"),
        ("hf", "holds in part"),
        ("ff", "fails"),
        ("hu", "undecided"),
        ("uf", "fails"),
        ("huf", "holds in part"),
    ],
)
def test_parts_combine(parts: str, status: str) -> None:
    """One failing part is never hidden by others that hold or are undecided."""
    made = {
        "h": interval("h", estimate(0, 0.5), "<", 1),
        "f": interval("f", estimate(2, 3), "<", 1),
        "u": interval("u", estimate(0, 3), "<", 1),
    }
    verdict = combine(made[p] for p in parts)
    assert verdict.status == status
    assert verdict.decisive is not None and verdict.decisive.name == ("f" if "f" in parts else parts[-1])


def test_a_number_is_told_from_its_threshold() -> None:
    """A ratio of 0.99991 is not printed as 1.000 beside 'expected below 1'."""
    text = describe(interval("ratio", estimate(0.99981, 1.00001), "<", 1.0))
    assert "0.999910 [0.999810, 1.000010], expected below 1 (n = 12 documents)" in text


COMPARED = ("accept-finetuned-order", "17", "18", "19", "20", "21", "27", "28", "33")


def with_ablation_at(results: Results, scale: float, *twins: str) -> Results:
    """The study whose rivals were fine-tuned at another scale than the continued YaRN arm; `twins` are YaRN arms there."""
    rivals = {
        n: replace(m, scale=scale) for n, m in results.models.items() if m.parent == "base" and m.method != "yarn"
    }
    yarn = results.models["yarn-s16"]
    models = results.models | rivals | {n: replace(yarn, name=n, arm=n, scale=scale) for n in twins}
    frames = dict(results.frames)
    for kind in ("perplexity", "short_texts", "passkey", "training", "sliding_window"):
        own = frames[kind][frames[kind]["arm"] == "yarn-s16"]
        frames[kind] = pd.concat([frames[kind], *(own.assign(arm=n, model=n) for n in twins)])
    return replace(results, models=models, frames=frames)


@pytest.mark.parametrize("claim", COMPARED)
def test_methods_are_compared_at_one_scale(results: Results, claim: str) -> None:
    """Rivals at s=8 stand beside the YaRN arm of s=8, not beside the one of s=16; without such an arm nothing does."""
    with light():
        chosen = next(c for c in CLAIMS if c.id == claim)
        parts = judge(chosen, with_ablation_at(results, 8.0, "yarn-s8")).parts
        read = {name.partition(":")[2] or name for part in parts for name in part.models}
        assert read and not {"yarn-s16", "yarn-s32"} & read  # 19 and 27 take the scale alone from YaRN
        assert not any("s=16" in part.name for part in parts)
        assert judge(chosen, with_ablation_at(results, 8.0)).status == "not run"


def test_the_zero_shot_order_is_judged_at_the_ablations_scale(results: Results) -> None:
    """Not at that of a YaRN arm which no rival was trained like."""
    with light():
        study = with_ablation_at(results, 8.0, "yarn-s8")
        parts = judge(next(c for c in CLAIMS if c.id == "accept-zero-shot-order"), study).parts
    assert parts and all(part.name.startswith("s=8 at 2,048 tokens") for part in parts)


@pytest.mark.parametrize(
    "change", [{"trained_length": 2048}, {"steps": 9}, {"parent": "yarn-s16"}, {"batches": '[{"global_batch": 4}]'}]
)
def test_a_rival_trained_otherwise_is_not_compared(results: Results, change: dict[str, Any]) -> None:
    """Fewer steps, shorter rows, another parent or larger batches: not run, with what would be needed; claim 33 takes
    any steps."""
    models = {**results.models, "pi-s16": replace(results.models["pi-s16"], **change)}
    verdicts = {c.id: judge(c, replace(results, models=models)) for c in CLAIMS if c.id in ("18", "33")}
    assert verdicts["18"].status == "not run"
    assert "PI arm fine-tuned like yarn-s16: from base at s=16, rows of 4,096 tokens" in verdicts["18"].text
    assert (verdicts["33"].status == "not run") == ("steps" not in change)


@pytest.mark.parametrize(("claim", "arm", "shifts"), [("17", "pi-s16", (2, 0, -1.9)), ("33", "yarn-s16", (2, 0, -2.1))])
def test_seeds_that_disagree_leave_a_training_loss_undecided(
    tmp_path: Path, claim: str, arm: str, shifts: tuple[float, ...]
) -> None:
    """The mean over seeds keeps its sign in every step, but one seed of three contradicts it."""
    results = load(write_study(tmp_path / "study", seeds=(1, 2, 3)))
    frame = results.frame("training")
    moved = frame["loss"] + np.where(
        frame["arm"] == arm, frame["seed"].map(dict(zip((1, 2, 3), shifts, strict=True))), 0
    )
    with light():
        assert status(claim, results) == "holds"
        found = judge(next(c for c in CLAIMS if c.id == claim), with_frames(results, training=frame.assign(loss=moved)))
    assert found.decisive is not None and "seeds" in found.decisive.estimate.over
    decided = {part.status for part in found.parts if any(arm in model for model in part.models)}
    assert decided == {"undecided"}


@pytest.mark.parametrize(
    ("unit", "sign", "threshold", "text"),
    [
        ("difference of proportions", ">=", -0.005, "−1.0 [−2.0, +0.5] percentage points, expected at least −0.5 (n"),
        ("proportion", ">=", 0.95, "−1.0 % [−2.0 %, 0.5 %], expected at least 95 % (n"),
        ("pairs", ">=", 1.0, "−0.01 [−0.02, 0.005], expected at least 1 (n"),
        ("nats", "<=", -0.5, "−0.010 [−0.020, 0.005], expected at most −0.5 (n"),
    ],
)
def test_a_number_is_shown_in_its_unit(unit: str, sign: str, threshold: float, text: str) -> None:
    """A difference of shares is in percentage points, never in percent; every minus is a real one."""
    e = Estimate(-0.01, -0.02, 0.005, 12, "items", unit, "test")
    described = describe(interval("x", e, sign, threshold))
    assert described.startswith(f"x: {text} = 12 items)") and "-" not in described


def test_counts_and_open_intervals_are_shown_as_such() -> None:
    """Pairs are whole numbers, and an interval without an end says so."""
    count = interval("x", Estimate(3, 1, 6, 10, "pairs of models", "pairs", "test"), ">=", 1.0)
    assert "x: 3 [1, 6], expected at least 1 (n = 10 pairs of models)" in describe(count)
    openly = interval("x", Estimate(0.1, -np.inf, np.inf, 4, "documents", "nats", "none"), ">", 0.0)
    assert "x: 0.100 [−∞, ∞], expected above 0" in describe(openly)


@pytest.mark.parametrize("claim", ["21", "30", "31", "32"])
def test_no_claim_has_an_ascii_minus(results: Results, claim: str) -> None:
    """In the sentence of any of its comparisons, names of models and words apart."""
    with light():
        parts = judge(next(c for c in CLAIMS if c.id == claim), replace(results)).parts
    assert parts and not any(re.search(r"(^|[\s(\[e])-\d", describe(part)) for part in parts)


def test_criteria_cannot_change_without_a_new_version() -> None:
    """A criterion is fixed before its result: editing one fails here until the version is raised too."""
    assert (CRITERIA.version, CRITERIA.sha256) == ("11", CRITERIA_11)


def test_every_criterion_is_complete() -> None:
    """Ids are unique, and each claim names its source, its criterion and what it needs."""
    assert len({c.id for c in CLAIMS}) == len(CLAIMS)
    assert all(c.source and c.criterion and c.title and (c.needs or c.id in "12345") for c in CLAIMS)


def test_claims_json_is_complete_and_stable(
    study_dir: Path, results: Results, judged: list[tuple[Claim, Verdict]]
) -> None:
    """The file is valid JSON with no NaN, counts its verdicts, and is the same when they are judged a second time."""
    (path,) = write_claims(load(study_dir), "envs/run snakemake")
    text = path.read_text()
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in claims.json"))
    assert {group: sum(own.values()) for group, own in document["counts"].items()} == {
        "paper": 30, "identity": 5, "acceptance": 14
    }  # fmt: skip
    assert len(document["claims"]) == len(CLAIMS) - 1 == 49  # the one on a control, which this study does not have
    assert document["criteria_version"] == CRITERIA.version
    for found in document["claims"]:
        assert (found["number"] is None) == (found["status"] == "not run")
        assert found["status"] == "not run" or (found["n"] > 0 and len(found["interval"]) == 2)
    again = json.dumps([entry(results, claim, verdict, "") for claim, verdict in judged])
    assert json.loads(again) == document["claims"]


CRITERIA_11 = "b848325f2ac3409198fec19096c99276d6c749672349b5789f96c481a94cce8e"


def test_the_headline_is_of_claims_that_the_study_can_judge() -> None:
    """The first five places of the file's list that have a judged claim; where none has, the first five, all not run."""
    first, judged = [place[0] for place in CRITERIA.headline], Verdict("holds", "")
    none = [(claim, Verdict("not run", "")) for claim in CLAIMS]
    assert headline(CRITERIA, none) == first[:5]
    some = [(claim, judged if claim.id in first[4:7] else verdict) for claim, verdict in none]
    assert headline(CRITERIA, some) == first[4:7]
    assert headline(CRITERIA, [(claim, judged) for claim in CLAIMS]) == first[:5]


def test_a_place_of_the_headline_goes_to_the_first_claim_that_is_judged() -> None:
    """Half of a claim is shown where the whole is not judged, and never beside it."""
    whole, half = ["7", "untrained-collapse"], ["untrained-collapse"]
    for ran, shown in ((whole, ["7"]), (half, half)):
        verdicts = [(claim, Verdict("holds" if claim.id in ran else "not run", "")) for claim in CLAIMS]
        assert headline(CRITERIA, verdicts) == shown
