"""Tables and figures of the further evaluations, on invented data whose truth is known."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from results import synthetic_kinds as truth
from results.light import light
from results.synthetic import L, log_perplexity, with_frames, write_study
from yarnlab.results.analyse import built, specification, write_table
from yarnlab.results.claims.criteria import load_criteria
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.registry import figures, tables
from yarnlab.results.results import Results, load
from yarnlab.results.tables import benchmarks as benchmarks_table
from yarnlab.results.tables import dynamic as dynamic_table
from yarnlab.results.tables import entropy as entropy_table
from yarnlab.results.tables import key_cache as key_cache_table
from yarnlab.results.tables import passkey as passkey_table
from yarnlab.results.tables import passkey_official as passkey_official_table
from yarnlab.results.tables import ramp as ramp_table
from yarnlab.results.tables import sliding_window as sliding_window_table
from yarnlab.results.tables import temperature as temperature_table
from yarnlab.results.tables.passkey_official import passkey_context

FIGURES = figures()
TABLES = tables()

CLAIM_15 = load_criteria().claim("15")


def test_the_sweep_finds_the_planted_line(results: Results) -> None:
    """Best factors were planted on 0.1 ln s + 1; table and fit give them back, intervals included."""
    frame = temperature_table.tidy(results)
    best = frame[frame["quantity"] == "best √(1/t)"].set_index("scale")
    for scale, row in best.iterrows():
        assert row["value"] == pytest.approx(0.1 * math.log(scale) + 1, abs=0.006)
        assert row["delta"] < 0 and row["delta_high"] < 0
    fit = frame.set_index("quantity")
    assert fit.loc["a", "low"] < truth.SLOPE < fit.loc["a", "high"]
    assert fit.loc["b", "low"] < truth.INTERCEPT < fit.loc["b", "high"]
    assert list(fit.loc[["a", "b"], "paper"]) == [0.1, 1.0]


def test_a_sweep_without_one_has_all_but_the_comparison_with_one(results: Results) -> None:
    """The paper's own grid begins at 1.05: best factors, gains and fit are those that do not need 1.00."""
    frame = results.frame("temperature")
    cut = frame[(frame["kind"] != "grid") | (frame["factor"] > 1.04)]
    with light(100):
        whole = temperature_table.tidy(with_frames(results, temperature=frame[frame["scale"] > 2]))
        found, sections = built(with_frames(results, temperature=cut[cut["scale"] > 2]), TABLES["temperature"])
    assert not [column for column in found if column.startswith("delta")] and "delta" in whole
    pd.testing.assert_frame_equal(found, whole[list(found)])
    assert set(found["quantity"]) == {"best √(1/t)", "a", "b"} and len(sections) == 2
    assert not any("no temperature" in column for column in sections[0].frame)
    assert "no √(1/t) = 1 to compare with" in sections[0].caption


