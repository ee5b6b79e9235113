"""MLflow after something happened to it or to the study: a lost store, stages made again or dropped, a moved folder."""

import shutil

import pytest
from tracking.conftest import done

from yarnlab.tracking import publication, records
from yarnlab.tracking.store import initialise, tracking_uri


def finish(study, name="base", **changes):
    run = study.start(name, **changes)
    study.end(name)
    return run


def record_file(study, name="base"):
    return study.directory / "tracking" / "records" / f"train.{name}.json"


def test_only_a_loss_or_a_failure_changes_what_is_published_for(study, store, use_uri, closed_port):
    """The rule's parameter before a job is the one after it, unless the job failed: a finished study reruns nothing."""
    states = [publication.publication_state(study.directory)]
    finish(study)
    states.append(publication.publication_state(study.directory))
    publication.publish(study.directory)
    states.append(publication.publication_state(study.directory))
    assert states == ["mlflow.db 0"] * 3
    use_uri(f"http://me:secret@127.0.0.1:{closed_port}")
    named = publication.publication_state(study.directory)
    assert named == f"http://***@127.0.0.1:{closed_port} 0"
    publication.write_runs(study.directory, publication.publish(study.directory))
    assert publication.publication_state(study.directory) == named.replace(" 0", " 1")


@pytest.mark.parametrize("loss", ["deleted", "replaced", "experiment"])
def test_a_lost_store_is_noticed_and_filled_again(study, store, migrated, loss):
    """By whoever publishes first (mirror or rule); a database that is gone also has the rule run, once."""
    finish(study)
    publication.write_runs(study.directory, publication.publish(study.directory))
    database = study.directory.parent / "mlflow.db"
    if loss == "deleted":
        database.unlink()
    elif loss == "replaced":
        shutil.copy(migrated, database)
    else:
        store.client.delete_experiment(store.experiment.experiment_id)
    state = "mlflow.db 1" if loss == "deleted" else "mlflow.db 0"
    assert publication.publication_state(study.directory) == state
    assert publication.publish(study.directory, patience_s=15).published == (
        loss != "experiment"
    )  # runs come back with it
    assert store.run().info.status == "FINISHED"
    assert done(publication.publish(study.directory)) == (0, 0, None)
    assert publication.publication_state(study.directory) == state


@pytest.mark.slow
def test_publishing_upgrades_an_old_database(study, migrated):
    """Where its upgrade at the start of the study failed, the next publication makes good for it."""
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    engine = create_engine(tracking_uri(study.directory.parent))
    Base.metadata.create_all(engine)
    engine.dispose()
    finish(study)
    assert done(publication.publish(study.directory)) == (1, 0, None)


def test_a_stage_made_again_is_told_from_its_earlier_runs(study, store):
    """`-R` and `--force`: of two finished runs of one name the first is in MLflow's trash, with its model."""
    finish(study)
    publication.publish(study.directory)
    assert store.trash() == []
    first = store.run().info.run_id
    study.start()
    publication.publish(study.directory)
    assert (store.client.get_run(first).info.lifecycle_stage, store.models()) == ("deleted", {})
    study.end()
    publication.publish(study.directory)
    assert (store.trash(), store.run().info.status) == (["base"], "FINISHED")
    assert store.models()["base"].source_run_id == store.run().info.run_id != first


def test_evaluations_follow_the_weights_that_they_are_about(study, store):
    """Those of earlier weights go with these, unless they are put back; one made again takes the place of the old."""
    finish(study)
    study.evaluate("perplexity", {"nll/64": 3.0})
    kept = records.read_record(study.directory, "perplexity", "base")
    publication.publish(study.directory)
    study.evaluate("perplexity", {"nll/64": 2.5})
    publication.publish(study.directory)
    assert store.curve("perplexity/nll") == {64: 2.5}
    finish(study)
    publication.publish(study.directory)
    assert "perplexity/nll" not in store.run().data.metrics
    records.restore_record(study.directory, kept)
    publication.publish(study.directory)
    assert store.curve("perplexity/nll") == {64: 2.5}  # the manifest on disk
    assert store.trash() == ["base", "base"]


def test_an_execution_that_is_put_back_holds_again(study, store):
    """The record of an earlier execution stands for its stage again: what it said is shown, and the later one is not."""
    first = finish(study)
    publication.publish(study.directory)
    kept = records.read_record(study.directory, "train", "base")
    study.start(spec={"changed": True})
    publication.publish(study.directory)
    records.restore_record(study.directory, kept)
    publication.publish(study.directory)
    assert (store.run().data.tags["execution.train"], store.run().info.status) == (first, "FINISHED")
    assert store.trash() == ["base", "base"]


