"""Send MLflow what is on disk and not there yet.

One experiment per study. A run is found again by two tags: the id of the study's folder, and the run's name. What it
has is its tag `yarnlab.published`, set after all else has arrived: whatever happens to a server or to a database, what
it lacks is seen there and sent. A metric that is sent again has the same time, step and value, and MLflow keeps it
once. MLflow's trash takes a run of executions that were made again since, one of an arm that was dropped, and the
second one of two: a server may carry a request out long after the client gave it up.

Batches go through MLflow's asynchronous queue and are waited for: one that has not arrived must not count, and MLflow
drops one that a server did not take.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from yarnlab.lazy import entities, mlflow
from yarnlab.provenance import read_json, write_json, write_record
from yarnlab.tracking import store
from yarnlab.tracking.entities import Sent, StudyRun, study_runs, tell
from yarnlab.tracking.experiment import study_experiment, view_path
from yarnlab.tracking.models import Models, log_model, models_of, register_best
from yarnlab.tracking.records import record_name

_PUBLISHED, _FOLDER, _NAME = "yarnlab.published", "yarnlab.folder", "yarnlab.name"
_FOLDER_ID = Path("tracking", "folder.json")
_LOCK_WAIT_S = 60.0


@dataclass
class PublishResult:
    """What one publication did.

    published: runs brought up to date by this call; pending: runs with something that MLflow lacks, at least 1 where
    it cannot be asked; warning: why; view: what follows the dashboard's address in the link to the study's runs;
    runs: where every record is: {"<stage>.<name>": {"run_id", "url_path"}}.
    """

    published: int = 0
    pending: int = 0
    warning: str | None = None
    view: str = ""
    runs: dict[str, dict[str, str]] = field(default_factory=dict)


def publish(study_dir: Path, *, deadline_s: float = 3.5, patience_s: float = math.inf) -> PublishResult:
    """Bring MLflow up to date with what the study has on disk; never raises over a server or a database.

    A server that does not answer costs at most `deadline_s` seconds, and together with `initialise` five. No further
    run is begun after `patience_s` seconds, when one is done: the lock of the database is held for that long, and
    whoever waits for it is next. What stays unpublished is not lost, the next call sends it.
    """
    try:
        if study_runs(study_dir):
            with store.opened(study_dir.parent, deadline_s, _LOCK_WAIT_S) as uri:
                if _is_lost(study_dir):
                    _count_failure(study_dir)  # `publication_state` has, and it stays so
                return _publish_runs(store.connect(uri), study_dir, time.monotonic() + patience_s)
    except Exception as error:
        return PublishResult(pending=1, warning=store.sentence(study_dir.parent, error))
    return PublishResult()


def write_runs(study_dir: Path, result: PublishResult) -> None:
    """Write where every record is to tracking/runs.json, where the report looks for it; a failure is counted."""
    write_record(study_dir / "tracking" / "runs.json", result.runs)
    if result.pending:
        _count_failure(study_dir)


def publication_state(study_dir: Path) -> str:
    """Which MLflow is published to, and how often something was missing there: a parameter of the rule that publishes.

    A lost database counts from the moment that it is, and stays counted when it is filled again; so the rule runs once
    more after a loss or a failure, and never after a success.
    """
    return f"{store.store_name(study_dir.parent)} {_failures(study_dir) + _is_lost(study_dir)}"


def _failures(study_dir: Path) -> int:
    """How often something was missing in what `write_runs` was told, or was lost, ever."""
    file = study_dir / "tracking" / "failures"
    return int(file.read_text()) if file.is_file() else 0


def _count_failure(study_dir: Path) -> None:
    write_json(study_dir / "tracking" / "failures", _failures(study_dir) + 1)


def _is_lost(study_dir: Path) -> bool:
    """Whether what was published is gone with its database. One that was replaced is filled by the next publication.

    The folder's id tells that something was published, not runs.json: Snakemake deletes that before the rule runs.
    """
    database = store.database_file(store.tracking_uri(study_dir.parent))
    return database is not None and not database.exists() and (study_dir / _FOLDER_ID).exists()


def _publish_runs(client: mlflow.MlflowClient, study_dir: Path, give_way: float) -> PublishResult:
    """Send everything that is missing, run by run until `give_way` (time.monotonic); the caller holds the lock."""
    experiment_id = study_experiment(client, study_dir).experiment_id
    result, wanted = PublishResult(view=view_path(experiment_id)), study_runs(study_dir)
    folder = _folder_id(study_dir)
    there, models = _tidied(client, experiment_id, folder, {run.name: run for run in wanted})
    for each in wanted:
        if result.published and time.monotonic() > give_way:
            result.pending += 1
            continue
        try:
            run = there.get(each.name)
            tell(study_dir, each, _sent(run) if run else {})
            if each.parent in there:
                each.tags["mlflow.parentRunId"] = there[each.parent].info.run_id
            if run is None:
                tags = {_FOLDER: folder, _NAME: each.name}
                run = client.create_run(experiment_id, start_time=each.started_ms, run_name=each.title, tags=tags)
                there[each.name] = run
            result.published += _send(client, study_dir, run, each, models)
            path = {"run_id": run.info.run_id, "url_path": f"#/experiments/{experiment_id}/runs/{run.info.run_id}"}
            if each.execution is None:
                result.runs |= {record_name(record["stage"], record["name"]): path for record in each.records}
        except Exception as error:
            result.pending += 1
            result.warning = result.warning or f"{each.name}: {store.sentence(study_dir.parent, error)}"
            if store.is_server(client.tracking_uri) and type(error) is mlflow.exceptions.MlflowException:
                break  # no answer at all, where a RestException is one: the other runs would each wait for it in vain
    if not result.pending:
        if result.published:
            models = models_of(client, experiment_id, {run.info.run_id for run in there.values()})
        register_best(client, study_dir, models.values())
    result.runs = dict(sorted(result.runs.items()))
    return result


def _tidied(
    client: mlflow.MlflowClient, experiment_id: str, folder: str, wanted: dict[str, StudyRun]
) -> tuple[dict[str, entities.Run], Models]:
    """The folder's runs by their names, and their checkpoints; whatever does not hold goes into MLflow's trash."""
    found = client.search_runs([experiment_id], f"tags.`{_FOLDER}` = '{folder}'", max_results=10_000)
    models = models_of(client, experiment_id, {run.info.run_id for run in found})
    there: dict[str, entities.Run] = {}
    for run in sorted(found, key=lambda each: _PUBLISHED not in each.data.tags):
        name, run_id = run.data.tags[_NAME], run.info.run_id
        if name in there or name not in wanted or _is_superseded(_sent(run), wanted[name]):
            if run_id in models:
                client.delete_logged_model(models.pop(run_id).model_id)
            client.delete_run(run_id)
        else:
            there[name] = run
    return there, models


def _is_superseded(sent: Sent, wanted: StudyRun) -> bool:
    """Whether MLflow's run shows an execution of a stage that another one has taken the place of."""
    executions = {record_name(record["stage"], record["name"]): record["run"] for record in wanted.records}
    return any(executions.get(record, shown) != shown for record, (shown, *_) in sent.items())


