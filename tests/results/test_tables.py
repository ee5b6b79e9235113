"""Tables: their numbers, their three forms, and what they say when something is absent."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from results.light import light
from results.synthetic import with_control, with_frames, write_study
from yarnlab.results.analyse import built, table_named, write_table
from yarnlab.results.display import duration, mark_note, signed, value, with_interval
from yarnlab.results.estimates import zero_shot as zero_shot_nll
from yarnlab.results.registry import made_of, tables
from yarnlab.results.results import Results, ResultsError, load
from yarnlab.results.statistics import holm, sign_flip
from yarnlab.results.tables import ablation as ablation_table
from yarnlab.results.tables import cost as cost_table
from yarnlab.results.tables import passkey as passkey_table
from yarnlab.results.tables import perplexity as perplexity_table
from yarnlab.results.tables import training as training_table
from yarnlab.results.tables import zero_shot as zero_shot_table

TABLES = tables()
COMMAND = "envs/run snakemake"


def written(results: Results, name: str) -> list[Path]:
    """The files of one table: csv, md, tex, json."""
    return write_table(results, TABLES[name], COMMAND)


def test_every_table_is_written_in_three_forms(results: Results) -> None:
    """csv, md and tex exist, hold the same models, and hold no NaN as text; the JSON is what the report shows."""
    own = replace(results)
    for name in (name for name, table in TABLES.items() if not table.of_control):  # that one has its own test
        with light():
            csv, md, tex, shown = (path.read_text() for path in written(own, name))
        assert [row["cells"][0] in md for row in json.loads(shown)["displayed"][0]["rows"]]
        assert len(csv.splitlines()) > 3
        assert "| --- |" in md and r"\toprule" in tex
        assert "nan" not in md.lower().replace("resonan", "") and "nan" not in tex.lower()


def test_a_control_stands_beside_its_model(results: Results) -> None:
    """Gaps to YaRN on both and the move between them; a study without a control has no such table."""
    study, table = with_control(results, {"pi": 0.3, "yarn": 0.1}, 0.001), TABLES["requantised"]
    frame, (shown,) = table.build(study)
    assert len(frame) == len(shown.frame) == 5 * 5
    assert frame["move"].to_numpy() == pytest.approx(frame["again"] - frame["gap"])
    by_method = frame[frame["scale"] == 2].set_index("method")
    assert by_method["move"]["pi"] == pytest.approx(0.2, abs=0.01)
    assert by_method["move"]["none"] == pytest.approx(-0.1, abs=0.01)
    row = by_method.loc["pi"]
    assert (row["start"], row["length"], row["half_width"]) == (256, 512, (row["high"] - row["low"]) / 2)
    assert shown.sources[0] == [f"evaluations/zero_shot/{arm}.manifest.json" for arm in ("base", "requantised")]
    assert table.build(results)[0].empty
    planned: dict[str, Any] = {"form": "scale-free", "of_paper": False}
    with_it, without = (made_of(TABLES, ["zero_shot"], **planned, of_control=some) for some in (True, False))
    assert with_it.keys() - without.keys() == {"requantised"}


def test_perplexity_is_that_of_the_documents(results: Results) -> None:
    """A cell equals exp of the mean over documents of the stored NLL."""
    frame = perplexity_table.tidy(results)
    raw = results.frame("perplexity")
    for arm, length in (("base", 256), ("yarn-s32", 8192)):
        expected = np.exp(raw[(raw["arm"] == arm) & (raw["length"] == length)]["nll"].mean())
        cell = frame[(frame["arm"] == arm) & (frame["length"] == length) & (frame["measure"] == "cumulative")]
        assert cell["perplexity"].item() == pytest.approx(expected)
        assert cell["n"].item() == 12
    assert set(frame["length"]) == {128, 256, 512, 1024, 2048, 4096, 6144, 8192}


def test_the_paired_gap_is_much_sharper_than_the_perplexities(results: Results) -> None:
    """Documents differ by far more than methods, and pairing removes that."""
    frame = ablation_table.tidy(results)
    row = frame[(frame["arm"] == "ramp-only-s16") & (frame["length"] == 4096)].iloc[0]
    unpaired = np.log(row["high"]) - np.log(row["low"])
    assert row["delta_high"] - row["delta_low"] < unpaired / 5
    assert row["delta_low"] > 0
    assert set(frame["length"]) == {256, 1024, 4096, 6144}


def test_ablation_lists_yarn_first_and_the_base_last(results: Results) -> None:
    """Six arms at the ablation's scale and the base; the continued model is no arm of it."""
    arms = list(dict.fromkeys(ablation_table.tidy(results)["arm"]))
    assert arms[0] == "yarn-s16" and arms[-1] == "base"
    assert len(arms) == 7 and "yarn-s32" not in arms


