"""Send MLflow what is on disk and not there yet.

One experiment per study, one run per record, found again by its tag `yarnlab.run`; so publishing twice, or
after losing tracking/published.json, changes nothing. A step metric that is sent again has the same timestamp
and value, and MLflow's store keeps it once. MLflow's asynchronous logging was tried and left: it took 1.2 s for 200
values that one batch sends in 0.2 s, and a batch must have arrived before it is noted as published.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.provenance import now
from yarnlab.tracking.artifacts import keep_file, new_location, were_left_behind
from yarnlab.tracking.database import connect, database_lock
from yarnlab.tracking.entities import PASSING_TAGS, SUPERSEDED, new_run, run_entities
from yarnlab.tracking.published import count_failed_publication, is_lost, load_published, save_published
from yarnlab.tracking.records import Record, load_records, metric_lines
from yarnlab.tracking.store import experiment_name, is_server, mlflow_settings, redacted, tracking_uri, unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

_MAX_METRICS, _MAX_PARAMS = 1000, 100  # what MLflow takes in one batch
_LOCK_WAIT_S = 60.0


@dataclass(frozen=True)
class PublishResult:
    """What one publication did.

    published: records brought up to date by this call; pending: records with something that MLflow lacks;
    runs: records that have a run in MLflow; warning: why something is pending.
    """

    published: int
    pending: int
    runs: int
    warning: str | None


def publish(study_dir: Path, *, deadline_s: float = 3.5) -> PublishResult:
    """Bring MLflow up to date with the study's records; never raises over a server or a database.

    A server that does not answer costs at most `deadline_s` seconds, and together with `initialise` five.
    When something stays unpublished, `failed_publications` grows by one and `warning` says why; nothing is
    lost, the next call sends it.
    """
    study_dir = Path(study_dir)
    result = mirror(study_dir, deadline_s)
    if result.pending:
        count_failed_publication(study_dir)
    return result


def mirror(study_dir: Path, deadline_s: float) -> PublishResult:
    """One pass of `publish` that counts no failures; imports MLflow only when there is something to send."""
    uri = tracking_uri(study_dir.parent)
    records = load_records(study_dir)
    entries = {} if is_lost(study_dir, uri) else load_published(study_dir, uri)
    behind, runs = _behind(study_dir, records, entries), _runs(records, entries)
    if not behind:
        return PublishResult(0, 0, runs, None)
    problem = unreachable(uri, deadline_s)
    try:
        if not problem:
            with database_lock(study_dir.parent, _LOCK_WAIT_S) as held, mlflow_settings():
                if held:
                    return _publish_all(study_dir, uri)
                problem = "Another process is still publishing to MLflow."
    except Exception as error:
        problem = _sentence(uri, error)
    return PublishResult(0, len(behind), runs, problem)


def _behind(study_dir: Path, records: list[Record], entries: Mapping[str, Mapping[str, Any]]) -> list[Record]:
    """The records MLflow is behind on, if it has what `entries` say."""

    def is_up_to_date(record: Record, entry: Mapping[str, Any]) -> bool:
        if record["status"] != "running":
            return bool(entry["finished"]) and entry["ended"] == record["ended"]
        return not entry["finished"] and not metric_lines(study_dir, record, entry["lines"])

    return [r for r in records if r["run"] not in entries or not is_up_to_date(r, entries[r["run"]])]


def _runs(records: list[Record], entries: Mapping[str, object]) -> int:
    return sum(record["run"] in entries for record in records)


def _publish_all(study_dir: Path, uri: str) -> PublishResult:
    """Send everything that is behind; the caller holds the lock."""
    if is_lost(study_dir, uri):
        count_failed_publication(study_dir)  # `publication_state` has counted it; it stays so when it is lost no more
        save_published(study_dir, uri, {})
    client = connect(uri)
    experiment = _experiment(client, study_dir, uri)
    known = {"experiment_id": experiment.experiment_id, "experiment_created": experiment.creation_time}
    # Where another database or server answers at this address now, every run is found or made again.
    entries = {run: entry for run, entry in load_published(study_dir, uri).items() if entry | known == entry}
    records = load_records(study_dir)
    _mark_superseded(client, uri, records, entries)
    behind = _behind(study_dir, records, entries)
    published, warning = 0, None
    for record in behind:
        unpublished = {**known, "run_id": "", "lines": 0, "finished": False, "ended": None}
        entry = entries.get(record["run"], unpublished)
        try:
            _publish_record(client, study_dir, uri, record, entry)
            published += 1
        except Exception as error:
            warning = warning or f"{record['stage']}.{record['name']}: {_sentence(uri, error)}"
            if _is_unanswered(uri, error):
                break  # the other records would each wait for it in vain
        finally:
            if entry["run_id"]:
                entries[record["run"]] = entry
                save_published(study_dir, uri, entries)
    is_lost(study_dir, uri)  # asked while MLflow is imported, so that the next process need not
    return PublishResult(published, len(behind) - published, _runs(records, entries), warning)


def _publish_record(client: "MlflowClient", study_dir: Path, uri: str, record: Record, entry: dict[str, Any]) -> None:
    """Send what `entry` says is missing of this record, and note in it what has been sent."""
    from mlflow.entities import Param, RunTag

    run = _run(client, record, entry)
    run_id, there = run.info.run_id, run.data
    if entry["run_id"] != run_id:
        entry.update(run_id=run_id, lines=0, finished=False, ended=None)
    new = run_entities(study_dir, record, entry["lines"])
    if new.status is None and run.info.status != "RUNNING":
        client.update_run(run_id, status="RUNNING")  # a failed stage that was started again
    for key in PASSING_TAGS:
        if key in there.tags and key not in new.tags:
            client.delete_tag(run_id, key)

    tags = [RunTag(key, value) for key, value in new.tags.items() if there.tags.get(key) != value]
    params = [Param(key, value) for key, value in new.params.items() if key not in there.params]
    for at in range(0, max(len(tags), len(params)), _MAX_PARAMS):
        client.log_batch(run_id, tags=tags[at : at + _MAX_PARAMS], params=params[at : at + _MAX_PARAMS])
    for at in range(0, len(new.metrics), _MAX_METRICS):
        client.log_batch(run_id, metrics=new.metrics[at : at + _MAX_METRICS])
    entry["lines"] += new.lines
    if new.datasets and not (run.inputs and run.inputs.dataset_inputs):
        client.log_inputs(run_id, datasets=new.datasets)
    for file, folder in new.files:
        keep_file(client, study_dir.parent, uri, run, file, folder)
    if new.status:
        client.set_terminated(run_id, new.status, end_time=new.ended_ms)
        entry.update(finished=True, ended=record["ended"])


def _run(client: "MlflowClient", record: Record, entry: Mapping[str, Any]) -> "Run":
    """The record's run in MLflow; a new one when there is none, or when somebody deleted it."""
    tag = f"tags.`yarnlab.run` = '{record['run']}'"
    if found := client.search_runs([entry["experiment_id"]], filter_string=tag, max_results=1):
        return found[0]
    return client.create_run(entry["experiment_id"], **new_run(record))


