"""Copy to MLflow what is on disk and not there yet.

One experiment per study, one run per record, found again by its tag `yarnlab.run`; so publishing twice, or
after losing tracking/published.json, changes nothing. A step metric that is sent again has the same timestamp
and value, and MLflow's store keeps it once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.tracking.entities import (
    MAX_VALUE,
    dataset_inputs,
    milliseconds,
    run_tags,
    spec_params,
    step_metrics,
    summary_metrics,
)
from yarnlab.tracking.records import (
    Record,
    count_failed_publication,
    experiment_name,
    is_lost,
    load_manifest,
    load_published,
    load_records,
    metric_lines,
    save_published,
)
from yarnlab.tracking.relocation import artifact_location, relocate
from yarnlab.tracking.store import (
    database_file,
    database_lock,
    experiment_created,
    is_server,
    migrate,
    mlflow_environment,
    quiet_loggers,
    redacted,
    tracking_uri,
    unreachable,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

_MAX_METRICS, _MAX_PARAMS = 1000, 100  # what MLflow takes in one batch
_LOCK_WAIT_S = 60.0
_ENDS = {"finished": "FINISHED", "failed": "FAILED", "dropped": "KILLED"}
SUPERSEDED = "yarnlab.superseded"
"""The tag of runs whose stage was started anew under another id; no other run has it."""


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
    relocate(study_dir.parent)
    behind, entries = _behind(study_dir, uri)
    if not behind:
        return PublishResult(0, 0, len(entries), None)
    if problem := unreachable(uri, deadline_s):
        return PublishResult(0, len(behind), len(entries), problem)
    try:
        with database_lock(study_dir.resolve().parent, _LOCK_WAIT_S) as held:
            if not held:
                problem = "Another process is still publishing to MLflow."
                return PublishResult(0, len(behind), len(entries), problem)
            with mlflow_environment(uri), quiet_loggers():
                return _publish_all(study_dir, uri)
    except Exception as error:
        return PublishResult(0, len(behind), len(entries), _sentence(uri, error))


def _behind(study_dir: Path, uri: str) -> tuple[list[Record], dict[str, dict[str, Any]]]:
    """The records MLflow is behind on, and what it has of the others."""
    records = load_records(study_dir)
    if not records:
        return [], {}
    created = experiment_created(uri, experiment_name(study_dir))
    published = load_published(study_dir, uri)
    runs = {record["run"] for record in records}
    entries = {
        run: entry
        for run, entry in published.items()
        if run in runs and (created is None or entry["experiment_created"] == created)
    }
    return [r for r in records if not _up_to_date(study_dir, r, entries.get(r["run"]))], entries


def _up_to_date(study_dir: Path, record: Record, entry: Mapping[str, Any] | None) -> bool:
    if entry is None:
        return False
    if record["status"] != "running":
        return bool(entry["finished"]) and entry["ended"] == record["ended"]
    return not entry["finished"] and not metric_lines(study_dir, record, entry["lines"])


def _publish_all(study_dir: Path, uri: str) -> PublishResult:
    """Send everything that is behind; the caller holds the lock."""
    from mlflow import MlflowClient

    behind, entries = _behind(study_dir, uri)
    if not behind:
        return PublishResult(0, 0, len(entries), None)
    lost = is_lost(study_dir, uri)
    if (database := database_file(uri)) is not None:
        migrate(database)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = _experiment(client, study_dir, uri)
    if lost:
        count_failed_publication(study_dir)  # `publication_state` has counted it; it stays so when it is lost no more
        save_published(study_dir, uri, {})
    known = {"experiment_id": experiment.experiment_id, "experiment_created": experiment.creation_time}
    if any(entry | known != entry for entry in entries.values()):
        # Another database or server answers at this address now: find or make every run again.
        entries = {}
        behind = load_records(study_dir)
    unmarked = _mark_superseded(client, study_dir, uri)
    unpublished = {**known, "run_id": "", "lines": 0, "finished": False, "ended": None}
    published, warning = 0, None
    for record in behind:
        entry = entries.get(record["run"]) or dict(unpublished)
        try:
            _publish_record(client, study_dir, record, entry)
            published += 1
        except Exception as error:
            warning = warning or f"{record['stage']}.{record['name']}: {_sentence(uri, error)}"
            if _is_unanswered(uri, error):
                break  # the other records would each wait for it in vain
        finally:
            if entry["run_id"]:
                entries[record["run"]] = entry
                save_published(study_dir, uri, entries | unmarked)
    return PublishResult(published, len(behind) - published, len(entries), warning)


def _publish_record(client: "MlflowClient", study_dir: Path, record: Record, entry: dict[str, Any]) -> None:
    """Send what `entry` says is missing of this record, and note in it what has been sent."""
    from mlflow.entities import Param, RunTag

    run = _run(client, record, entry)
    run_id = run.info.run_id
    if entry["run_id"] != run_id:
        entry.update(run_id=run_id, lines=0, finished=False, ended=None)
    if record["status"] == "running" and run.info.status != "RUNNING":
        client.update_run(run_id, status="RUNNING")  # a failed stage that was started again
    if record["status"] != "failed" and "error" in run.data.tags:
        client.delete_tag(run_id, "error")
    if SUPERSEDED in run.data.tags:
        client.delete_tag(run_id, SUPERSEDED)  # this execution was put back in its place

    manifest = load_manifest(study_dir, record)
    known_tags, known_params = run.data.tags, run.data.params
    tags = [RunTag(key, value) for key, value in run_tags(record, manifest).items() if known_tags.get(key) != value]
    params = [Param(key, value) for key, value in spec_params(record) if key not in known_params]
    if tags or params:
        client.log_batch(run_id, tags=tags, params=params[:_MAX_PARAMS])
    for at in range(_MAX_PARAMS, len(params), _MAX_PARAMS):
        client.log_batch(run_id, params=params[at : at + _MAX_PARAMS])

    lines = metric_lines(study_dir, record, entry["lines"])
    metrics = step_metrics(record, lines)
    if manifest:
        metrics += summary_metrics(record, manifest, step=len(metric_lines(study_dir, record, 0)))
    for at in range(0, len(metrics), _MAX_METRICS):
        client.log_batch(run_id, metrics=metrics[at : at + _MAX_METRICS])
    entry["lines"] += len(lines)

    if record["status"] == "running":
        return
    _attach(client, study_dir, record, manifest, run)
    if record["status"] == "failed":
        client.set_tag(run_id, "error", str(record["error"])[:MAX_VALUE])
    ended = milliseconds(record["ended"]) if record["ended"] else None
    client.set_terminated(run_id, _ENDS[record["status"]], end_time=ended)
    entry.update(finished=True, ended=record["ended"])


def _run(client: "MlflowClient", record: Record, entry: Mapping[str, Any]) -> "Run":
    """The record's run in MLflow; a new one when there is none, or when somebody deleted it."""
    tag = f"tags.`yarnlab.run` = '{record['run']}'"
    if found := client.search_runs([entry["experiment_id"]], filter_string=tag, max_results=1):
        return found[0]
    return client.create_run(
        entry["experiment_id"],
        start_time=milliseconds(record["started"]),
        tags={"yarnlab.run": record["run"]},
        run_name=f"{record['stage']}/{record['name']}",
    )


