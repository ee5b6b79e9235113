"""Comparing two results folders: what changed, all of it, and nothing else."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from results.light import light
from results.synthetic import write_study
from yarnlab.results.analyse import built, write_table
from yarnlab.results.claims.judge import write_claims
from yarnlab.results.compare import (
    Comparison,
    Number,
    NumberPair,
    compare,
    headline,
    numbers,
    to_csv,
    to_html,
    to_markdown,
    write_comparison,
)
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.registry import tables
from yarnlab.results.results import Results, ResultsError, load

TABLES = ("perplexity", "passkey", "training")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study with three tables and its verdicts; tests copy it."""
    study = write_study(tmp_path_factory.mktemp("results") / "micro", ablation=False, skip=("zero_shot",), documents=4)
    for table in TABLES:
        write_table(load(study), tables()[table], "envs/run snakemake")
    write_claims(load(study), "envs/run snakemake")
    manifest = study / "models/yarn-s16/manifest.json"
    spec = {"train": {"steps": 45, "lr": 3e-4}}
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"spec": spec, "code": "v7"}))
    return study


@pytest.fixture
def other(study: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(study, tmp_path / "micro"))


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, (path, text.count(old))
    path.write_text(text.replace(old, new))


def test_a_study_equals_itself(study: Path, other: Path) -> None:
    """No setting, verdict or number differs, and there are numbers to differ."""
    found = compare(study, other)
    assert (found.settings, found.origins, found.changed_claims, found.changed_numbers) == ((), (), (), ())
    assert len(found.numbers) > 40 and len(found.claims) > 30
    assert "| " not in to_markdown(found)


def test_one_setting_one_commit_and_one_number_are_found(study: Path, other: Path) -> None:
    """Each change is reported once, where it was made, and nothing else is."""
    edited(other / "models/yarn-s16/manifest.json", '"steps": 45', '"steps": 60')
    edited(other / "models/base/manifest.json", '"0123456789abcdef0123456789abcdef01234567"', '"fedcba"')
    path = other / "tables/passkey.csv"
    lines = path.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("yarn-s16") and ",4096,0,1," in line)
    cells = lines[row].split(",")
    lines[row] = ",".join([*cells[:7], "0.5", "0.4", "0.6", *cells[10:]])
    path.write_text("\n".join(lines) + "\n")
    found = compare(study, other)
    assert [(d.place, d.key, d.a, d.b) for d in found.settings] == [("train yarn-s16", "train.steps", "45", "60")]
    assert ("train base", "git.commit", '"fedcba"') in {(d.place, d.key, d.b) for d in found.origins}
    (pair,) = found.changed_numbers
    assert (pair.table, pair.column, pair.verdict) == ("passkey", "accuracy", "apart")
    assert "length 4,096" in pair.key and pair.b == Number(0.5, 0.4, 0.6)


def test_a_changed_verdict_and_criterion_stand_side_by_side(study: Path, other: Path) -> None:
    """Both statuses, and that the words of the criterion are others."""
    path = other / "claims.json"
    document = json.loads(path.read_text())
    claim = next(c for c in document["claims"] if c["status"] == "holds")
    claim |= {"status": "fails", "criterion": "another"}
    path.write_text(json.dumps(document))
    (pair,) = compare(study, other).changed_claims
    assert (pair.id, pair.a, pair.b, pair.criterion_changed) == (claim["id"], "holds", "fails", True)


def test_studies_of_different_windows_meet_at_multiples_of_them(study: Path, other: Path) -> None:
    """2L of one is set beside 2L of the other, however many tokens they are."""
    plan = json.loads((other / "study.json").read_text()) | {"original_context": 512}
    (other / "study.json").write_text(json.dumps(plan))
    path = other / "tables/perplexity.csv"
    rows = list(csv.DictReader(path.open()))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"length": str(2 * int(row["length"]))} for row in rows)
    found = compare(study, other)
    pairs = [pair for pair in found.numbers if pair.table == "perplexity"]
    assert found.lengths == "L" and {pair.verdict for pair in pairs} == {"same"}
    assert any("length 16L" in pair.key for pair in pairs)
    assert "512 in b" in headline(found)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (Number(1, 0.9, 1.1), Number(1, 0.9, 1.1), "same"),
        (Number(1, 0.9, 1.1), Number(1.15, 1.05, 1.25), "within intervals"),
        (Number(1, 0.9, 1.1), Number(2, 1.9, 2.1), "apart"),
        (Number(1), Number(2), "changed"),
        (Number(1), None, "only in a"),
        (None, Number(1), "only in b"),
    ],
)
def test_verdicts_on_a_pair(a: Number | None, b: Number | None, verdict: str) -> None:
    """By whether the two intervals meet."""
    assert NumberPair("t", "k", "c", a, b).verdict == verdict