def test_two_folders_share_a_server_and_leave_each_other_alone(study, store, use_uri):
    """Two checkouts' studies of one name: an experiment, and runs of each."""
    finish(study)
    publication.publish(study.directory)
    use_uri(store.uri)
    study.directory = study.directory.parent.with_name("other results") / "micro"
    finish(study)
    publication.publish(study.directory)
    assert (len(store.runs()), store.trash()) == (2, [])


def test_an_arm_that_was_killed_and_renamed_is_out_of_sight(study, store):
    """It comes back with what it has on disk once the study names it again."""
    study.start("old")
    study.step(1, "old")
    records.write_plan(study.directory, [("train", "old")])
    publication.publish(study.directory)
    assert store.run("old").info.status == "RUNNING"
    records.write_plan(study.directory, [("train", "new")])
    study.start("new")
    assert publication.publish(study.directory).published == 1
    assert (store.trash(), [run.info.run_name for run in store.runs()]) == (["old"], ["new"])
    assert done(publication.publish(study.directory)) == (0, 0, None)
    records.write_plan(study.directory, [("train", "old")])
    study.start("old")
    publication.publish(study.directory)
    assert (store.run("old").info.status, store.curve("loss", "old")) == ("RUNNING", {1: 1.0})


def test_a_finished_arm_that_was_dropped_is_out_of_sight_with_its_model(study, store):
    for name in ("old", "new"):
        finish(study, name)
    publication.publish(study.directory)
    records.write_plan(study.directory, [("train", "new")])
    publication.publish(study.directory)
    assert (store.trash(), [*store.models()]) == (["old"], ["new"])
    records.write_plan(study.directory, [("train", name) for name in ("old", "new")])
    publication.publish(study.directory)
    assert (store.run("old").info.status, {*store.models()}) == ("FINISHED", {"old", "new"})


def move(study, store, name="moved"):
    new = study.directory.parent.with_name(name)
    study.directory.parent.rename(new)
    study.directory = new / "micro"
    store.uri = tracking_uri(new)


def test_a_moved_folder_keeps_its_runs_and_artifacts(study, store):
    """Nothing is sent again, artifacts are found at their new place, and nothing is written to the old one."""
    finish(study)
    study.start("running")
    publication.publish(study.directory)
    ids = {run.info.run_id for run in store.runs()}
    old = study.directory.parent
    move(study, store)

    assert done(publication.publish(study.directory)) == (0, 0, None)
    assert "c0ffee" in (store.artifacts(store.run()) / "models/base/manifest.json").read_text()
    study.end("running")
    assert publication.publish(study.directory).published == 1
    assert {run.info.run_id for run in store.runs()} == ids
    assert not old.exists()
    assert all((store.artifacts(r) / f"models/{r.info.run_name}/manifest.json").is_file() for r in store.runs())
    assert publication.publication_state(study.directory) == "mlflow.db 0"


@pytest.mark.parametrize("place", ["s3://bucket/mlartifacts/micro", "file:///elsewhere/artifacts/micro"])
def test_an_experiment_that_is_kept_elsewhere_on_purpose_is_left_alone(study, store, place):
    store.client.create_experiment("yarnlab/micro", artifact_location=place)
    study.start()
    publication.publish(study.directory)
    assert store.run().info.artifact_uri.startswith(place)


def test_a_database_that_cannot_be_read_is_no_reason_to_stop(study, capsys):
    """The study goes on, is told what to do, and publishes once the file is out of the way."""
    database = study.directory.parent / "mlflow.db"
    database.write_text("no database, but long enough to be looked at as if it were one")
    finish(study)
    initialise(study.directory.parent)
    assert "not a database" in capsys.readouterr().err
    result = publication.publish(study.directory)
    assert (result.pending, "not a database" in result.warning) == (1, True)
    assert database.read_text().startswith("no database")


def test_a_damaged_record_is_as_good_as_none(study, store):
    """A stage's record, or a call's, with one bit flipped is not published and stops nothing."""
    finish(study)
    finish(study, "other")
    for file in (record_file(study), *(study.directory / "tracking" / "executions").glob("*.json")):
        file.write_text(file.read_text().replace('"started"', '"stbrted"'))
    result = publication.publish(study.directory)
    assert set(result.runs) == {"train.other"} and result.warning is None
    assert study.start() and record_file(study).read_text().count('"started"') == 1
