"""The same tokens under several contexts: quantities, table and figure, on invented data whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from results.light import light
from results.synthetic import L, with_frames
from results.synthetic_kinds import CONTEXT_GAIN, CONTEXT_HARM, WINDOW_COST
from yarnlab.results.analyse import built, specification
from yarnlab.results.claims.criteria import Claim
from yarnlab.results.claims.judge import judge
from yarnlab.results.claims.parts import Verdict
from yarnlab.results.claims.quantities import Comparison, context_change
from yarnlab.results.estimates import NotMeasured, context_nll, over_documents
from yarnlab.results.registry import figures, tables
from yarnlab.results.results import Results
from yarnlab.results.tables import context as table

FIGURES, TABLES = figures(), tables()

HARM = {"quantity": "context_change", "of": "first", "tokens": ["sL", "2sL"], "at": "all", "against": "sL"}
GAIN = {"quantity": "context_change", "of": "first", "tokens": ["sL/2", "sL"], "at": "L", "against": "all"}
USEFUL = {"quantity": "context_gap", "of": "first", "over": "base", "tokens": ["sL/2", "sL"], "at": "all"}
USEFUL |= {"against": "L"}
COLLAPSE = {"quantity": "context_harm_over_gain", "of": "first", "tokens": ["sL", "2sL"], "against": "sL"}
COLLAPSE |= {"reference": ["sL/2", "sL"], "at": "L"}


@pytest.fixture(scope="module")
def results(results: Results):
    """The session's study under few resamples: the effects here are far larger than their intervals."""
    with light():
        yield replace(results)


def claim(*parts: dict[str, Any]) -> Claim:
    return Claim(
        id="own", title="t", source="s", base="extension", needs=("context",), models=("base", "first", "second"),
        parts=parts,
    )  # fmt: skip


def judged(results: Results, part: dict[str, Any], must: str) -> Verdict:
    return judge(claim(part | {"must": must}), results)


def shifted(results: Results, arm: str, by: float, *, whole: bool, segment: int) -> Results:
    """The study with an arm's NLL changed in one segment, where the context is the whole text or a window."""
    f = results.frame("context")
    there = (f["arm"] == arm) & (f["segment_start"] == segment) & ((f["context"] >= f["segment_end"]) == whole)
    return with_frames(results, context=f.assign(nll=f["nll"] + np.where(there, by, 0.0)))


@pytest.mark.parametrize(
    ("part", "truth"),
    [
        (HARM, CONTEXT_HARM),
        (GAIN, 4 * CONTEXT_GAIN),
        (USEFUL, -4 * CONTEXT_GAIN),
        (COLLAPSE, CONTEXT_HARM - 4 * CONTEXT_GAIN),
        (HARM | {"of": "second"}, -CONTEXT_GAIN),
        (GAIN | {"tokens": [8 * L, 32 * L]}, 4 * CONTEXT_GAIN - 2 / 3 * CONTEXT_HARM),  # the last is two thirds
        (USEFUL | {"of": "base", "over": "second", "at": 8 * L}, 3 * CONTEXT_HARM),
    ],
)
def test_a_quantity_is_what_was_planted(results: Results, part: dict[str, Any], truth: float) -> None:
    """Although segments of one document differ by 0.3 nats and documents by 0.5: to the noise of 0.004 nats, between
    models to that of their seeds, 0.01."""
    off = 0.03 if "over" in part else 0.01
    verdict = judged(results, part, f"> {truth - off}")
    assert verdict.status == "holds", verdict.text
    assert verdict.decisive is not None and verdict.decisive.estimate.n == 12
    assert verdict.decisive.estimate.value == pytest.approx(truth, abs=off / 2 + 0.001)
    assert judged(results, part, f"> {truth + off}").status == "fails"