def test_deciles_add_up_to_the_whole(results: Results) -> None:
    """The trials of the ten depths of a cell are the cell's trials."""
    frame = passkey_table.tidy(results)
    whole = frame[(frame["depth_low"] == 0) & (frame["depth_high"] == 1)].set_index(["arm", "length"])["n"]
    parts = frame[frame["depth_high"] - frame["depth_low"] < 0.5].groupby(["arm", "length"])["n"].sum()
    assert (whole.sort_index() == parts.sort_index()).all()


def test_what_is_continuous_of_the_passkey_is_shown_too(results: Results) -> None:
    """Mean expected accuracy and median margin of a cell's trials, of one seed and of two, with their intervals."""
    raw = results.frame("passkey")
    score = np.random.default_rng(0).random((2, len(raw)))
    one = raw.assign(expected_accuracy=score[0], margin=score[1] - 0.4)
    two = pd.concat([one, one.assign(seed=43, margin=one["margin"] + 1)])
    for frame in (one, two):
        with light():
            table, sections = built(with_frames(results, passkey=frame), TABLES["passkey"])
        whole = table[(table["depth_low"] == 0) & (table["depth_high"] == 1)].set_index(["arm", "length"])
        cells = frame.groupby(["arm", "length"])
        assert whole["expected"].to_dict() == pytest.approx(cells["expected_accuracy"].mean().to_dict())
        assert whole["margin"].to_dict() == pytest.approx(cells["margin"].median().to_dict())
        for name in ("expected", "margin"):
            assert (whole[f"{name}_low"] < whole[name]).all() and (whole[name] < whole[f"{name}_high"]).all()
        assert table["margin"].isna().sum() == len(table) - len(whole)
    assert [section.caption[:11] for section in sections] == ["Passkey acc", "Expected ac", "Margin at p"]


def test_one_changed_number_changes_only_its_cell(tmp_path: Path) -> None:
    """Editing one arm at one length changes that row of the table (and no other)."""
    study = write_study(tmp_path / "study")
    before = perplexity_table.tidy(load(study))
    path = study / "evaluations/perplexity/pi-s16.parquet"
    frame = pd.read_parquet(path)
    frame.loc[frame["length"] == 512, "nll"] += 0.01
    frame.to_parquet(path)
    after = perplexity_table.tidy(load(study))
    changed = before[before["perplexity"] != after["perplexity"]]
    assert [(r.arm, r.length, r.measure) for r in changed.itertuples()] == [("pi-s16", 512, "cumulative")]


def test_an_absent_evaluation_says_not_run(tmp_path: Path) -> None:
    """A table whose results are absent is written, and says so; the others are unaffected."""
    study = write_study(tmp_path / "study", skip=("zero_shot", "passkey"))
    for name in ("zero_shot", "passkey"):
        *texts, shown = written(load(study), name)
        assert all("not run" in path.read_text() for path in texts) and json.loads(shown.read_text())["reason"]
    assert "not run" not in written(load(study), "ablation")[1].read_text()


def test_an_evaluation_outside_the_study_is_named_as_such(tmp_path: Path) -> None:
    """'Not part of this study' is not the same as 'not run yet'."""
    study = write_study(tmp_path / "study")
    document = json.loads((study / "study.json").read_text())
    document["evaluations"]["passkey"] = None
    (study / "study.json").write_text(json.dumps(document))
    assert "does not include" in written(load(study), "passkey")[1].read_text()


