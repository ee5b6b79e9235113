"""What is on disk ends up in MLflow once, whatever happened in between."""

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from tracking.conftest import done

from yarnlab.provenance import SELF_SHA256, read_record, write_record
from yarnlab.tracking import publication, records
from yarnlab.tracking.system import sampled


def test_recording_a_stage_imports_no_mlflow(tmp_path):
    """A stage's records cost a JSON file, not the seconds that importing MLflow takes."""
    code = f"""if True:
        import sys; from pathlib import Path; from yarnlab.tracking import dashboard, mirror, records, system
        study = Path({str(tmp_path)!r})
        records.record_start(study, stage="train", name="base", study="micro", study_sha256="", spec={{}},
                              tags={{}}, manifest="manifest.json")
        records.record_end(study, "train", "base")
        heavy = {{"mlflow", "torch", "pandas", "pydantic"}}
        print(sorted(heavy & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_is_resumed_until_it_has_finished(study):
    """The same unfinished stage keeps id and start; another spec, or a start after the end, gets a new id."""
    record = study.directory / "tracking" / "records" / "train.base.json"
    first = study.start()
    started = json.loads(record.read_text())["started"]
    assert study.start() == first
    study.end(error="killed")
    assert study.start() == first
    resumed = json.loads(record.read_text())
    assert [resumed[key] for key in ("started", "ended", "status", "error")] == [
        started,
        None,
        "running",
        None,
    ]
    second = study.start(spec={"other": 1})
    study.end()
    third = study.start(spec={"other": 1})
    assert len({first, second, third}) == 3


def test_a_finished_stage_is_in_mlflow_with_everything(study, store):
    """Name, times, tags, parameters, metrics, data sets and files arrive as they are on disk."""
    spec = {"kind": "finetune", "a": {"b": 1.5, "c": None}, "long": "x" * 9000, "list": [1, 2]}
    phases = [{"name": "first", "lr": 0.1}, {"name": "train", "lr": 0.2, "rows": {"retrieval": {"share": 0.5}}}]
    run_id = study.start(spec=spec | {"phases": phases}, artifacts=["tables/t.csv"])
    (study.directory / "tables").mkdir()
    (study.directory / "tables" / "t.csv").write_text("a,b\n")
    study.step(1)
    study.step(2, odd=float("inf"), loss=float("nan"))
    study.end(
        metrics={"final_loss@x": 3.5, "nothing": float("nan")},
        seconds=12.0,
        datasets=[{"name": "math", "digest": "d" * 64, "context": "training", "source": "sympy"}],
    )
    result = publication.publish(study.directory)
    assert done(result) == (1, 0, None)

    run = store.run()
    record = json.loads((study.directory / "tracking" / "records" / "train.base.json").read_text())
    assert run.info.status == "FINISHED"
    assert [run.info.start_time, run.info.end_time] == [
        round(1000 * datetime.fromisoformat(record[key]).timestamp()) for key in ("started", "ended")
    ]
    flat = {"kind": "finetune", "a.b": "1.5", "list": "1, 2", "long": "x" * 6000, "first.name": "first"}
    flat |= {"first.lr": "0.1", "name": "train", "lr": "0.2", "rows.retrieval.share": "0.5"}
    assert run.data.params == flat
    expected_tags = {"execution.train": run_id, "stage": "finetune", "model": "base", "parent_model": "root"}
    expected_tags |= {"method": "yarn", "mlflow.source.git.commit": "c0ffee", "git_dirty": "false", "study": "micro"}
    expected_tags |= {"manifest": record["manifest"], "status.train": "finished"}
    assert expected_tags.items() <= run.data.tags.items()
    assert run.data.metrics == {"loss": 1.0, "seconds": 1.0, "final_loss_x": 3.5, "cost/train/seconds": 12.0}
    assert store.client.get_metric_history(run.info.run_id, "loss")[0].timestamp == run.info.start_time + 500
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest, data.tags[0].value) == ("math", "d" * 36, "training")
    artifacts = store.artifacts(run)
    files = sorted(path.relative_to(artifacts).as_posix() for path in artifacts.rglob("*") if path.is_file())
    assert files == ["models/base/manifest.json", "tables/t.csv"]
    url_path = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    where = {"run_id": run.info.run_id, "url_path": url_path}
    assert result.runs == {"train.base": where}
    publication.write_runs(study.directory, result)
    written = read_record(study.directory / "tracking" / "runs.json")
    assert {**result.runs, SELF_SHA256: written[SELF_SHA256]} == written


def test_evaluations_are_curves_on_their_models_run(study, store):
    """name/N is the point at N, whatever kind measures it; a curve by length has its landmarks as columns."""
    study.start()
    study.end()
    data = [{"name": "math", "digest": "e" * 64, "context": "evaluation", "source": "sympy"}]
    study.evaluate("perplexity", {"nll/64": 3.0, "nll/256": 2.0, "nll/512": 4.0, "perplexity/64": 20.0}, datasets=data)
    study.evaluate("temperature", {"best_factor/2": 1.1, "best_factor/4": 1.2})
    study.evaluate("context", {"gain/far": 0.5, "context/64": 0.1})
    publication.publish(study.directory)
    assert store.curve("perplexity/nll") == {64: 3.0, 256: 2.0, 512: 4.0}
    assert store.curve("perplexity") == {64: 20.0}
    assert store.curve("temperature/best_factor") == {2: 1.1, 4: 1.2}
    assert store.curve("context") == {64: 0.1}
    metrics = store.run().data.metrics
    places = {place: metrics[f"perplexity/nll at {place}"] for place in ("L", "sL", "longest")}
    assert places == {"L": 3.0, "sL": 2.0, "longest": 4.0}
    assert metrics["context/gain/far"] == 0.5
    assert not [name for name in metrics if name.startswith("temperature") and " at " in name]
    assert store.run().data.params["perplexity.lengths"] == "64, 256"
    assert len(store.runs()) == 1
    measured = [(m.key, m.value, m.dataset_name) for m in store.models()["base"].metrics if m.key == "perplexity/nll"]
    assert sorted(measured) == [("perplexity/nll", value, "math") for value in (2.0, 3.0, 4.0)]


def test_executions_are_the_parents_of_what_started_in_them(study, store, monkeypatch):
    """Who, when, with what; the newest one that has ended has the report, its figures and the counts of verdicts."""
    from yarnlab.tracking import executions

    def at(moment: str) -> None:
        monkeypatch.setattr(executions, "now", lambda: moment)

    study.execute("2020-01-01T00:00:00.000Z")  # killed: nobody notes its end
    study.execute("2020-01-02T00:00:00.000Z")
    study.start()
    study.end()
    (study.directory / "analysis.json").write_text(json.dumps({"ended": "2090-01-01T00:00:00.000Z"}))
    (study.directory / "claims.json").write_text(json.dumps({"counts": {"paper": {"holds": 3, "holds in part": 1}}}))
    (study.directory / "report.html").write_text("<p>held</p>")
    assert done(publication.publish(study.directory)) == (3, 0, None)
    killed, running = (store.run(f"micro 2020-01-0{day} 00:00:00") for day in (1, 2))
    assert (killed.info.status, running.info.status, running.data.metrics) == ("KILLED", "RUNNING", {})
    assert store.run().data.tags["mlflow.parentRunId"] == running.info.run_id
    assert {"host", "command", "mlflow.user", "mlflow.source.git.commit"} <= running.data.tags.keys()
    at("2090-01-02T00:00:00.000Z")
    executions.end_execution(study.directory)
    assert done(publication.publish(study.directory)) == (1, 0, None)
    ended = store.run("micro 2020-01-02 00:00:00")
    counts = {"verdicts/paper/holds": 3, "verdicts/paper/holds in part": 1}
    assert (ended.info.status, ended.data.metrics) == ("FINISHED", counts)
    assert (store.artifacts(ended) / "report.html").read_text() == "<p>held</p>"
    assert done(publication.publish(study.directory)) == (0, 0, None)


def test_the_stages_of_no_model_are_one_run(study, store):
    for name in ("math", "train"):
        study.start(
            name, stage="corpus", tags={}, spec={"documents": 3}, metrics_file=None, manifest=f"data/{name}.json"
        )
        study.write_manifest(f"data/{name}.json", metrics={"tokens": 7})
        records.record_end(study.directory, "corpus", name)
    publication.publish(study.directory)
    run = store.run("data")
    assert run.data.params == {"corpus.math.documents": "3", "corpus.train.documents": "3"}
    assert run.data.metrics == {"corpus.math/tokens": 7, "corpus.train/tokens": 7}


def test_samples_of_the_machine_are_system_metrics(study, store):
    """Taken while the stage runs, on disk first; MLflow shows what begins with system/ on a page of its own."""
    study.start()
    with sampled(study.directory, "train.base"):
        time.sleep(0.1)
    study.end()
    publication.publish(study.directory)
    points = store.client.get_metric_history(store.run().info.run_id, "system/cpu_utilization_percentage")
    assert [point.step for point in points] == [0]
    assert 0 < store.run().data.metrics["system/system_memory_usage_percentage"] <= 100


def test_publishing_again_changes_nothing(study, store):
    """Neither a second call nor one that cannot see what is there makes another run or another metric row."""
    study.start(spec={f"key{number}": number for number in range(230)})
    for step in range(1, 800):
        study.step(step)
    study.end(metrics={"perplexity": 2.0})
    publication.publish(study.directory)
    before = store.run().info.run_id, store.steps(), store.steps("perplexity"), store.run().data.params
    assert (len(before[1]), len(before[3])) == (799, 230)
    assert done(publication.publish(study.directory)) == (0, 0, None)
    store.client.delete_tag(store.run().info.run_id, "yarnlab.published")
    assert publication.publish(study.directory).published == 1
    assert (
        store.run().info.run_id,
        store.steps(),
        store.steps("perplexity"),
        store.run().data.params,
    ) == before


def test_a_running_stage_is_followed_line_by_line(study, store):
    """Each complete line is sent once; a half-written one waits, and an unreadable one is passed over."""
    study.start()
    assert publication.publish(study.directory).published == 1
    study.step(1)
    study.write_metrics('{"step": 2, "lo')
    assert publication.publish(study.directory).published == 1
    assert store.steps() == [1]
    assert publication.publish(study.directory).published == 0
    study.write_metrics('ss": 0.5}\nnot json\n[3]\n')
    study.step(4)
    publication.publish(study.directory)
    assert (store.steps(), store.run().info.status) == ([1, 2, 4], "RUNNING")


def test_a_failed_run_goes_on_where_it_stopped(study, store):
    """A failure is shown with its error; the resumed stage goes on in the same run, which then ends well."""
    study.start()
    study.step(1)
    study.end(error="RuntimeError: loss is nan")
    publication.publish(study.directory)
    failed = store.run()
    assert (failed.info.status, failed.data.tags["error"]) == ("FAILED", "train: RuntimeError: loss is nan")
    study.start()
    study.step(2)
    publication.publish(study.directory)
    assert (store.run().info.status, "error" in store.run().data.tags) == ("RUNNING", False)
    study.end()
    publication.publish(study.directory)
    assert (store.run().info.run_id, store.run().info.status) == (failed.info.run_id, "FINISHED")
    assert store.steps() == [1, 2]


def test_a_failure_between_two_publications_is_not_overlooked(study, store):
    """Failing twice with different errors shows the second one, though the status is the same."""
    for error in ("first", "second"):
        study.start()
        study.end(error=error)
        publication.publish(study.directory)
        assert (store.run().info.status, store.run().data.tags["error"]) == ("FAILED", f"train: {error}")


def test_a_rerun_is_another_run(study, store):
    """Running a stage anew adds a run; that of an execution that died, or was made again, is out of sight."""
    study.start()
    publication.publish(study.directory)
    study.start(spec={"changed": True})
    study.end()
    publication.publish(study.directory)
    assert (store.run().info.status, store.trash()) == ("FINISHED", ["base"])
    study.start(spec={"changed": True})
    study.end()
    publication.publish(study.directory)
    assert (store.run().info.status, store.trash()) == ("FINISHED", ["base", "base"])


@pytest.mark.slow
def test_what_mlflow_lost_is_published_again(study, store, migrated):
    """A replaced or deleted database is filled again from disk; an experiment that was deleted is back with its runs."""
    study.start()
    study.end()
    publication.publish(study.directory)
    database = study.directory.parent / "mlflow.db"
    database.write_bytes(migrated.read_bytes())
    assert store.experiment is None
    assert publication.publish(study.directory).published == 1
    published = store.run().info
    store.client.delete_experiment(published.experiment_id)
    assert publication.publish(study.directory).pending == 0  # it is restored, and its runs with it
    assert store.run().info.run_id == published.run_id and store.run().info.status == "FINISHED"
    database.unlink()
    assert publication.publish(study.directory).published == 1
    assert store.run().info.status == "FINISHED"


def test_a_run_that_was_deleted_while_it_ran_is_made_again(study, store):
    """The stage goes on in a new run with the whole curve; the old one is left alone."""
    study.start()
    study.step(1)
    publication.publish(study.directory)
    deleted = store.run().info.run_id
    store.client.delete_run(deleted)
    study.step(2)
    assert done(publication.publish(study.directory)) == (1, 0, None)
    assert (store.run().info.run_id != deleted, store.steps()) == (True, [1, 2])


def test_one_bad_record_does_not_hold_up_the_others(study, store):
    """A record MLflow refuses is pending with a reason; files that are no records are passed over."""
    study.start("bad", spec={"model": 1, "model ": 2})
    (record,) = (study.directory / "tracking" / "records").glob("*.json")
    write_record(record, read_record(record) | {"ended": "tomorrow", "status": "finished"})
    study.start("good")
    study.end("good")
    (record.parent / "empty.json").write_text("")
    (record.parent / "old.json").write_text("{}")
    result = publication.publish(study.directory)
    assert (result.published, result.pending) == (1, 1)
    assert "bad: " in result.warning


def test_a_study_without_records_needs_no_mlflow(study):
    """Nothing to publish: no database is made, no file is written."""
    assert done(publication.publish(study.directory)) == (0, 0, None)
    assert list(Path(study.directory.parent).rglob("*")) == [study.directory]
