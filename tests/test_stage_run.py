"""What every stage promises: a manifest means finished, and a failure takes nothing good with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from yarnlab import cli
from yarnlab.errors import EXIT_INTERRUPTED
from yarnlab.evaluation.documents import EvaluationError
from yarnlab.provenance import replacing, sha256_of
from yarnlab.stages.finished import kept_run, restore
from yarnlab.stages.run import StageRun, stage_run
from yarnlab.tracking import records
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


def test_a_kill_right_after_the_manifest_costs_nothing(tmp_path, monkeypatch):
    """Snakemake has no note of the job's end then: it deletes the manifest and starts the job again."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    table = tmp_path / "evaluations/passkey/base.parquet"
    run = StageRun(tmp_path, "passkey", "base", {}, "code", table.with_suffix(".manifest.json"), state="key")
    monkeypatch.setattr(records, "record_end", killed)
    with pytest.raises(KeyboardInterrupt), kept_run(run):
        with replacing(table) as temporary:
            temporary.write_text("good")
        run.outputs.append(table)
    written = run.manifest.read_bytes()
    run.manifest.unlink()
    monkeypatch.setenv("YARNLAB_FORCED", "")
    assert restore(run) and run.manifest.read_bytes() == written
    assert load_records(tmp_path)[0]["status"] == "finished"


def test_a_folder_of_the_results_may_be_a_link_to_another_disk(tmp_path):
    """What a full disk asks for: models/ or evaluations/ moved, and a link in their place."""
    study, other = tmp_path / "results" / "study", tmp_path / "scratch"
    study.mkdir(parents=True)
    other.mkdir()
    (study / "evaluations").symlink_to(other)
    test_a_finished_stage_left_what_its_manifest_says(study)
    assert (other / "passkey" / "base.parquet").is_file()


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


def test_the_manifest_names_the_inputs_as_they_were_at_the_start(tmp_path):
    """An input that is written anew while the stage works is not what the stage read."""
    source, table = tmp_path / "models/base/manifest.json", tmp_path / "evaluations/passkey/base.parquet"
    source.parent.mkdir(parents=True)
    source.write_text("before")
    read = sha256_of(source)
    run = StageRun(tmp_path, "passkey", "base", {}, "code", table.with_suffix(".manifest.json"), inputs=[source])
    with stage_run(run):
        source.write_text("after")
    (found,) = json.loads(run.manifest.read_text())["inputs"].values()
    assert found == read != sha256_of(source)


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("error", [EvaluationError("not finite"), KeyboardInterrupt()])
def test_a_failure_that_can_not_be_recorded_is_still_that_failure(tmp_path, monkeypatch, error):
    monkeypatch.setattr(records, "record_end", full)
    with pytest.raises(type(error)) as raised:
        run_stage(tmp_path, "half", error)
    assert raised.value is error


def test_a_finished_stage_whose_end_can_not_be_recorded_has_finished(tmp_path, monkeypatch, capsys):
    """Its manifest is there, and one line says what MLflow will lack."""
    monkeypatch.setattr(records, "record_end", full)
    run_stage(tmp_path, "good")
    assert (tmp_path / "evaluations/passkey/base.manifest.json").exists()
    assert "warning: passkey base is made; MLflow won't see its end: [Errno 28]" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["a full disk", "no folder"])
def test_an_error_that_can_not_be_logged_is_still_shown(tmp_path, monkeypatch, capsys, where):
    """One message on stderr and the code of the error itself: an interruption stays one. A bug stays a traceback."""
    from yarnlab.training.loop import Interrupted

    (tmp_path / "file").write_text("")
    log = tmp_path / "file" / "train.log" if where == "no folder" else Path("/dev/full")
    monkeypatch.setattr(sys, "argv", ["yarnlab", "train", "base", "--log", str(log)])

    def fail_with(error: Exception) -> str:
        def app() -> None:
            raise error

        monkeypatch.setattr(cli, "app", app)
        with pytest.raises(SystemExit) as end:
            cli.main()
        return f"{end.value.code}: {capsys.readouterr().err}"

    assert fail_with(EvaluationError("not finite")) == "1: error: not finite\n"
    assert fail_with(Interrupted("stopped after step 3")) == f"{EXIT_INTERRUPTED}: stopped after step 3\n"
    with pytest.raises(ZeroDivisionError):
        fail_with(ZeroDivisionError())
