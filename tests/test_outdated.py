"""Results that Snakemake takes as they are are compared with the study, with their files and with the hub's lock."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.persistence.file import FilePersistence

from yarnlab import outdated
from yarnlab.study.sections import digest, section
from yarnlab.workflow import Workflow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def flow(tmp_path, monkeypatch) -> Workflow:
    """The smoke study, all of whose manifests lie in the working directory as its stages would write them now."""
    monkeypatch.chdir(tmp_path)
    flow = Workflow.load("smoke", ROOT / "config" / "studies")
    for (stage, name), path in flow.executions().items():
        made = {"spec_sha256": digest(section(flow.study, stage, name)), "code": flow.key_of(stage, name)}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(made))
    return flow


def change(flow: Workflow, stage: str, name: str, **changes: object) -> str:
    path = Path(flow.executions()[stage, name])
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return str(path)


def test_results_that_fit_the_study_need_no_word(flow, capsys):
    """Also where some are not there, or unreadable."""
    Path(flow.executions()["train", "base"]).unlink()
    Path(flow.executions()["train", "yarn-s16"]).write_text("{")
    outdated.warn(flow)
    assert capsys.readouterr().err == ""


def test_one_message_names_stages_reason_and_command(flow, capsys):
    """Files where others of the rule are sound, so that these are not trained again; the rule where none is."""
    trained = change(flow, "train", "yarn-s16", spec_sha256="0" * 64)
    for stage, name in flow.executions():
        if stage == "passkey":
            change(flow, stage, name, code="0" * 12)
    change(flow, "passkey", "base", spec_sha256="0" * 64)
    outdated.warn(flow)
    said = capsys.readouterr().err
    assert "train yarn-s16: made with other settings\n" in said
    assert f"passkey yarn-s16: made as 000000000000, now {flow.key_of('passkey', 'yarn-s16')}\n" in said
    assert "passkey base: made with other settings; made as 000000000000, now passkey-teacher-forced@" in said
    assert said.endswith(f"envs/run snakemake --cores all --config study=smoke -R {trained} passkey\n")
    assert "perplexity" not in said


def test_what_snakemake_has_a_record_of_is_left_to_it(flow, capsys):
    path = change(flow, "train", "yarn-s16", code="v0")
    record = outdated.record_of(path)
    record.parent.mkdir(parents=True)
    record.touch()
    outdated.warn(flow)
    assert capsys.readouterr().err == ""


def recorded(flow: Workflow, stage: str, name: str) -> None:
    """As after a run of Snakemake."""
    record = outdated.record_of(flow.executions()[stage, name])
    record.parent.mkdir(parents=True, exist_ok=True)
    record.touch()


def test_files_that_a_manifest_names_are_looked_at(flow, capsys):
    """Gone or of another size, also where Snakemake has a record of the manifest."""
    sizes = {"models/yarn-s16/model.safetensors": 3, "models/yarn-s16/config.json": 2, "models/yarn-s16/gone.json": 1}
    outputs = {name: {"sha256": "", "bytes": size} for name, size in sizes.items()}
    step_log = {"training/yarn-s16.jsonl": {"sha256": "", "bytes": 9}}
    change(flow, "train", "yarn-s16", outputs=outputs, step_log=step_log)
    recorded(flow, "train", "yarn-s16")
    for name in ("model.safetensors", "config.json"):
        Path(flow.root, "models", "yarn-s16", name).write_text("{}")
    outdated.warn(flow)
    said = capsys.readouterr().err
    wrong = (
        "models/yarn-s16/model.safetensors has another size; models/yarn-s16/gone.json is missing; "
        "training/yarn-s16.jsonl is missing"
    )
    assert f"  train yarn-s16: {wrong}\n" in said
    assert said.endswith("-R results/smoke/models/yarn-s16/manifest.json\n")


def test_a_table_that_the_analysis_wrote_is_looked_at(flow, capsys):
    Path(flow.analysis()).write_text(json.dumps({"outputs": {"tables/perplexity.csv": {"sha256": "", "bytes": 1}}}))
    outdated.warn(flow)
    said = capsys.readouterr().err
    assert "  analyse: tables/perplexity.csv is missing\n" in said and said.rstrip().endswith("analyse")


@pytest.mark.parametrize("path", ["results/micro/models/base/manifest.json", "results/" + "x/" * 300 + "manifest.json"])
def test_records_lie_where_snakemake_puts_them(path):
    own = FilePersistence._record_path(SimpleNamespace(_fetch_max_len=lambda _: 255), str(outdated.RECORDS), path)
    assert outdated.record_of(path) == Path(own)


def test_a_start_is_not_slowed(flow):
    """Every start of Snakemake does this: with records (the ordinary case) in milliseconds, without in a few more."""
    flow.key_of("train", "base")  # Snakemake's start has asked for all keys by then
    begin = time.process_time()
    outdated.outdated(flow)
    assert time.process_time() - begin < 0.2  # 10 ms on a quiet machine


def test_snakemake_says_it_once_before_it_decides(flow):
    """In a dry run too, and the study's name in the command is the one that was given."""
    change(flow, "train", "base", code="v0")
    study = str(ROOT / "config" / "studies" / "smoke.yaml")
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "-n", "-q", "--config", f"study={study}"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Snakemake keeps them") == 1
    assert f"--config study={study} -R results/smoke/models/base/manifest.json" in done.stderr