def _send(client: mlflow.MlflowClient, study_dir: Path, run: entities.Run, new: StudyRun, models: Models) -> bool:
    """Send what the run lacks, and note in it that it has it; says whether there was anything."""
    run_id, there = run.info.run_id, run.data
    tags = [entities.RunTag(key, value) for key, value in new.tags.items() if there.tags.get(key) != value]
    if _sent(run) == new.sent and run.info.status == new.status and not tags:
        return False
    if "error" in there.tags and "error" not in new.tags:
        client.delete_tag(run_id, "error")
    model_id = log_model(client, study_dir, run, new, models)
    of_model = {"model_id": model_id}
    measured = (entities.Metric.from_dictionary(metric.to_dictionary() | of_model) for metric in new.measured)
    params = [entities.Param(key, value) for key, value in new.params.items() if key not in there.params]
    if operations := client.log_batch(run_id, [*new.metrics, *measured], params, tags, synchronous=False):
        operations.wait()
    if new.files:
        store.send_files(client, study_dir.parent, run.info.artifact_uri, study_dir, new.files)
    if new.status == "RUNNING":
        client.update_run(run_id, status=new.status)  # also of a stage that failed, and was started again
    else:
        client.set_terminated(run_id, new.status, end_time=new.ended_ms)
    client.set_tag(run_id, _PUBLISHED, json.dumps(new.sent))
    return True


def _sent(run: entities.Run) -> Sent:
    return dict(json.loads(run.data.tags.get(_PUBLISHED, "{}")))


def _folder_id(study_dir: Path) -> str:
    """What tells this study from others of its name on the same server; it moves with the folder."""
    file = study_dir / _FOLDER_ID
    if "id" not in read_json(file):
        write_record(file, {"id": uuid.uuid4().hex})
    return str(read_json(file)["id"])
