"""Whatever is changed, lost, left or typed in a study's results is found, and nothing is found in sound ones."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.conftest import COMMAND, finish, keep_checkpoints, make
from yarnlab import cli
from yarnlab.audit.folder import BESIDE, NOT_RESULTS, AuditError, Folder, is_no_result
from yarnlab.audit.unfinished import unvouched
from yarnlab.audit.verify import verify
from yarnlab.provenance import read_json, record_is_intact, write_json, write_record
from yarnlab.results.crate import write_crate
from yarnlab.results.origin import origin
from yarnlab.results.report.gallery import markers, results_block
from yarnlab.results.results import load
from yarnlab.stages.layout import Layout

ROOT = Path(__file__).resolve().parents[2]


def wrong(study: Path, **options: Path) -> dict[str, str]:
    """File → what is wrong with it."""
    return {finding.file: finding.wrong for finding in verify(study, **options).findings}


def test_sound_results_are_said_to_be_so(sound):
    audit = verify(sound)
    assert audit.findings == ()
    assert ", 8 stages, " in audit.counts and "numbers in the report" in audit.counts


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_flipped_bit_of_any_file_is_found(sound, data):
    names = sorted(Folder(sound).hashes)
    file = sound / data.draw(st.sampled_from(names), label="file")
    content = file.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1), label="byte")
    bit = data.draw(st.integers(0, 7), label="bit")
    try:
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        assert any(file.relative_to(sound).as_posix() in str(finding) for finding in verify(sound).findings)
    finally:
        file.write_bytes(content)


def test_a_key_that_a_flipped_bit_renames_is_found(sound):
    """In the copy of a manifest that names a step log's hash."""
    file = sound / ".finished/train.yarn-s16/manifest.json"
    content = file.read_bytes()
    start = content.index(b'"step_log"')
    at = content.index(b'"sha256"', start) + 1
    try:
        file.write_bytes(content[:at] + b"r" + content[at + 1 :])
        assert set(wrong(sound)) == {".finished/train.yarn-s16/manifest.json"}
    finally:
        file.write_bytes(content)


def test_a_flipped_bit_of_any_file_of_a_stopped_study_is_found(stopped):
    """Partial results and checkpoints too. What is not named is no result, or is made again by a stage that has not
    finished; the documentation lists it with the reason."""
    folder, draw = Folder(stopped), random.Random(21)
    there = {file.relative_to(stopped).as_posix() for file in stopped.rglob("*") if file.is_file()}
    exempt = unvouched(folder) | {name for name in there if is_no_result(name)}
    assert {name.split("/")[0] for name in exempt} <= {
        "models", "training", "evaluations", "nll", "tables", "logs", "tracking", "state"
    }  # fmt: skip
    assert {name for name in exempt if name.startswith("state/")} == {"state/yarn-s32/lock"}
    for name in sorted(there - exempt):
        content = (stopped / name).read_bytes()
        for at in {0, draw.randrange(len(content))}:
            flipped = bytes([content[at] ^ 1 << draw.randrange(8)])
            (stopped / name).write_bytes(content[:at] + flipped + content[at + 1 :])
            found = [str(finding) for finding in verify(stopped).findings]
            (stopped / name).write_bytes(content)
            assert any(name in line for line in found), (name, at, flipped)


def test_of_a_stopped_study_it_is_said_what_is_missing_and_what_is_damaged(stopped, tmp_path):
    """No part, checkpoint or output of a stage under way is called nobody's, but for the drafts of a killed process."""
    study = Path(shutil.copytree(stopped, tmp_path / "micro"))
    missing = {"models/yarn-s32/manifest.json", "ro-crate-metadata.json"}
    missing |= {f"evaluations/perplexity/yarn-s{scale}.manifest.json" for scale in (16, 32)}
    draft = "state/yarn-s32/0123456789abcdef/.checkpoint.partial/rows-00000-of-00001.safetensors"
    analysed = ", figures and claims were made from"  # the step log of before
    places = ("models", "evaluations", "training", "nll", "state")
    named = {name for name, text in wrong(study).items() if name.split("/")[0] in places and analysed not in text}
    assert named == missing - {"ro-crate-metadata.json"} | {draft}
    part = study / "state/.evaluations/perplexity/yarn-s16/0123/4567/0-512.json"
    part.write_bytes(part.read_bytes().replace(b"2.5", b"2.6"))
    (finding,) = [finding for finding in verify(study).findings if finding.file.endswith("0-512.json")]
    assert finding.wrong.startswith("is not what was written; nothing reads it")
    assert finding.command == f"rm -r {part}"
    assert "nothing vouches for them" in verify(study).counts