def test_a_cut_off_scale_looks_unfitted_everywhere(results: Results) -> None:
    """With half of the tokens at s = 32, its row and its dot say that it is not on the line, and why."""
    frame = results.frame("temperature")
    short = frame.assign(tokens=frame["tokens"].where(frame["scale"] < 32, frame["tokens"] // 2))
    with light(100):
        mutant = with_frames(results, temperature=short)
        _, sections = built(mutant, TABLES["temperature"])
        spec = specification(mutant, FIGURES["temperature_fit"])
    note = "read to fewer than s·L tokens"
    assert [row.endswith(note) for row in sections[0].frame["best √(1/t)"]] == [False] * 4 + [True]
    assert note in sections[1].caption and all(note in claim.criterion for claim in (CLAIM_15, CLAIM_15.full_scale))
    dots = [row for rows in spec["datasets"].values() for row in rows if "fitted" in row]
    assert [dot["fitted"] for dot in dots] == ["yes"] * 4 + [f"no, {note}"]


def test_the_wrong_cache_costs_what_was_planted(results: Results) -> None:
    """Nothing up to L, CACHE_COST beyond; the interval holds it and not 0."""
    frame = key_cache_table.tidy(results)
    wrong = frame[frame["cache"] == "post-rope"]
    inside, beyond = wrong[wrong["bucket_start"] == 0], wrong[wrong["bucket_start"] > 0]
    assert (inside["delta"] == 0).all()
    assert beyond["delta"].to_numpy() == pytest.approx(truth.CACHE_COST, abs=0.003)
    assert (beyond["low"] > 0).all() and (beyond["n"] == 12).all()
    assert (frame[(frame["cache"] == "recomputed") & (frame["bucket_start"] > 0)]["high"] < 0).all()


def test_dynamic_scaling_is_the_identity_up_to_the_window(results: Results) -> None:
    """Up to L every method has the same perplexity and scale 1; beyond it the planted order."""
    frame = dynamic_table.tidy(results)
    inside = frame[frame["length"] <= truth.L]
    assert (inside["scale"] == 1).all()
    assert inside.groupby(["length", "measure"])["perplexity"].nunique().max() == 1
    end = frame[(frame["length"] == 2048) & (frame["measure"] == "tail")].set_index("method")["perplexity"]
    assert list(end.sort_values().index) == ["dynamic-yarn", "dynamic-ntk", "dynamic-pi", "none"]


def test_ramps_differ_by_what_was_planted(results: Results) -> None:
    """Gaps to the official variant at sL; at L there are none, and Holm's correction keeps those apart."""
    frame = ramp_table.tidy(results).set_index(["variant", "scale", "length"])
    for variant in ("rotations", "beta-low"):
        row = frame.loc[(variant, 16.0, 4096)]
        assert row["delta"] == pytest.approx(truth.RAMP_COST[variant], abs=0.003)
        assert row["p_holm"] < 0.05 <= frame.loc[(variant, 16.0, 256)]["p_holm"]
    assert pd.isna(frame.loc[("official", 16.0, 4096)]["delta"])


def test_entropies_are_means_over_layers_and_heads(results: Results) -> None:
    """Planted: 0.10, 0.06 and 0.02 nats per doubling; n counts documents, not heads."""
    frame = entropy_table.tidy(results).set_index(["method", "scale"])
    for method in ("pi", "ntk-by-parts", "yarn"):
        assert frame.loc[(method, 8.0)]["delta"] == pytest.approx(3 * truth.ENTROPY[method], abs=0.003)
    assert set(frame["n"]) == {12}


def test_the_entropy_of_every_head_is_shown_by_layer(results: Results) -> None:
    """Planted: 0.3 nats more a layer and 0.2 more for head 1; YaRN adds 0.02 a doubling to every head."""
    with light(100):
        frame, sections = built(replace(results), TABLES["entropy_by_layer"])
    found = frame[(frame["method"] == "yarn") & (frame["scale"] == 8)]
    raw = results.frame("entropy")
    raw = raw[(raw["method"] == "yarn") & (raw["scale"] == 8) & (raw["layer"] == 2)]
    entropy = found[found["layer"] == 2].set_index("head")["entropy"]
    assert entropy[1] == pytest.approx(raw.loc[raw["head"] == 1, "entropy"].mean())
    assert entropy["all"] == pytest.approx(raw["entropy"].mean())
    assert found["delta"].to_numpy() == pytest.approx(3 * truth.ENTROPY["yarn"], abs=0.005)
    assert len(frame) == 10 * 3 * (2 + 1) and set(frame["n"]) == {12}
    assert list(sections[0].frame["layer"]) == ["0", "1", "2"]
    assert list(sections[0].frame)[1:5] == ["PI s = 2", "PI s = 8", "PI s = 32", "NTK-by-parts s = 2"]
    assert sections[1].caption.startswith("RoPE s = 1: ")
    for section in sections[1:]:
        assert [cell[-6:] for cell in section.frame["lowest head"]] == ["head 0"] * 3
        assert [cell[-6:] for cell in section.frame["highest head"]] == ["head 1"] * 3
        assert "12 documents" in section.caption


def test_pooled_windows_and_documents_are_different_means(results: Results) -> None:
    """Pooled: every window alike, as the official code; documents: tokens weigh within, documents alike."""
    raw = results.frame("sliding_window")
    own = raw[raw["arm"] == "yarn-s16"]
    frame = sliding_window_table.tidy(results).set_index(["arm", "measure"])
    pooled = frame.loc[("yarn-s16", "windows pooled")]
    assert pooled["perplexity"] == pytest.approx(math.exp(own["nll"].mean()))
    weighted = own.assign(total=own["nll"] * own["tokens"]).groupby("document")[["total", "tokens"]].sum()
    documents = frame.loc[("yarn-s16", "documents")]
    assert documents["perplexity"] == pytest.approx(math.exp((weighted["total"] / weighted["tokens"]).mean()))
    assert (pooled["n"], pooled["windows"]) == (12, 78)
    assert frame.loc[("pi-s16", "documents")]["delta"] == pytest.approx(truth.WINDOW_COST["pi"], abs=0.01)


def test_sliding_windows_without_a_yarn_model_have_no_gap(results: Results) -> None:
    """No column and no sentence of a comparison that there is none of: no YaRN in the study, or none evaluated."""
    others = {name: model for name, model in results.models.items() if model.method != "yarn"}
    frame = results.frame("sliding_window")
    evaluated = frame[~frame["arm"].str.startswith("yarn")]
    with light(100):
        for mutant in (replace(results, models=others), with_frames(results, sliding_window=evaluated)):
            section = built(mutant, TABLES["sliding_window"])[1][0]
            assert not [column for column in section.frame if "gap" in column]
            assert "Gap" not in section.caption and "YaRN" not in section.caption
        whole = built(replace(results), TABLES["sliding_window"])[1][0]
    assert "documents: gap to YaRN s=16" in whole.frame and "ln perplexity to YaRN s=16, paired" in whole.caption


def test_passkey_comparison_is_paired_and_corrected(results: Results) -> None:
    """Each other arm against YaRN at each length; a corrected p is never below the raw one."""
    frame = passkey_table.compared(results)
    assert "yarn-s16" not in set(frame["arm"]) and len(frame) == 8 * 7
    assert (frame["p_holm"] >= frame["p"]).all()
    row = frame[(frame["arm"] == "pi-s16") & (frame["length"] == 2048)].iloc[0]
    raw = results.frame("passkey")
    at = raw[raw["length"] == 2048].pivot(index="trial", columns="arm", values="hit").astype(float)
    assert row["delta"] == pytest.approx((at["pi-s16"] - at["yarn-s16"]).mean())
    assert row["delta"] < 0 and row["p_holm"] < 0.05


def test_the_papers_passkey_summary(results: Results) -> None:
    """Context: the longest length with at least 80 %; accuracy: over all lengths up to it."""
    shares = [("base", 100, 10), ("base", 200, 7), ("base", 300, 8), ("base", 400, 5), ("pi-s16", 100, 1)]
    rows = [(arm, 42, n, trial, trial < right) for arm, n, right in shares for trial in range(10)]
    frame = pd.DataFrame(rows, columns=["arm", "seed", "length", "trial", "hit"])
    found = passkey_context(with_frames(results, passkey_official=frame)).set_index("arm")
    assert list(found.index) == ["base", "pi-s16"]
    assert found.loc["base", "context"] == 300 and found.loc["base", "accuracy"] == pytest.approx(25 / 30)
    assert found.loc["base", "n"] == 30
    assert found.loc["pi-s16", "context"] == 0 and found.loc["pi-s16", "n"] == 0


def test_both_passkey_protocols_are_compared(results: Results) -> None:
    """Invented with the same rates, they do not differ after correction; the difference is that of the two shares."""
    frame = passkey_official_table.tidy(results)
    assert frame["teacher_forced"].notna().all()
    assert (frame["p_holm"] > 0.05).all()
    assert frame["delta"].to_numpy() == pytest.approx((frame["accuracy"] - frame["teacher_forced"]).to_numpy())
    assert ((frame["delta_low"] < frame["delta"]) & (frame["delta"] < frame["delta_high"])).all()


def test_benchmark_scores_are_those_of_the_answers(results: Results) -> None:
    """Shares, paired differences and the mean over tasks follow from the items."""
    frame = benchmarks_table.tidy(results).set_index(["arm", "task", "metric"])
    raw = results.frame("benchmarks.samples")
    share = raw.groupby(["arm", "task"])["acc"].mean()
    for task in truth.TASKS:
        assert frame.loc[("pi-s16", task, "acc")]["accuracy"] == pytest.approx(share["pi-s16", task])
        expected = share["pi-s16", task] - share["base", task]
        assert frame.loc[("pi-s16", task, "acc")]["delta"] == pytest.approx(expected)
    mean = frame.loc[("pi-s16", "mean", "reported")]
    assert mean["accuracy"] == pytest.approx(share["pi-s16"].mean())
    assert mean["delta_high"] < 0
    assert frame.loc[("pi-s16", "brackets", "acc")]["p_holm"] < 0.05


def test_scores_do_not_wait_for_the_bases_answers(results: Results) -> None:
    """A study that is half finished shows what its models score; there is nothing to compare them with yet."""
    kinds = ("benchmarks", "benchmarks.samples")
    without = with_frames(results, **{kind: results.frame(kind).query("arm != 'base'") for kind in kinds})
    with light():
        frame, sections = built(without, TABLES["benchmarks"])
    assert set(frame["arm"]) == set(results.arms()) - {"base"} and "delta" not in frame and len(sections) == 1


def test_tasks_weigh_the_same_and_subjects_are_one_task(results: Results) -> None:
    """A task with fewer items counts as much, and MMLU's subjects share one task's weight."""
    raw = results.frame("benchmarks.samples")
    short = raw[(raw["task"] != "brackets") | (raw["item"] < 10)]
    renamed = short.assign(task=short["task"].replace({"brackets": "mmlu_a", "identifier": "mmlu_b"}))
    summary = results.frame("benchmarks")
    summary = summary.assign(task=summary["task"].replace({"brackets": "mmlu_a", "identifier": "mmlu_b"}))
    mutant = with_frames(results, **{"benchmarks.samples": renamed, "benchmarks": summary})
    share = renamed[renamed["arm"] == "base"].groupby("task")["acc"].mean()
    expected = (share["next-line"] + (share["mmlu_a"] + share["mmlu_b"]) / 2) / 2
    frame = benchmarks_table.tidy(mutant).set_index(["arm", "task", "metric"])
    assert frame.loc[("base", "mean", "reported")]["accuracy"] == pytest.approx(expected)


NEW_TABLES = [name for name, table in TABLES.items() if table.needs[0] in truth.SETTINGS and not table.of_paper]
NEW_FIGURES = [name for name, figure in FIGURES.items() if figure.needs[0] in truth.SETTINGS]


def test_every_kind_has_a_table() -> None:
    """No further evaluation is left without a table of its own."""
    assert {TABLES[name].needs[0] for name in NEW_TABLES} == set(truth.SETTINGS)


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that plans none of the further evaluations."""
    return write_study(tmp_path_factory.mktemp("without") / "study")


def test_a_kind_outside_the_study_is_named_as_such(without: Path) -> None:
    """Tables and figures of kinds that a study does not plan say so, and nothing is read for them."""
    results = load(without)
    assert not set(results.frames) & set(truth.SETTINGS)
    for name in NEW_TABLES:
        with pytest.raises(NotMeasured, match="does not include"):
            built(results, TABLES[name])
    for name in NEW_FIGURES:
        with pytest.raises(NotMeasured, match="does not include"):
            specification(results, FIGURES[name])
    assert "not run" in write_table(load(without), TABLES["temperature"], "envs/run snakemake")[0].read_text()


def test_a_planned_kind_without_results_is_not_on_disk(results: Results) -> None:
    """'Planned, not run yet' differs from 'not part of this study'."""
    frames = {name: frame for name, frame in results.frames.items() if not name.startswith("benchmarks")}
    with pytest.raises(NotMeasured, match="on disk yet"):
        built(replace(results, frames=frames), TABLES["benchmarks"])


def test_an_evaluation_of_other_models_only_is_not_measured(results: Results) -> None:
    """A kind measured on some model but not on the base shows a reason, not an error."""
    for name in ("ramp", "entropy", "dynamic", "key_cache", "temperature"):
        frame = results.frame(name).assign(arm="yarn-s16", model="yarn-s16")
        with pytest.raises(NotMeasured):
            built(with_frames(results, **{name: frame}), TABLES[name])


def test_a_sweep_that_cannot_be_fitted_gives_a_reason(results: Results) -> None:
    """Two factors have no vertex, and a grid without 1.00 nothing to compare with: 'not run', not an error."""
    frame = results.frame("temperature")
    mutant = with_frames(results, temperature=frame[frame["factor"].isin([1.05, 1.10])])
    for name in ("temperature_fit", "temperature_segments"):
        with pytest.raises(NotMeasured):
            specification(mutant, FIGURES[name])
    with pytest.raises(NotMeasured):
        built(mutant, TABLES["temperature"])


@pytest.fixture
def quick(results: Results) -> Iterator[Results]:
    """The study where what is drawn is read, not its intervals."""
    with light(100):
        yield replace(results)


@pytest.mark.parametrize("name", NEW_FIGURES)
def test_a_changed_kind_changes_its_figures(quick: Results, name: str) -> None:
    """Each new figure is drawn from its own evaluation."""
    results = quick
    kind = FIGURES[name].needs[0]
    key = "benchmarks.samples" if kind == "benchmarks" else kind
    columns = {"benchmarks": ("acc",), "entropy": ("entropy",), "dynamic": ("nll", "tail_nll")}.get(kind, ("nll",))
    frame = results.frame(key)
    some = np.arange(len(frame)) % 7 == 0  # other rows of each run, whose number of rows 7 does not divide
    changed = {column: np.where(some, 0.0, frame[column]) for column in columns}
    mutant = with_frames(results, **{key: frame.assign(**changed)})
    assert specification(mutant, FIGURES[name]) != specification(results, FIGURES[name])


def test_short_texts_net_of_fine_tuning_are_what_was_planted(results: Results) -> None:
    """The table's differences to the control and to the base are those of the curves, at L/2 and L; of the base and of
    plain RoPE there is none to itself; without a control none is shown."""
    frame = TABLES["short_texts"].build(results)[0].set_index(["arm", "length"])
    n = np.array([L // 2, L])
    curves = {
        arm: log_perplexity(method, 16, n, kind)
        for arm, method, kind in (("yarn-s16", "yarn", "finetune"), ("plain-s16", "none", "finetune"))
    }
    curves["base"] = log_perplexity("none", 1, n, "pretrain")
    for i, length in enumerate(n):
        row = frame.loc[("yarn-s16", length)]
        for column, other in (("net", "plain-s16"), ("delta", "base")):
            planted = curves["yarn-s16"][i] - curves[other][i]
            assert row[column] == pytest.approx(planted, abs=0.05)  # models differ by their seed's effect
            assert 0 < row[f"{column}_high"] - row[f"{column}_low"] < 0.02
        assert row["n"] == 12
    assert frame.loc[("base", L), ["delta", "net"]].isna().all() and math.isnan(frame.loc[("plain-s16", L), "net"])
    alone = replace(results, models={k: m for k, m in results.models.items() if m.method != "none" or m.arm == "base"})
    assert "net" not in TABLES["short_texts"].build(alone)[0]