def _experiment(client: "MlflowClient", study_dir: Path, uri: str) -> "Experiment":
    """The study's experiment, made or brought back from MLflow's trash when needed.

    One whose artifacts were left behind keeps all it has under another name: MLflow changes no address that it noted.
    """
    name = experiment_name(study_dir)
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    if experiment is not None and were_left_behind(study_dir, uri, experiment):
        aside = f"{name} before {now()}"
        client.rename_experiment(experiment.experiment_id, aside)
        old = f"MLflow's {name} has its files at {experiment.artifact_location}, where this folder was before."
        print(f"{old} It is called {aside!r} now, and a new one is made from the records on disk.", file=sys.stderr)
        experiment = None
    if experiment is None:
        made = client.create_experiment(name, artifact_location=new_location(study_dir, uri))
        experiment = client.get_experiment(made)
    return experiment


def _mark_superseded(client: "MlflowClient", uri: str, records: list[Record], entries: dict[str, Any]) -> None:
    """Tag the runs whose stage was started anew under another id, and end those that died; `entries` lose them."""
    for run in entries.keys() - {record["run"] for record in records}:
        try:
            if not entries[run]["finished"]:
                client.set_terminated(entries[run]["run_id"], "KILLED")
            client.set_tag(entries[run]["run_id"], SUPERSEDED, "true")
        except Exception as error:
            if _is_unanswered(uri, error):
                break
        del entries[run]  # also one that was deleted there: it is history, and nothing is lost


def _is_unanswered(uri: str, error: Exception) -> bool:
    """Whether the server did not answer at all."""
    from mlflow.exceptions import MlflowException, RestException

    return is_server(uri) and isinstance(error, MlflowException) and not isinstance(error, RestException)


def _sentence(uri: str, error: Exception) -> str:
    """One line about the error, with no password in it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{redacted(uri)}: {redacted(lines[0])}"