@pytest.mark.parametrize(
    ("part", "must", "change"),
    [
        (HARM, "> 0", {"whole": True, "by": -1.0, "segment": 16 * L}),
        (HARM, "> 0", {"whole": False, "by": 1.0, "segment": 16 * L}),
        (GAIN, "> 0", {"whole": True, "by": 1.0, "segment": 8 * L}),
        (USEFUL, "< 0", {"whole": True, "by": 1.0, "segment": 8 * L}),
        (COLLAPSE, "> 0", {"whole": True, "by": -0.4, "segment": 16 * L}),
        (COLLAPSE, "> 0", {"whole": True, "by": -0.4, "segment": 8 * L}),
    ],
)
def test_contrary_results_change_the_verdict(
    results: Results, part: dict[str, Any], must: str, change: dict[str, Any]
) -> None:
    """The first model's numbers turned against a part: it holds before and fails after, by one kind of context alone."""
    assert judged(results, part, must).status == "holds"
    assert judged(shifted(results, "yarn-s16", **change), part, must).status == "fails"


def test_a_shift_that_all_contexts_share_changes_nothing(results: Results) -> None:
    """Easier tokens are no gain from context: what the comparison of two lengths took them for."""
    f = results.frame("context")
    easier = with_frames(results, context=f.assign(nll=f["nll"] - np.log2(f["segment_start"])))
    for part in (HARM, GAIN, USEFUL, COLLAPSE):
        before, after = (judged(study, part, "> 0").decisive for study in (results, easier))
        assert before is not None and after is not None
        assert before.estimate.value == pytest.approx(after.estimate.value)


def test_a_criterion_and_its_part_say_tokens_and_contexts(results: Results) -> None:
    own = claim(HARM | {"must": "> 0"})
    assert own.criterion == (
        "NLL of the tokens in (sL, 2sL], predicted from all that precedes them, minus NLL of the same tokens predicted "
        "from a window of sL: the first extended model above 0. 95 % intervals, paired by document. A window of c tokens "
        "shows each token between 3c/4 and c tokens."
    )
    assert judge(own, results).text.startswith("YaRN s=16 on tokens 4,096–8,192, all minus 4,096 tokens of context: 0.")
    text = claim(COLLAPSE | {"must": "> 0"}).criterion
    assert text.startswith("Harm (NLL of the tokens in (sL, 2sL], predicted from all that precedes them, minus NLL of")
    assert "minus gain (NLL of the tokens in (sL/2, sL], predicted from a window of L, minus" in text
    text = claim(USEFUL | {"must": "< 0", "against": 256}).criterion
    assert "from a window of 256 tokens: the first extended model minus the base below 0." in text


def test_several_contexts_are_a_part_each(results: Results) -> None:
    several = HARM | {"at": ["all", "L"], "must": "> -9"}
    parts = judge(claim(several), results).parts
    assert [part.name.partition(", ")[2] for part in parts] == [
        "256 minus 4,096 tokens of context",
        "all minus 4,096 tokens of context",
    ]
    assert [part.models for part in parts] == [("yarn-s16",)] * 2


def test_what_was_not_measured_is_named(results: Results) -> None:
    with pytest.raises(NotMeasured, match="no NLL of yarn-s16 with 1,024 tokens of context on tokens 2,048 to 4,096"):
        context_nll(results, "yarn-s16", 4 * L, 8 * L, 16 * L)
    with pytest.raises(NotMeasured, match="on tokens 2,048 to 2,304"):  # no border of a segment
        context_nll(results, "yarn-s16", L, 8 * L, 9 * L)
    with pytest.raises(NotMeasured, match="512 tokens of context on tokens 512 to 2,048"):  # in one of two segments
        context_nll(results, "yarn-s16", 2 * L, 2 * L, 8 * L)
    with pytest.raises(NotMeasured, match="on tokens 0 to 256"):
        context_nll(results, "yarn-s16", L, 0, L)
    few = results.frame("context").query("arm != 'base'")
    verdict = judged(with_frames(results, context=few), USEFUL, "< 0")
    assert verdict.status == "not run" and "no NLL of base" in verdict.text