def test_every_byte_of_a_record_counts(tmp_path):
    """Layout and the hash itself too; a record is intact as long as nothing is touched."""
    record = tmp_path / "record.json"
    write_record(record, {"text": "ä", "float": 1.5e-7, "nested": {"list": [1, None, True]}, "self_sha256": "old"})
    content = record.read_bytes()
    assert record_is_intact(record) is True
    for at in range(len(content)):
        for bit in range(8):
            record.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            assert not record_is_intact(record), (at, bit)
    write_json(record, {"no": "hash"})
    assert record_is_intact(record) is None


def test_a_lost_output_is_named_with_the_command_that_makes_it(study):
    (study / "models/base/model.safetensors").unlink()
    (finding,) = [f for f in verify(study).findings if f.file == "models/base/model.safetensors"]
    assert finding.wrong == "is missing, by models/base/manifest.json"
    assert finding.command == f"{COMMAND} -R results/micro/models/base/manifest.json"


def test_a_file_that_nobody_wrote_is_named(study):
    """Also what a killed process left; what is no part of the results is not looked at."""
    for name in ("models/base/.model.safetensors.x1.safetensors", "tables/mine.csv", "models/gone/manifest.json"):
        (study / name).parent.mkdir(exist_ok=True)
        (study / name).write_text("{}")
    (study / "logs" / "other.log").write_text("said")
    keep_checkpoints(study / "state" / "base" / "ab", 1)
    found = verify(study).findings
    assert {finding.file for finding in found} == {
        "models/base/.model.safetensors.x1.safetensors", "tables/mine.csv", "models/gone/manifest.json",
    }  # fmt: skip
    assert all(finding.command == f"rm -r {study / finding.file}" for finding in found)


def test_an_unfinished_stage_is_named_and_its_files_are_not_called_nobodys(study):
    (study / "models/yarn-s32/manifest.json").unlink()
    found = wrong(study)
    assert found["models/yarn-s32/manifest.json"] == "is not there: its stage has not finished"
    assert "models/yarn-s32/model.safetensors" not in found


def test_results_of_another_input_are_named(study):
    """Of one that was made again to other content; to the same content, only the analysis is older than it."""
    weights, corpus = study / "models/base/model.safetensors", study / "data/train/manifest.json"
    make(study, "train", "base", [weights], (corpus,))
    found = wrong(study)
    assert set(found) == {"models/base/manifest.json"}
    assert "tables, figures and claims were made from" in found["models/base/manifest.json"]
    weights.write_bytes(b"other weights")
    make(study, "train", "base", [weights], (corpus,))
    found = wrong(study)
    for reader in ("models/yarn-s16/manifest.json", "evaluations/perplexity/base.manifest.json"):
        assert found[reader].startswith("was made from another ") and "models/base/manifest.json" in found[reader]
    assert "models/yarn-s32/manifest.json" not in found


def test_a_result_that_the_analysis_has_not_seen_is_named(study):
    index = read_json(study / "analysis.json")
    index["inputs"] = {name: sha for name, sha in index["inputs"].items() if "yarn-s32" not in name}
    write_record(study / "analysis.json", index)
    assert any("was made without" in text for text in wrong(study).values())


def test_other_criteria_than_the_claims_were_judged_by_are_named(study):
    index = read_json(study / "analysis.json")
    (criteria,) = [name for name in index["inputs"] if name.endswith("claims.yaml")]
    index["inputs"][criteria] = "0" * 64
    write_record(study / "analysis.json", index)
    assert "tables, figures and claims were made from" in wrong(study)["config/claims.yaml"]


def test_a_number_that_was_typed_into_the_report_is_named(study):
    """Even if the crate was written after it."""
    report = study / "report.html"
    text = report.read_text()
    cell = json.loads((study / "tables/perplexity.json").read_text())["displayed"][0]["rows"][0]["cells"][1]
    shown = cell.split(" ")[0]
    assert f">{shown}<" in text
    report.write_text(text.replace(f">{shown}<", ">999.25<", 1))
    write_crate(study)
    (found,) = verify(study).findings
    assert found.file == "report.html" and "no file backs 999.25" in found.wrong
    assert found.command == f"{COMMAND} -R report"


def test_two_numbers_of_the_report_that_changed_places_are_named(study):
    report = study / "report.html"
    first, second, *_ = json.loads((study / "tables/perplexity.json").read_text())["displayed"][0]["rows"][0]["cells"][
        1:
    ]
    a, b = (f">{cell.split(' ')[0]}<" for cell in (first, second))
    assert a != b
    report.write_text(report.read_text().replace(a, "HERE", 1).replace(b, a, 1).replace("HERE", b, 1))
    write_crate(study)
    assert any("no file backs" in finding.wrong for finding in verify(study).findings)