def test_a_model_outside_the_study_is_ignored(tmp_path: Path) -> None:
    """A parquet left behind by a removed arm reaches no table."""
    study = write_study(tmp_path / "study")
    document = json.loads((study / "study.json").read_text())
    del document["models"]["plain-s16"]
    (study / "study.json").write_text(json.dumps(document))
    assert "plain-s16" not in set(perplexity_table.tidy(load(study))["arm"])
    assert "plain-s16" not in set(cost_table.tidy(load(study))["name"])


def test_a_half_written_last_line_is_tolerated(tmp_path: Path) -> None:
    """The log of a running stage may end in the middle of a line."""
    study = write_study(tmp_path / "study")
    path = study / "training/yarn-s16.jsonl"
    path.write_text(path.read_text() + '{"step": 101, "lo')
    frame = training_table.tidy(load(study)).set_index("model")
    assert frame.loc["yarn-s16", "steps"] == 100


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    """A missing study.json, a file without a column and an unknown name are one clear message each; tables that do not
    read that file are written."""
    with pytest.raises(ResultsError, match=r"study\.json is missing: run the study"):
        load(tmp_path)
    study = write_study(tmp_path / "study")
    path = study / "evaluations/passkey/base.parquet"
    pd.read_parquet(path).drop(columns="hit").to_parquet(path)
    for name in ("passkey", "ablation"):
        with pytest.raises(ResultsError, match=r"base\.parquet lacks hit: delete it and run the study again"):
            written(load(study), name)
    assert "not run" not in written(load(study), "perplexity")[1].read_text()
    with pytest.raises(ResultsError, match="no table is called 'table_99'"):
        table_named("table_99")


def test_untrained_gaps_are_tested_where_they_are_shown(results: Results) -> None:
    """At N = sL every method but YaRN has a p of the sign-flip test, corrected over these; no other length is tested."""
    frame = zero_shot_table.tidy(results)
    shown = frame[frame["at_full_window"] & (frame["method"] != "yarn")]
    assert shown["p"].notna().all() and len(shown) == frame["p"].notna().sum() == 25
    assert shown["p_holm"].tolist() == pytest.approx(holm(shown["p"].tolist()))
    at = zero_shot_nll(results, "pi", 4.0, 1024) - zero_shot_nll(results, "yarn", 4.0, 1024)
    row = shown[(shown["method"] == "pi") & (shown["scale"] == 4)].iloc[0]
    assert row["p"] == sign_flip(at.to_numpy()).p and row["p_holm"] < 0.05


def test_an_untrained_gap_by_chance_is_marked(results: Results) -> None:
    """A method that loses to YaRN on one document and wins on the next is marked, and the others are not."""
    frame = results.frame("zero_shot").set_index(["method", "scale", "length", "document"]).sort_index()
    nll = frame["nll"].copy()
    yarn = nll.xs(("yarn", 4, 1024)).to_numpy()
    nll.loc[("pi", 4, 1024)] = yarn + 0.01 * (-1.0) ** np.arange(len(yarn))
    mutant = with_frames(results, zero_shot=frame.assign(nll=nll).reset_index())
    with light():
        gaps = built(mutant, TABLES["zero_shot"])[1][1].frame.set_index("method")
    assert gaps.loc["PI", "s = 4"].endswith("n.s.") and not gaps.loc["PI", "s = 16"].endswith("n.s.")


@pytest.mark.parametrize("name", ["ablation", "passkey_comparison", "sliding_window", "zero_shot"])
def test_a_difference_to_yarn_says_to_which(results: Results, name: str) -> None:
    """A study has YaRN at several scales: captions and columns of gaps name the one, or that it is that of the same s."""
    _, sections = built(results, TABLES[name])
    texts = [text for s in sections for text in (s.caption, *map(str, s.frame.columns)) if "YaRN" in text]
    assert texts and all("YaRN at the same s" in text or "YaRN s=16" in text for text in texts)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("zero_shot", set()),
        ("temperature", {"scale", "formula 0.1 ln s + 1", "√(1/t) = a·ln s + b", "paper"}),
        ("entropy", {"scale"}),
        ("entropy_by_layer", set()),
        ("passkey", set()),
        ("passkey_official", {"passkey context"}),
    ],
)
def test_every_number_shown_has_its_interval(results: Results, name: str, plain: set[str]) -> None:
    """Cells are empty, words or a number with its interval, in all columns but those that nothing is measured for."""
    _, sections = built(results, TABLES[name])
    for section in sections:
        for column in set(section.frame.columns[1:]) - plain:
            assert all("[" in cell or not any(map(str.isdigit, cell)) for cell in section.frame[column]), column


