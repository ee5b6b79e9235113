"""MLflow after something happened to it or to the study: a lost store, stages made again or dropped, a moved folder."""

import shutil
import subprocess
import sys

import pytest

from yarnlab import tracking
from yarnlab.tracking.database import experiment_created


def hidden_by_the_filter(store):
    """Status of the runs that the dashboard's filter of the README leaves out."""
    (experiment,) = {run.info.experiment_id for run in store.runs()}
    shown = store.client.search_runs([experiment], filter_string="tags.`yarnlab.superseded` IS NULL")
    return sorted(run.info.status for run in store.runs() if run.info.run_id not in {r.info.run_id for r in shown})


def finish(study, name="base", **changes):
    run = study.start(name, **changes)
    study.end(name)
    return run


def record_file(study, name="base"):
    return study.directory / "tracking" / "records" / f"train.{name}.json"


def test_only_a_loss_or_a_failure_changes_what_is_published_for(study, store, use_uri, closed_port):
    """The rule's parameter before a job is the one after it, unless the job failed: a finished study reruns nothing."""
    states = [tracking.publication_state(study.directory)]
    finish(study)
    states.append(tracking.publication_state(study.directory))
    tracking.publish(study.directory)
    states.append(tracking.publication_state(study.directory))
    assert states == ["mlflow.db 0"] * 3
    use_uri(f"http://me:secret@127.0.0.1:{closed_port}")
    named = tracking.publication_state(study.directory)
    assert named == f"http://***@127.0.0.1:{closed_port} 0"
    tracking.publish(study.directory)
    assert tracking.publication_state(study.directory) == named.replace(" 0", " 1")


@pytest.mark.parametrize("loss", ["deleted", "replaced", "experiment"])
def test_a_lost_store_is_noticed_and_filled_again(study, store, migrated, loss):
    """Noticed at the next start, published by whoever is first (mirror or rule), and then nothing is left to do."""
    finish(study)
    tracking.publish(study.directory)
    database = study.directory.parent / "mlflow.db"
    if loss == "deleted":
        database.unlink()
    elif loss == "replaced":
        shutil.copy(migrated, database)
    else:
        store.client.delete_experiment(store.run().info.experiment_id)
    assert tracking.publication_state(study.directory) == "mlflow.db 1"
    assert tracking.mirror._attempt(study.directory).published == 1
    assert store.run().info.status == "FINISHED"
    assert tracking.publish(study.directory) == tracking.PublishResult(0, 0, 1, None)
    assert tracking.publication_state(study.directory) == "mlflow.db 1"


@pytest.mark.slow
def test_publishing_upgrades_an_old_database(study, migrated):
    """Where its upgrade at the start of the study failed, the next publication makes good for it."""
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    engine = create_engine(tracking.tracking_uri(study.directory.parent))
    Base.metadata.create_all(engine)
    engine.dispose()
    finish(study)
    assert tracking.publish(study.directory) == tracking.PublishResult(1, 0, 1, None)


def test_the_dashboard_names_what_makes_its_database_again(study, store):
    finish(study)
    (study.directory.parent / "mlflow.db").unlink()
    with pytest.raises(SystemExit) as end:
        tracking.serve(study.directory.parent)
    assert f"yarnlab publish --study-dir '{study.directory}'" in str(end.value)


def test_a_stage_made_again_is_told_from_its_earlier_runs(study, store):
    """`-R` and `--force`: two finished runs of one name, of which the filter shows the one that holds."""
    first = finish(study)
    tracking.publish(study.directory)
    assert hidden_by_the_filter(store) == []
    second = finish(study)
    tracking.publish(study.directory)
    superseded = {run.data.tags["yarnlab.run"]: run.data.tags.get("yarnlab.superseded") for run in store.runs()}
    assert superseded == {first: "true", second: None}
    (study.directory / "tracking" / "published.json").unlink()
    tracking.publish(study.directory)
    assert hidden_by_the_filter(store) == ["FINISHED"]


def test_an_execution_that_is_put_back_holds_again(study, store):
    """The record of an earlier execution stands for its stage again: its run is shown, and the later one is not."""
    first = finish(study)
    tracking.publish(study.directory)
    kept = record_file(study).read_text()
    second = study.start(spec={"changed": True})
    tracking.publish(study.directory)
    record_file(study).write_text(kept)
    tracking.publish(study.directory)
    found = {
        run.data.tags["yarnlab.run"]: (run.info.status, run.data.tags.get("yarnlab.superseded")) for run in store.runs()
    }
    assert found == {first: ("FINISHED", None), second: ("KILLED", "true")}