def test_a_changed_point_of_a_figure_in_the_report_is_named(study):
    report = study / "report.html"
    text = report.read_text()
    at = text.index('"perplexity":', text.index('data-spec="figure_1"')) + len('"perplexity":')
    report.write_text(text[:at] + "7" + text[at:])
    write_crate(study)
    assert any("figure_1 shows other numbers" in finding.wrong for finding in verify(study).findings)


@pytest.fixture
def readme(study) -> Path:
    """A README beside results/ with the block of this study."""
    project = study.parents[1]
    claims, title = read_json(study / "claims.json"), read_json(study / "study.json")["title"]
    block = results_block(claims, title, origin(load(study)))
    begin, end = markers("micro")
    (project / "README.md").write_text(f"# Ours\n\n{begin}\n{block.strip()}\n{end}\n\nAfter 12 steps.\n")
    return project / "README.md"


def test_a_number_of_the_readme_that_no_file_backs_is_named(study, readme):
    assert verify(study, readme).findings == ()
    text = readme.read_text()
    readme.write_text(text.replace(" hold", " 77 hold", 1))
    (finding,) = verify(study, readme).findings
    assert "no file backs 77" in finding.wrong and finding.command.startswith("envs/run yarnlab gallery")
    changed = readme.read_text()
    readme.write_text(changed.replace("results of micro", "results of another"))
    assert verify(study, readme).findings == ()
    readme.write_text(changed.replace(origin(load(study)).commits, "commit fd8316cb9de4"))  # the run that it shows
    assert verify(study, readme).findings == ()


def test_an_analysis_that_was_not_made_is_one_line(study):
    for name in ("analysis.json", "report.html", "ro-crate-metadata.json", "claims.json"):
        (study / name).unlink()
    for folder in ("tables", "figures"):
        shutil.rmtree(study / folder)
    found = verify(study).findings
    assert {finding.file for finding in found} == {"analysis.json", "ro-crate-metadata.json"}
    assert found[0].command == "envs/run snakemake --cores all --config study=micro -- results/micro/analysis.json"


def test_what_makes_it_again_makes_it_sound(study):
    """After the commands' work: a table that was changed, and a copy that is in nobody's way."""
    (study / "tables/perplexity.csv").write_text("mine\n")
    copy = study / ".finished" / "train.base" / "record.json"
    copy.write_text(copy.read_text().replace("train", "trail"))
    assert set(wrong(study)) == {"tables/perplexity.csv", ".finished/train.base/record.json"}
    shutil.rmtree(copy.parent)
    finish(study)
    assert verify(study).findings == ()


def command(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["yarnlab", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_verb_says_one_line_for_each(study, monkeypatch, capsys):
    monkeypatch.chdir(study.parents[1])
    assert command("verify", "micro", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.startswith("results/micro: sound: ")
    (study / "tables/perplexity.csv").write_text("mine\n")
    assert command("verify", "micro", monkeypatch=monkeypatch) == 1
    said = capsys.readouterr()
    assert said.err == f"tables/perplexity.csv: is not what was written, by analysis.json; {COMMAND} -R analyse\n"
    assert said.out.startswith("results/micro: 1 found: ")


def test_a_study_that_is_not_there_is_one_message(study, monkeypatch, capsys):
    monkeypatch.chdir(study.parents[1])
    assert command("verify", "mirco", monkeypatch=monkeypatch) == 1
    assert capsys.readouterr().err == "error: results/mirco holds no results (no study.json); did you mean 'micro'?\n"
    with pytest.raises(AuditError, match=r"no study\.json"):
        verify(study.parent)


def test_what_is_no_part_of_the_results_is_documented_with_its_reason():
    text = " ".join((ROOT / "docs" / "verify.md").read_text(encoding="utf-8").split())
    for name, reason in NOT_RESULTS.items():
        assert f"| `results/STUDY/{name}` | {reason} |" in text, name
    for name, reason in BESIDE.items():
        assert f"| `results/{name}` | {reason} |" in text, name


def test_every_stage_has_its_place():
    layout = Layout(Path())
    places = {stage: layout.manifest(stage, "x").as_posix() for stage in ("asset", "corpus", "train", "passkey")}
    assert places == {
        "asset": "assets/x/manifest.json", "corpus": "data/x/manifest.json", "train": "models/x/manifest.json",
        "passkey": "evaluations/passkey/x.manifest.json",
    }  # fmt: skip
    assert layout.manifest("tokenizer", "tokenizer").as_posix() == "data/tokenizer/manifest.json"
