"""What every stage promises: a manifest means finished, and a failure takes nothing good with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from yarnlab.contract import StageRun, stage_run
from yarnlab.evaluation.documents import EvaluationError
from yarnlab.provenance import replacing, sha256_of
from yarnlab.tracking.records import load_records


def run_stage(study: Path, text: str, error: Exception | None = None) -> None:
    """One execution of a stage that writes a table; it fails, if at all, with the new table half written."""
    table = study / "evaluations/passkey/base.parquet"
    run = StageRun(study, "passkey", "base", {"trials": len(text)}, "code", table.with_suffix(".manifest.json"))
    with stage_run(run):
        with replacing(table) as temporary:
            temporary.write_text(text)
            if error is not None:
                raise error
        run.outputs.append(table)


def test_a_finished_stage_left_what_its_manifest_says(tmp_path):
    run_stage(tmp_path, "good")
    manifest = json.loads((tmp_path / "evaluations/passkey/base.manifest.json").read_text())
    (name, made), *rest = manifest["outputs"].items()
    assert not rest and made == {"sha256": sha256_of(tmp_path / name), "bytes": 4}
    assert load_records(tmp_path)[0]["status"] == "finished"


@pytest.mark.parametrize(
    "error", [EvaluationError("not finite"), OSError(28, "No space left on device"), SystemExit(1)]
)
def test_a_failure_leaves_no_manifest_and_no_half_of_a_table(tmp_path, error):
    with pytest.raises(type(error)):
        run_stage(tmp_path, "half", error)
    assert [path.name for path in (tmp_path / "evaluations").rglob("*") if path.is_file()] == []
    record = load_records(tmp_path)[0]
    assert record["status"] == "failed" and type(error).__name__ in record["error"]


def test_a_failed_repetition_keeps_the_earlier_table(tmp_path):
    """Bytes and names are as the last success left them."""
    run_stage(tmp_path, "good")
    before = {path: path.read_bytes() for path in (tmp_path / "evaluations").rglob("*") if path.is_file()}
    assert len(before) == 2
    with pytest.raises(EvaluationError):
        run_stage(tmp_path, "changed", EvaluationError("not finite"))
    assert {path: path.read_bytes() for path in (tmp_path / "evaluations").rglob("*") if path.is_file()} == before