def test_what_context_did_not_read_whole_is_taken_from_perplexity(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an arm that was given windows only: the NLL between two lengths of its own passes, in claims and in the table;
    without such passes it is named as missing."""
    f = results.frame("context")
    windows = f[(f["arm"] != "yarn-s16") | (f["context"] < f["segment_end"])]
    perplexity = results.frame("perplexity")
    found = context_nll(with_frames(results, context=windows), "yarn-s16", 16 * L, 8 * L, 16 * L)
    own = perplexity[perplexity["arm"] == "yarn-s16"].pivot_table(
        index="seed", columns=["length", "document"], values="nll"
    )
    expected = (own[16 * L] * (16 * L - 1) - own[8 * L] * (8 * L - 1)) / (8 * L)
    assert np.allclose(found, expected[found.columns])
    with monkeypatch.context() as patch:
        patch.setitem(results.evaluations["context"], "windows_only", True)
        shown = table.tidy(with_frames(results, context=windows)).query("segment_end == 16 * @L and whole")
    assert {"yarn-s16", "base"} < set(shown["arm"]) == set(perplexity["arm"])
    with pytest.raises(NotMeasured, match="no NLL of yarn-s16"):
        gone = with_frames(results, context=windows, perplexity=perplexity.query("arm != 'yarn-s16'"))
        context_nll(gone, "yarn-s16", 16 * L, 8 * L, 16 * L)


def test_plain_rope_has_the_whole_text_from_zero_shot(results: Results) -> None:
    """Not a model that has a method of its own: there `none` is another model."""
    f = results.frame("context")
    windows = with_frames(
        results,
        context=f[f["context"] < f["segment_end"]],
        perplexity=results.frame("perplexity").iloc[:0],
    )
    swept = results.frame("zero_shot").query("arm == 'base' and method == 'none'")
    shared = swept.groupby("scale")["length"].agg(set)
    scale = min(scale for scale, lengths in shared.items() if {8 * L, 16 * L} <= lengths)
    own = swept[swept["scale"] == scale].pivot_table(index="seed", columns=["length", "document"], values="nll")
    found = context_nll(windows, "base", 16 * L, 8 * L, 16 * L)
    expected = (own[16 * L] * (16 * L - 1) - own[8 * L] * (8 * L - 1)) / (8 * L)
    assert np.allclose(found, expected[found.columns])
    with pytest.raises(NotMeasured, match="no NLL of yarn-s16"):
        context_nll(windows, "yarn-s16", 16 * L, 8 * L, 16 * L)


def test_a_context_that_reaches_beyond_is_all_that_precedes(results: Results) -> None:
    whole = context_nll(results, "yarn-s16", 32 * L, 4 * L, 8 * L)
    assert whole.equals(context_nll(results, "yarn-s16", 8 * L, 4 * L, 8 * L))
    assert not whole.equals(context_nll(results, "yarn-s16", L, 4 * L, 8 * L))
    one = context_change(results, "yarn-s16", (4 * L, 8 * L), 8 * L, L)
    assert one.value == pytest.approx(-3 * CONTEXT_GAIN, abs=0.005)


def test_all_is_a_context_and_no_length() -> None:
    with pytest.raises(ValidationError, match="perplexity_change: 'all' is a context, no length"):
        Comparison(quantity="perplexity_change", of="first", at="all", against="L", must="< 1")
    with pytest.raises(ValidationError, match="'everything' is no length"):
        Comparison(**HARM | {"at": "everything"}, must="> 0")
    with pytest.raises(ValidationError, match="context_change takes against, at, tokens"):
        Comparison(**{key: value for key, value in HARM.items() if key != "against"}, must="> 0")


def test_the_table_has_what_was_planted(results: Results) -> None:
    """Against the model's own window of L, and against the base's: no difference where there is nothing to compare."""
    frame = table.tidy(results).set_index(["arm", "segment_start", "context"])
    gain = frame.loc[("pi-s16", 8 * L, 32 * L)]
    assert gain["whole"] and gain["delta"] == pytest.approx(-4 * CONTEXT_GAIN, abs=0.006)
    assert gain["cut"] == pytest.approx(WINDOW_COST["pi"] - 4 * CONTEXT_GAIN, abs=0.04)
    assert gain["delta_low"] < gain["delta"] < gain["delta_high"] and gain["n"] == 12
    short = frame.loc[("pi-s16", 8 * L, L)]
    assert not short["whole"] and pd.isna(short["delta"]) and short["cut"] == pytest.approx(0.1, abs=0.04)
    assert pd.isna(frame.loc[("base", 8 * L, L)][["delta", "cut"]]).all()
    base = frame.loc[("base", 8 * L, 32 * L)]
    assert base["delta"] == base["cut"] == pytest.approx(4 * CONTEXT_HARM, abs=0.006)


def test_the_tables_intervals_count_a_sub_package_once(results: Results) -> None:
    """As those of the claims do: documents that lie in one folder are no independent ones."""
    frame = results.frame("context").query("arm in ('base', 'pi-s16')")
    names = {name: f"package/package/{i // 4}/{name}" for i, name in enumerate(sorted(set(frame["document"])))}
    grouped = with_frames(results, context=frame.assign(document=frame["document"].map(names)))
    row = table.tidy(grouped).set_index(["arm", "segment_start", "context"]).loc[("pi-s16", 8 * L, 32 * L)]
    change = context_change(grouped, "pi-s16", (8 * L, 16 * L), 16 * L, L)
    level = over_documents(context_nll(grouped, "pi-s16", 32 * L, 8 * L, 16 * L))
    assert (row["delta"], row["delta_low"], row["delta_high"]) == (change.value, change.low, change.high)
    assert (row["nll"], row["low"], row["high"], row["n"]) == (level.value, level.low, level.high, level.n)
    alone = (
        table.tidy(with_frames(results, context=frame))
        .set_index(["arm", "segment_start", "context"])
        .loc[("pi-s16", 8 * L, 32 * L)]
    )
    assert (row["low"], row["high"]) != (alone["low"], alone["high"])


def test_the_displayed_tables_have_the_truncation_and_a_row_per_context(results: Results) -> None:
    _, (cut, gain, plain) = built(results, TABLES["context"])
    stretches = ["256–512", "512–1,024", "1,024–2,048", "2,048–4,096", "4,096–8,192"]
    assert all(list(shown.frame) == ["model", "context", *stretches] for shown in (cut, gain, plain))
    assert set(cut.frame["context"]) == {"all"} and len(cut.frame) == 9
    own = plain.frame[plain.frame["model"] == "base"]["context"].tolist()
    assert own == ["all", "256 (L)", "512 (2L)", "1,024 (4L)", "2,048 (8L)", "4,096 (16L)"]
    assert [c for c in own if c != "256 (L)"] == gain.frame[gain.frame["model"] == "base"]["context"].tolist()
    row = gain.frame.set_index(["model", "context"]).loc[("YaRN s=16", "2,048 (8L)")]
    assert list(row == "–") == [True] * 3 + [False, True] and row["2,048–4,096"].startswith(("−0.29", "−0.30"))
    assert cut.sources[1] == ["evaluations/context/yarn-s16.manifest.json"]
    assert "n = 12 documents" in cut.caption and "256 (L) tokens" in cut.caption


def test_without_the_base_nothing_is_compared_with_cutting_the_text(results: Results) -> None:
    few = with_frames(results, context=results.frame("context").query("arm != 'base'"))
    frame, shown = built(few, TABLES["context"])
    assert "cut" not in frame and "delta" in frame and len(shown) == 2
    with pytest.raises(NotMeasured, match="the base was not measured with a window of L tokens"):
        specification(few, FIGURES["context_gain"])
    longer = with_frames(results, context=results.frame("context").query("context > 256"))
    assert len(built(longer, TABLES["context"])[1]) == 1


def test_the_figure_draws_every_model_against_the_line_of_cutting(results: Results) -> None:
    """All context of each model, and no window; 0 is a line of its own; the bands are the table's intervals."""
    spec = specification(results, FIGURES["context_gain"])
    drawn = [row for rows in spec["datasets"].values() for row in rows if "cut" in row]
    frame = table.tidy(results)
    whole = frame[frame["whole"]]
    assert len(drawn) == len(whole) == 9 * 5
    found = {(row["model"], row["end"]): row for row in drawn}
    for row in whole.to_dict("records"):
        own = found[row["label"], row["segment_end"]]
        ours, theirs = ([r[key] for key in ("cut", "cut_low", "cut_high")] for r in (own, row))
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert [layer["mark"]["type"] for layer in spec["layer"]] == ["area", "rule", "line", "point"]
    assert spec["layer"][1]["data"]["values"] == [{"zero": 0}]