def test_final_losses_have_an_interval_over_steps(results: Results) -> None:
    """The mean of the last 20 steps lies in its interval, which more noise makes wider; an absent loss is shown as '–'."""
    frame, sections = built(results, TABLES["training"])
    assert ((frame["final_loss_low"] < frame["final_loss"]) & (frame["final_loss"] < frame["final_loss_high"])).all()
    assert sections[0].frame["final loss"].str.contains("[", regex=False).all()
    assert set(sections[0].frame["answers"]) == {"–"}
    log = results.frame("training")
    # Far more than the curves' own distance from the line in ln(step), which noise makes less autocorrelated too.
    noisy = log.assign(loss=log["loss"] + np.where(log["step"] % 2, 1.0, -1.0))
    wider = training_table.tidy(with_frames(results, training=noisy))
    width = [f["final_loss_high"] - f["final_loss_low"] for f in (frame, wider)]
    assert (width[1] > width[0]).all()


def test_what_was_published_to_mlflow_is_in_no_table(tmp_path: Path) -> None:
    """No rule of a table waits for tracking/runs.json: with and without it, the files are the same."""
    study = write_study(tmp_path / "study", skip=("zero_shot", "training"))
    names = ("verdicts", "table_2", "stated_values")
    with light():
        first = [path.read_bytes() for name in names for path in written(load(study), name)]
        (study / "tracking/runs.json").unlink()
        assert [path.read_bytes() for name in names for path in written(load(study), name)] == first


def test_tables_are_the_same_twice(study_dir: Path) -> None:
    """Writing a table again gives identical bytes."""
    first = [path.read_bytes() for path in written(load(study_dir), "ablation")]
    assert [path.read_bytes() for path in written(load(study_dir), "ablation")] == first


def test_latex_escapes_its_specials() -> None:
    """Names with underscores and percent signs survive LaTeX."""
    from yarnlab.results.display import DisplayTable, to_latex

    frame = pd.DataFrame([{"model": "a_b", "share": "50 %"}])
    text = to_latex([DisplayTable("50 % of a_b", frame, [[]])], "x")
    assert r"a\_b & 50 \% \\" in text and r"\caption{50 \% of a\_b}" in text


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (14.72, "14.7"),
        (1234.5, "1,234"),
        (0.0123, "0.0123"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
        (-2.5, "−2.50"),
    ],
)
def test_numbers_are_shown_to_three_digits(x: float, text: str) -> None:
    """Three significant digits, thousands separated, no NaN on paper."""
    assert value(x) == text


def test_durations_and_intervals_read_well() -> None:
    """Seconds, minutes and hours; an interval stands behind its number."""
    assert [duration(s) for s in (4.2, 65, 3720)] == ["4.2 s", "1 min 05 s", "1 h 02 min"]
    assert signed(0.1, 0.05, 0.15) == "+0.100 [+0.050, +0.150]"
    assert signed(-0.0002, -0.0003, 0.0001) == "−0.00020 [−0.00030, +0.00010]"
    assert with_interval(14.72, 13.1, 16.44) == "14.7 [13.1, 16.4]"


def test_a_mark_says_where_the_test_could_not_say_otherwise() -> None:
    """Of five documents even five of one sign are no p below 0.0625; of six they are, and no other test is bound so."""
    for n, test, said in (
        (5, "the sign-flip test", True),
        (6, "the sign-flip test", False),
        (5, "Fisher's test", False),
    ):
        frame = pd.DataFrame({"p": [sign_flip(np.ones((1, n))).p], "n": [n]})
        note = mark_note(frame, test)
        assert note.startswith("n.s.: p ≥ 0.05") and ("no p below 0.0625" in note) == said
        assert (frame["p"].item() >= 0.05) == (n == 5)