def _experiment(client: "MlflowClient", study_dir: Path, uri: str) -> "Experiment":
    """The study's experiment, made or brought back from MLflow's trash when needed."""
    name = experiment_name(study_dir)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = artifact_location(study_dir.parent, name) if database_file(uri) is not None else None
        return client.get_experiment(client.create_experiment(name, artifact_location=location))
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return experiment


def _mark_superseded(client: "MlflowClient", study_dir: Path, uri: str) -> dict[str, dict[str, Any]]:
    """Tag the runs whose stage was started anew under another id, and end those that died; returns what is left."""
    runs = {record["run"] for record in load_records(study_dir)}
    left = {run: entry for run, entry in load_published(study_dir, uri).items() if run not in runs}
    for run, entry in list(left.items()):
        try:
            if not entry["finished"]:
                client.set_terminated(entry["run_id"], "KILLED")
            client.set_tag(entry["run_id"], SUPERSEDED, "true")
        except Exception as error:
            if _is_unanswered(uri, error):
                break
        del left[run]  # also one that was deleted there: it is history, and nothing is lost
    return left


def _is_unanswered(uri: str, error: Exception) -> bool:
    """Whether the server did not answer at all."""
    from mlflow.exceptions import MlflowException, RestException

    return is_server(uri) and isinstance(error, MlflowException) and not isinstance(error, RestException)


def _attach(client: "MlflowClient", study_dir: Path, record: Record, manifest: Mapping[str, Any], run: "Run") -> None:
    """Data sets as inputs; manifest and files as artefacts, in the folders that they have on disk."""
    inputs = dataset_inputs(manifest)
    if inputs and not (run.inputs and run.inputs.dataset_inputs):
        client.log_inputs(run.info.run_id, datasets=inputs)
    if manifest:
        client.log_artifact(run.info.run_id, str(study_dir / record["manifest"]))
    for name in record["artifacts"]:
        if (study_dir / name).is_file():
            folder = Path(name).parent.as_posix()
            client.log_artifact(run.info.run_id, str(study_dir / name), None if folder == "." else folder)


def _sentence(uri: str, error: Exception) -> str:
    """One line about the error, with no password in it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{redacted(uri)}: {redacted(lines[0])}"