def test_what_a_dead_server_was_not_told_is_told_later(study, store, monkeypatch):
    """A superseded run is not forgotten while the server does not answer."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    finish(study)
    tracking.publish(study.directory)
    finish(study)
    with monkeypatch.context() as patch:
        patch.setattr("yarnlab.tracking.publication.is_server", lambda uri: True)
        patch.setattr(MlflowClient, "set_tag", lambda *_: (_ for _ in ()).throw(MlflowException("no answer")))
        tracking.publish(study.directory)
    assert hidden_by_the_filter(store) == []
    finish(study)
    tracking.publish(study.directory)
    assert hidden_by_the_filter(store) == ["FINISHED", "FINISHED"]


def test_an_arm_that_was_killed_and_renamed_runs_no_more(study, store):
    """Its run ends as killed, and goes on where it stopped once the study names it again."""
    study.start("old")
    study.step(1, "old")
    tracking.write_plan(study.directory, [("train", "old")])
    tracking.publish(study.directory)
    assert store.run().info.status == "RUNNING"
    tracking.write_plan(study.directory, [("train", "new")])
    assert tracking.publish(study.directory).published == 1
    assert store.run().info.status == "KILLED"
    assert tracking.publish(study.directory) == tracking.PublishResult(0, 0, 1, None)
    tracking.write_plan(study.directory, [("train", "old")])
    study.start("old")
    tracking.publish(study.directory)
    assert (store.run().info.status, store.steps()) == ("RUNNING", [1])


def test_a_finished_arm_that_was_dropped_stays_as_it_is(study, store):
    finish(study, "old")
    tracking.write_plan(study.directory, [])
    tracking.publish(study.directory)
    assert (store.run().info.status, hidden_by_the_filter(store)) == ("FINISHED", [])


def move(study, store, name="moved"):
    new = study.directory.parent.with_name(name)
    study.directory.parent.rename(new)
    study.directory = new / "micro"
    store.uri = tracking.tracking_uri(new)


def test_a_moved_folder_keeps_its_runs_and_artifacts(study, store):
    """Nothing is sent again, artifacts are found at their new place, and nothing is written to the old one."""
    finish(study)
    study.start("running")
    tracking.publish(study.directory)
    ids = {run.info.run_id for run in store.runs()}
    old = study.directory.parent
    move(study, store)

    assert tracking.publish(study.directory) == tracking.PublishResult(0, 0, 2, None)
    (base,) = (run for run in store.runs() if run.info.status == "FINISHED")
    assert "c0ffee" in (store.artifacts(base) / "manifest.json").read_text()
    study.end("running")
    assert tracking.publish(study.directory).published == 1
    assert {run.info.run_id for run in store.runs()} == ids
    assert not old.exists()
    assert all((store.artifacts(run) / "manifest.json").is_file() for run in store.runs())
    assert tracking.publication_state(study.directory) == "mlflow.db 0"


def test_a_folder_with_absolute_addresses_is_published_anew_when_it_moves(study, store, capsys, monkeypatch):
    """An earlier yarnlab's experiment is used where it lies; after a move it keeps all it has under another name."""
    address = (study.directory.parent / "mlartifacts" / "micro").as_uri()
    earlier = store.client.create_experiment("yarnlab/micro", artifact_location=address)
    finish(study)
    tracking.publish(study.directory)
    before = store.run()
    assert store.client.download_artifacts(before.info.run_id, "manifest.json")

    move(study, store)
    assert tracking.publication_state(study.directory) == "mlflow.db 1"
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", lambda *_, **__: sys.exit())
        with pytest.raises(SystemExit):
            tracking.serve(study.directory.parent)
    assert f"This makes it again: envs/run yarnlab publish --study-dir {study.directory}" in capsys.readouterr().out
    assert tracking.publish(study.directory).published == 1
    assert "made from the records on disk" in capsys.readouterr().err
    assert (store.artifacts(store.run()) / "manifest.json").is_file()
    assert store.client.get_experiment(earlier).name.startswith("yarnlab/micro before ")
    assert store.client.get_run(before.info.run_id).info.experiment_id == earlier
    assert tracking.publish(study.directory) == tracking.PublishResult(0, 0, 1, None)
    assert tracking.publication_state(study.directory) == "mlflow.db 1"


@pytest.mark.parametrize("place", ["s3://bucket/mlartifacts/micro", "file:///elsewhere/artifacts/micro"])
def test_an_experiment_that_is_kept_elsewhere_on_purpose_is_left_alone(study, store, place):
    store.client.create_experiment("yarnlab/micro", artifact_location=place)
    study.start()
    tracking.publish(study.directory)
    assert store.run().info.artifact_uri.startswith(place)


def test_a_database_that_is_named_by_its_address_is_left_alone(study, store, use_uri):
    """It does not belong to this results folder, so nobody knows where its artifacts were."""
    store.client.create_experiment("yarnlab/micro", artifact_location="file:///elsewhere/mlartifacts/micro")
    study.directory = study.directory.parent.with_name("other results") / "micro"
    use_uri(store.uri)
    study.start()
    tracking.publish(study.directory)
    assert store.run().info.artifact_uri.startswith("file:///elsewhere/mlartifacts/micro")


def test_a_database_that_cannot_be_read_is_no_reason_to_stop(study, capsys):
    """The study goes on, is told what to do, and publishes once the file is out of the way."""
    database = study.directory.parent / "mlflow.db"
    database.write_text("no database, but long enough to be looked at as if it were one")
    finish(study)
    assert experiment_created(study.directory, tracking.tracking_uri(study.directory.parent)) == 0
    tracking.initialise(study.directory.parent)
    assert "not a database" in capsys.readouterr().err
    result = tracking.publish(study.directory)
    assert (result.pending, "not a database" in result.warning) == (1, True)
    assert database.read_text().startswith("no database")


def test_a_database_that_did_not_change_is_not_asked_again(study, store):
    """What a study's start wants to know of a mirror that is up to date costs no import of MLflow."""
    finish(study)
    tracking.publish(study.directory)
    code = f"""if True:
        import sys; from pathlib import Path; from yarnlab import tracking
        study = Path({str(study.directory)!r})
        print(tracking.publication_state(study), tracking.publish(study).runs, "mlflow" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "mlflow.db 0 1 False\n"
