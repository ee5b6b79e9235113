"""Results that Snakemake takes as they are, since it has no record of them, are compared with the study all the same."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.persistence.file import FilePersistence

from yarnlab import stale
from yarnlab.code import code_key
from yarnlab.study.sections import digest, section
from yarnlab.workflow import Workflow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def flow(tmp_path, monkeypatch) -> Workflow:
    """The smoke study, all of whose manifests lie in the working directory as its stages would write them now."""
    monkeypatch.chdir(tmp_path)
    flow = Workflow.load("smoke", ROOT / "config" / "studies")
    for (stage, name), path in flow.executions().items():
        made = {"spec_sha256": digest(section(flow.study, stage, name)), "code": code_key(stage)}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(made))
    return flow


def change(flow: Workflow, stage: str, name: str, **changes: str) -> str:
    path = Path(flow.executions()[stage, name])
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return str(path)


def test_results_that_fit_the_study_need_no_word(flow, capsys):
    """Also where some are not there, or unreadable."""
    Path(flow.executions()["train", "base"]).unlink()
    Path(flow.executions()["train", "yarn-s16"]).write_text("{")
    stale.warn(flow)
    assert capsys.readouterr().err == ""


def test_one_message_names_stages_reason_and_command(flow, capsys):
    """Files where others of the rule are sound, so that these are not trained again; the rule where none is."""
    trained = change(flow, "train", "yarn-s16", spec_sha256="0" * 64)
    for stage, name in flow.executions():
        if stage == "passkey":
            change(flow, stage, name, code="0" * 12)
    change(flow, "passkey", "base", spec_sha256="0" * 64)
    stale.warn(flow)
    said = capsys.readouterr().err
    assert "train yarn-s16: made with other settings\n" in said
    assert "passkey yarn-s16: made with other code\n" in said
    assert "passkey base: made with other settings and code\n" in said
    assert said.endswith(f"envs/run snakemake --cores all --config study=smoke -R {trained} passkey\n")
    assert "perplexity" not in said


def test_what_snakemake_has_a_record_of_is_left_to_it(flow, capsys):
    path = change(flow, "train", "yarn-s16", code="v0")
    record = stale.record_of(path)
    record.parent.mkdir(parents=True)
    record.touch()
    stale.warn(flow)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", ["results/micro/models/base/manifest.json", "results/" + "x/" * 300 + "manifest.json"])
def test_records_lie_where_snakemake_puts_them(path):
    own = FilePersistence._record_path(SimpleNamespace(_fetch_max_len=lambda _: 255), str(stale.RECORDS), path)
    assert stale.record_of(path) == Path(own)


def test_a_start_is_not_slowed(flow):
    """Every start of Snakemake does this: with records (the ordinary case) in milliseconds, without in a few more."""
    code_key("train")  # Snakemake's start has asked for all keys by then
    begin = time.process_time()
    stale.stale(flow)
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