def test_a_table_that_was_not_run_is_on_one_side_only(study: Path, other: Path) -> None:
    """'not run' is no number; the other side's numbers are shown."""
    (other / "tables/passkey.csv").write_text("status,reason\nnot run,no results\n")
    pairs = [pair for pair in compare(study, other).numbers if pair.table == "passkey"]
    assert pairs and {pair.verdict for pair in pairs} == {"only in a"}
    assert numbers(other / "tables/passkey.csv") == {}


def test_every_interval_of_a_table_is_read(results: Results, tmp_path: Path) -> None:
    """A column with bounds of its own name is a number, with these; published numbers, which have bounds too, are not."""
    with light():
        for name in (
            "temperature",
            "entropy",
            "entropy_by_layer",
            "passkey",
            "passkey_official",
            "ablation",
            "training",
            "zero_shot",
            "table_2",
        ):
            frame, _ = built(replace(results), tables()[name])
            frame.to_csv(tmp_path / f"{name}.csv", index=False)
            found = numbers(tmp_path / f"{name}.csv")
            if name == "entropy_by_layer":  # a key for each row: every head of every layer has its own
                assert len({key for key, _ in found}) == len(frame)
            bounded = {c for c in frame if f"{c}_low" in frame and frame[c].notna().any()} - {"published"}
            assert bounded <= {column for _, column in found} and "published" not in {column for _, column in found}
            for (_, column), number in found.items():
                assert column not in bounded or number.low <= number.value <= number.high, (name, column)
    frame = pd.read_csv(tmp_path / "ablation.csv").dropna(subset=["passkey"])
    trials = {number.n for (_, column), number in numbers(tmp_path / "ablation.csv").items() if column == "passkey"}
    assert trials == {str(n) for n in frame["passkey_n"]} == {"50.0"}


@pytest.mark.slow
def test_every_row_of_every_table_has_its_own_key(results: Results, tmp_path: Path) -> None:
    """Nothing is lost: a number for each row and column of results that holds one."""
    with light():
        for name, table in tables().items():
            try:
                frame, _ = built(results, table)
            except NotMeasured:
                continue
            frame.to_csv(tmp_path / f"{name}.csv", index=False)
            found = numbers(tmp_path / f"{name}.csv")
            for column in {column for _, column in found}:
                assert sum(other == column for _, other in found) == frame[column].notna().sum(), (name, column)


def test_what_tells_rows_apart_is_the_columns_before_the_number(tmp_path: Path) -> None:
    """Of any name; flags and labels aside. Rows that nothing tells apart are refused rather than lost."""
    path = tmp_path / "new.csv"
    path.write_text("arm,label,dialect,exact,loss,low,high\nyarn,YaRN,x,True,1,0.5,2\nyarn,YaRN,y,False,3,2.5,4\n")
    assert numbers(path) == {("yarn, x", "loss"): Number(1, 0.5, 2), ("yarn, y", "loss"): Number(3, 2.5, 4)}
    path.write_text(path.read_text().replace(",y,", ",x,"))
    with pytest.raises(ResultsError, match=r"new\.csv: two rows are both 'yarn, x'"):
        numbers(path)
    path.write_text("part,name,seconds,run\ntrain,yarn,2.5,ab\n")  # no intervals: every number is a result
    assert numbers(path) == {("train, yarn", "seconds"): Number(2.5)}
    for damaged in ("", "arm,loss,low,high\nyarn,much,0.5,2\n"):
        path.write_text(damaged)
        with pytest.raises(ResultsError, match=r"new\.csv cannot be read"):
            numbers(path)


def test_three_files_are_written(study: Path, other: Path) -> None:
    """The page fetches nothing and holds what changed, the CSV every number, and a failure leaves the old files."""
    edited(other / "models/yarn-s16/manifest.json", '"lr": 0.0003', '"lr": "<b>"')
    html, md, table = write_comparison(study, other)
    assert html.parent == other.parent / "comparisons" / "micro--micro"
    page = html.read_text()
    assert "&lt;b&gt;" in page and "<b>&#34;" not in page and "src=" not in page and 'href="http' not in page
    assert '| train yarn-s16 | train.lr | 0.0003 | "<b>" |' in md.read_text()
    found: Comparison = compare(study, other)
    rows = list(csv.DictReader(table.open()))
    assert sum(row["part"] == "number" for row in rows) == len(found.numbers)
    assert page == to_html(found) and table.read_text() == to_csv(found)
    with pytest.raises(ResultsError, match=r"holds no study\.json; give results/<study>"):
        write_comparison(study, other / "tables")
    assert html.read_text() == page
