"""Send MLflow what is on disk and not there yet.

One experiment per study. A run is found again by two tags: the id of the study's folder, and the run's name. What it
has is its tag `yarnlab.published`, set after all else has arrived: whatever happens to a server or to a database, what
it lacks is seen there and sent. A metric that is sent again has the same time, step and value, and MLflow keeps it
once. A run of executions that were made again since is left as it is, tagged as superseded, and another one is made.

Batches go through MLflow's asynchronous queue and are waited for: one that has not arrived must not count, and MLflow
drops one that a server did not take.
"""

import json
import math
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from yarnlab.provenance import read_json, write_json, write_record
from yarnlab.tracking.database import connect, database_lock
from yarnlab.tracking.entities import RunEntities, Sent, StudyRun, run_entities, study_runs
from yarnlab.tracking.experiment import SUPERSEDED, study_experiment, view_path
from yarnlab.tracking.models import known_models, log_model, register_best
from yarnlab.tracking.records import record_name
from yarnlab.tracking.store import (
    artifact_repository,
    database_file,
    is_server,
    mlflow_settings,
    redacted,
    store_name,
    tracking_uri,
    unreachable,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric, Run

_PUBLISHED, _FOLDER, _NAME = "yarnlab.published", "yarnlab.folder", "yarnlab.name"
_LOCK_WAIT_S = 60.0


@dataclass
class PublishResult:
    """What one publication did.

    published: runs brought up to date by this call; pending: runs with something that MLflow lacks, at least 1 where
    it cannot be asked; warning: why; view: what follows the dashboard's address in the link to the study's runs;
    runs: where every record is: {"<stage>.<name>": {"experiment_id", "run_id", "url_path"}}.
    """

    published: int = 0
    pending: int = 0
    warning: str | None = None
    view: str = ""
    runs: dict[str, dict[str, str]] = field(default_factory=dict)


def publish(study_dir: Path, *, deadline_s: float = 3.5) -> PublishResult:
    """Bring MLflow up to date with what the study has on disk; never raises over a server or a database.

    A server that does not answer costs at most `deadline_s` seconds, and together with `initialise` five.
    When something stays unpublished, `failed_publications` grows by one and `warning` says why; nothing is
    lost, the next call sends it.
    """
    result = publish_part(Path(study_dir), deadline_s, math.inf)
    if result.pending:
        _count_failed_publication(Path(study_dir))
    return result


def publish_part(study_dir: Path, deadline_s: float, patience_s: float) -> PublishResult:
    """`publish` that counts no failures, and starts with no further run after `patience_s` seconds, when one is done.

    It holds the lock of the database for that long, and whoever waits for the lock is next.
    """
    uri = tracking_uri(study_dir.parent)
    if not study_runs(study_dir):
        return PublishResult()
    problem = unreachable(uri, deadline_s)
    try:
        if not problem:
            with database_lock(study_dir.parent, _LOCK_WAIT_S) as held, mlflow_settings(uri):
                if held:
                    if _is_lost(study_dir):
                        _count_failed_publication(study_dir)  # `publication_state` has, and it stays so
                    return _publish_runs(study_dir, uri, time.monotonic() + patience_s)
                problem = "Another process is still publishing to MLflow."
    except Exception as error:
        problem = _sentence(uri, error)
    return PublishResult(pending=1, warning=problem)


def write_runs(study_dir: Path, result: PublishResult) -> None:
    """Write where every record is to tracking/runs.json, where the report looks for it."""
    write_record(Path(study_dir) / "tracking" / "runs.json", result.runs)


def publication_state(study_dir: Path) -> str:
    """Which MLflow is published to, and how often something was missing there: a parameter of the rule that publishes.

    A lost database counts from the moment that it is, and stays counted when it is filled again; so the rule runs once
    more after a loss or a failure, and never after a success.
    """
    study_dir = Path(study_dir)
    return f"{store_name(study_dir.parent)} {failed_publications(study_dir) + _is_lost(study_dir)}"


def failed_publications(study_dir: Path) -> int:
    """How many times something stayed unpublished or was lost, ever."""
    try:
        return int((Path(study_dir) / "tracking" / "failures").read_text())
    except (OSError, ValueError):
        return 0


def _count_failed_publication(study_dir: Path) -> None:
    write_json(study_dir / "tracking" / "failures", failed_publications(study_dir) + 1)


def _is_lost(study_dir: Path) -> bool:
    """Whether what was published is gone with its database. One that was replaced is filled by the next publication.

    The folder's id tells that something was published, not runs.json: Snakemake deletes that before the rule runs.
    """
    database = database_file(tracking_uri(study_dir.parent))
    return database is not None and not database.exists() and _folder_file(study_dir).exists()


def _publish_runs(study_dir: Path, uri: str, give_way: float) -> PublishResult:
    """Send everything that is missing, run by run until `give_way` (time.monotonic); the caller holds the lock."""
    client = connect(uri)
    experiment_id = study_experiment(client, study_dir, uri).experiment_id
    folder = _folder_id(study_dir)
    there = _runs_of(client, experiment_id, folder)
    models = known_models(client, experiment_id)
    result = PublishResult(view=view_path(experiment_id))
    for wanted in study_runs(study_dir):
        if result.published and time.monotonic() > give_way:
            result.pending += 1
            continue
        try:
            run = there.get(wanted.name)
            new = run_entities(study_dir, wanted, _sent(run))
            if run is not None and wanted.execution is None and _is_superseded(_sent(run), new.sent):
                _supersede(client, run, models)
                run = None
                new = run_entities(study_dir, wanted, {})
            if run is None:
                run = there[wanted.name] = _create(client, experiment_id, folder, wanted, there.get(wanted.parent))
            result.published += _send(client, study_dir, uri, run, new, models)
        except Exception as error:
            result.pending += 1
            result.warning = result.warning or f"{wanted.name}: {_sentence(uri, error)}"
            if _is_unanswered(uri, error):
                break  # the other runs would each wait for it in vain
            continue
        path = {"experiment_id": experiment_id, "run_id": run.info.run_id}
        path["url_path"] = f"#/experiments/{experiment_id}/runs/{run.info.run_id}"
        if wanted.execution is None:
            result.runs |= {record_name(record["stage"], record["name"]): path for record in wanted.records}
    if not result.pending:
        register_best(client, study_dir, _runs_of(client, experiment_id, folder).values())
    result.runs = dict(sorted(result.runs.items()))
    return result


def _send(
    client: "MlflowClient", study_dir: Path, uri: str, run: "Run", new: RunEntities, models: dict[str, "LoggedModel"]
) -> bool:
    """Send what the run lacks, and note in it that it has it; says whether there was anything."""
    from mlflow.entities import Param, RunTag

    run_id, there = run.info.run_id, run.data
    tags = [RunTag(key, value) for key, value in new.tags.items() if there.tags.get(key) != value]
    if _sent(run) == new.sent and not tags:
        return False
    if "error" in there.tags and "error" not in new.tags:
        client.delete_tag(run_id, "error")
    if new.status == "RUNNING" and run.info.status != "RUNNING":
        client.update_run(run_id, status="RUNNING")  # a stage that failed, or another one, was started
    model_id = log_model(client, study_dir, uri, run, new, models)
    params = [Param(key, value) for key, value in new.params.items() if key not in there.params]
    metrics = [*new.metrics, *_of_model(new.measured, model_id)]
    if operations := client.log_batch(run_id, metrics, params, tags, synchronous=False):
        operations.wait()
    if new.files:
        repository = artifact_repository(study_dir.parent, uri, run.info.artifact_uri)
        for file, folder in new.files:
            repository.log_artifact(str(file), folder or None)
    if new.status != "RUNNING":
        client.set_terminated(run_id, new.status, end_time=new.ended_ms)
    client.set_tag(run_id, _PUBLISHED, json.dumps(new.sent))
    return True


def _of_model(metrics: list["Metric"], model_id: str | None) -> Iterator["Metric"]:
    """The metrics as those of a model, too."""
    from mlflow.entities import Metric

    return (Metric.from_dictionary(metric.to_dictionary() | {"model_id": model_id}) for metric in metrics)


def _sent(run: "Run | None") -> Sent:
    return dict(json.loads(run.data.tags.get(_PUBLISHED, "{}"))) if run is not None else {}


def _is_superseded(sent: Sent, new: Sent) -> bool:
    """Whether the run shows an execution of a stage that another one has taken the place of."""
    return any(record in sent and sent[record][0] != execution for record, (execution, *_) in new.items())


def _runs_of(client: "MlflowClient", experiment_id: str, folder: str) -> dict[str, "Run"]:
    """The runs of this folder that hold, by name."""
    holds = f"tags.`{_FOLDER}` = '{folder}' AND tags.`{SUPERSEDED}` IS NULL"
    found = client.search_runs([experiment_id], filter_string=holds, max_results=1000)
    return {run.data.tags[_NAME]: run for run in found}


def _create(client: "MlflowClient", experiment_id: str, folder: str, wanted: StudyRun, parent: "Run | None") -> "Run":
    tags = {_FOLDER: folder, _NAME: wanted.name} | ({"mlflow.parentRunId": parent.info.run_id} if parent else {})
    return client.create_run(experiment_id, start_time=wanted.started_ms, run_name=wanted.title, tags=tags)


def _supersede(client: "MlflowClient", run: "Run", models: dict[str, "LoggedModel"]) -> None:
    """Take a run out of sight, and its checkpoint out of the list of models."""
    for execution, model in list(models.items()):
        if model.source_run_id == run.info.run_id:
            client.delete_logged_model(model.model_id)
            del models[execution]
    if run.info.status == "RUNNING":
        client.set_terminated(run.info.run_id, "KILLED")
    client.set_tag(run.info.run_id, SUPERSEDED, "true")


def _folder_file(study_dir: Path) -> Path:
    return study_dir / "tracking" / "folder.json"


def _folder_id(study_dir: Path) -> str:
    """What tells this study from others of its name on the same server; it moves with the folder."""
    file = _folder_file(study_dir)
    if "id" not in read_json(file):
        write_record(file, {"id": uuid.uuid4().hex})
    return str(read_json(file)["id"])


def _is_unanswered(uri: str, error: Exception) -> bool:
    """Whether the server did not answer at all."""
    from mlflow.exceptions import MlflowException, RestException

    return is_server(uri) and isinstance(error, MlflowException) and not isinstance(error, RestException)


def _sentence(uri: str, error: Exception) -> str:
    """One line about the error, with no password in it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{redacted(uri)}: {redacted(lines[0])}"
