"""What MLflow is told, decided from what is on disk alone, so that a replay into another store gives the same.

A study's runs are: one for each execution, with the report; below it one for each model, with its training and its
evaluations; one for the data. A metric `name/N` of an evaluation (`Outcome.metrics`), N a whole number, is the point
at step N of the curve `<kind>/name`: MLflow draws and compares perplexity by length. What a curve by length has at the
original context L, at s·L and at its longest length are metrics of their own besides, for the columns of a table.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from yarnlab.provenance import read_json
from yarnlab.tracking.executions import Execution, load_executions, of_moment, report_files
from yarnlab.tracking.records import Record, load_manifest, load_records, metric_lines, record_name, system_file

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

DATA = "data"
"""The run of the stages that are about no model: assets, tokenizer, corpora."""
Sent = dict[str, list[Any]]
"""What MLflow has of a run: {record: [execution, JSONL lines, system samples, end]}."""
_MAX_KEY, _MAX_VALUE, _MAX_DIGEST = 250, 6000, 36  # characters that MLflow stores


@dataclass
class StudyRun:
    """A run that MLflow shall have. `name`: a model, `DATA` or an execution's id; `parent`: an execution's id or ''."""

    name: str
    title: str
    parent: str
    started_ms: int
    records: list[Record]
    execution: Execution | None = None


@dataclass
class RunEntities:
    """What MLflow is told of a run: tags, params and status in full, of the rest what it lacked; then it has `sent`.

    measured: metrics of the model, each with the data set that it was measured on. files: each with its folder.
    model: manifest and record of the checkpoint, once that is made.
    """

    tags: dict[str, str]
    status: str
    ended_ms: int | None
    sent: Sent
    params: dict[str, str] = field(default_factory=dict)
    metrics: list["Metric"] = field(default_factory=list)
    measured: list["Metric"] = field(default_factory=list)
    datasets: list["DatasetInput"] = field(default_factory=list)
    files: list[tuple[Path, str]] = field(default_factory=list)
    model: dict[str, Any] = field(default_factory=dict)


def study_runs(study_dir: Path) -> list[StudyRun]:
    """Every run of the study: executions, oldest first, then their children."""
    executions, records = load_executions(study_dir), load_records(study_dir)
    runs = []
    for execution in executions:
        own = [record for record in records if of_moment(executions, record["started"]) == execution["id"]]
        title = f"{study_dir.resolve().name} {execution['started'][:16].replace('T', ' ')}"
        runs.append(StudyRun(execution["id"], title, "", milliseconds(execution["started"]), own, execution))
    for name, group in groupby(sorted(records, key=_model), key=_model):
        own = _of_these_weights(list(group))
        started = own[0]["started"]
        runs.append(StudyRun(name, name, of_moment(executions, started), milliseconds(started), own))
    return runs


def run_entities(study_dir: Path, run: StudyRun, sent: Sent) -> RunEntities:
    """What there is to say of the run, of which MLflow has `sent`."""
    if run.execution is not None:
        return _of_execution(study_dir, run, run.execution, sent)
    new = RunEntities({}, _status(run.records), _ended_ms(run.records), {})
    errors = []
    for record in run.records:
        name = record_name(record["stage"], record["name"])
        stage = name if run.name == DATA else record["stage"]
        _, lines, samples, ended = sent.get(name, ["", 0, 0, None])
        steps = metric_lines(study_dir, record["metrics_file"], lines)
        machine = metric_lines(study_dir, system_file(study_dir, name), samples)
        new.metrics += _step_metrics(record, steps) + _system_metrics(run, machine)
        new.params |= _params(stage, record)
        new.tags |= _record_tags(stage, record) | {f"status.{stage}": record["status"]}
        if record["status"] == "failed":
            errors.append(f"{stage}: {record['error']}")
        manifest = load_manifest(study_dir, record)
        if manifest:
            new.tags |= _manifest_tags(manifest)
            new.model = {**manifest, **record} if record["stage"] == "train" else new.model
        if record["ended"] != ended:
            _add_results(new, stage, record, manifest, lines + len(steps))
            new.files += _files(study_dir, record, manifest)
        new.sent[name] = [record["run"], lines + len(steps), samples + len(machine), record["ended"]]
    new.tags["error"] = "; ".join(errors)
    new.tags = {_name(key): value[:_MAX_VALUE] for key, value in new.tags.items() if value}
    return new


def _of_execution(study_dir: Path, run: StudyRun, execution: Execution, sent: Sent) -> RunEntities:
    """Who ran what, where and when; once the newest one has ended also what came out."""
    from mlflow.entities import Metric

    git = execution["git"] or {}
    tags = {key: str(execution[key]) for key in ("host", "command")} | {
        "stage": "study",
        "cpu": str(execution["hardware"].get("cpu") or ""),
        "gpu": str(execution["hardware"].get("gpu") or ""),
        "git_dirty": str(git.get("dirty", "")).lower(),
        "mlflow.user": execution["user"],
        "mlflow.source.name": execution["command"],
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git.get("commit") or "",
    }
    tags = {key: value[:_MAX_VALUE] for key, value in tags.items() if value}
    if execution["ended"] is None:
        return RunEntities(tags, "RUNNING", None, {execution["id"]: ["", None]})
    status = "KILLED" if "killed" in execution else _status(run.records)
    _, reported = sent.get(execution["id"], ["", None])
    new = RunEntities(tags, status, milliseconds(execution["ended"]), {execution["id"]: [execution["ended"], reported]})
    analysed = read_json(study_dir / "analysis.json").get("ended")
    is_newest = execution["id"] == load_executions(study_dir)[-1]["id"]
    if is_newest and analysed and execution["started"] <= analysed != reported:
        counts = read_json(study_dir / "claims.json").get("counts", {})
        at_ms = milliseconds(analysed)
        new.metrics = [
            Metric(_name(f"verdicts/{group}/{verdict}"), float(n), at_ms, 0)
            for group, own in counts.items()
            for verdict, n in own.items()
        ]
        new.files = list(report_files(study_dir))
        new.sent = {execution["id"]: [execution["ended"], analysed]}
    return new


def milliseconds(moment: str) -> int:
    """An ISO 8601 time as MLflow counts: milliseconds since 1970."""
    return round(1000 * datetime.fromisoformat(moment).timestamp())


def _model(record: Record) -> str:
    return str(record["tags"].get("model", DATA))


def _of_these_weights(records: list[Record]) -> list[Record]:
    """A model's records without the evaluations of earlier weights of it."""
    trained = next((str(record["started"]) for record in records if record["stage"] == "train"), "")
    return [record for record in records if str(record.get("restored", record["started"])) >= trained]


def _status(records: list[Record]) -> str:
    states = {record["status"] for record in records}
    first = next((state for state in ("running", "failed", "dropped") if state in states), "finished")
    return {"running": "RUNNING", "failed": "FAILED", "dropped": "KILLED", "finished": "FINISHED"}[first]


def _ended_ms(records: list[Record]) -> int | None:
    return max((milliseconds(record["ended"]) for record in records if record["ended"]), default=None)


def _record_tags(stage: str, record: Record) -> dict[str, str]:
    """What a run is searched by."""
    tags = {"parent_model" if key == "parent" else key: str(value) for key, value in record["tags"].items()}
    tags |= {"study": record["study"], f"execution.{stage}": record["run"]}
    if record["stage"] == "train":
        tags |= {"stage": str(record["spec"].get("kind", "")), "manifest": record["manifest"]}
    return tags | {"mlflow.source.name": f"yarnlab {record['stage']} {record['name']}", "mlflow.source.type": "LOCAL"}


def _manifest_tags(manifest: Mapping[str, Any]) -> dict[str, str]:
    git, machine = manifest.get("git") or {}, manifest.get("hardware") or {}
    dirty = "" if git.get("dirty") is None else str(git["dirty"]).lower()
    tags = {"git_commit": git.get("commit"), "mlflow.source.git.commit": git.get("commit"), "git_dirty": dirty}
    return {key: str(value or "") for key, value in (tags | {"host": machine.get("host")}).items()}


def _params(stage: str, record: Record) -> dict[str, str]:
    """Settings by flat names: those of a training as they are, of the last phase without its name; others by stage."""
    spec = dict(record["spec"])
    if stage != "train":
        leaves = [*_leaves(spec.get("evaluation", spec), stage)]
    else:
        *earlier, last = spec.pop("phases", []) or [{}]
        leaves = [*_leaves(spec, ""), *_leaves(last, "")]
        for phase in earlier:
            leaves += _leaves(phase, str(phase["name"]))
    return {_name(key): text[:_MAX_VALUE] for key, text in leaves if text}


def _leaves(value: object, prefix: str) -> Iterator[tuple[str, str]]:
    """("train.steps", "100") of every leaf; a list of plain values is one leaf."""
    if isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _leaves(child, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        yield prefix, ", ".join(map(_text, value))
    elif value is not None:
        yield prefix, _text(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _step_metrics(record: Record, lines: Iterable[Mapping[str, Any] | None]) -> list["Metric"]:
    """Every finite number of the JSONL lines, at the time of its measurement: the same for the same lines."""
    started_ms = milliseconds(record["started"])
    metrics = []
    for line in lines:
        if line is not None and isinstance(line.get("step"), int):
            seconds = line.get("seconds")
            at_ms = started_ms + (round(1000 * seconds) if _is_finite(seconds) else 0)
            metrics += _metrics({key: value for key, value in line.items() if key != "step"}, at_ms, line["step"])
    return metrics


def _system_metrics(run: StudyRun, lines: Iterable[Mapping[str, Any] | None]) -> list["Metric"]:
    """Samples of the machine; the step is the second of the run."""
    metrics = []
    for line in lines:
        if line is not None and _is_finite(line.get("time")):
            at_ms = round(1000 * line["time"])
            values = {key: value for key, value in line.items() if key != "time"}
            metrics += _metrics(values, at_ms, (at_ms - run.started_ms) // 1000)
    return metrics


def _add_results(new: RunEntities, stage: str, record: Record, manifest: Mapping[str, Any], lines: int) -> None:
    """The numbers of a manifest: a training's as they are, an evaluation's as curves; what it cost, what it read."""
    if not manifest:
        return
    at_ms, values, datasets = milliseconds(record["ended"]), manifest.get("metrics", {}), manifest.get("datasets", [])
    new.datasets += map(_dataset, datasets)
    cost = {"seconds": manifest.get("seconds"), "peak_memory_bytes": manifest.get("peak_memory_bytes")}
    new.metrics += _metrics({f"cost/{stage}/{key}": value for key, value in cost.items()}, at_ms, 0)
    read = (str(datasets[0]["name"]), _digest(datasets[0])) if datasets else (None, None)
    if stage == "train":
        new.measured += _metrics(values, at_ms, lines, *read)
        return
    curves: dict[str, dict[int, float]] = {}
    for key, value in values.items():
        name = key if key.split("/")[0] == stage else f"{stage}/{key}"
        curve, _, step = name.rpartition("/")
        if step.isdecimal() and _is_finite(value):
            curves.setdefault(curve, {})[int(step)] = value
        else:
            new.measured += _metrics({name: value}, at_ms, 0, *read)
    for name, points in curves.items():
        for length, value in points.items():
            new.measured += _metrics({name: value}, at_ms, length, *read)
        new.measured += _metrics(_landmarks(name, points, record["spec"]), at_ms, 0, *read)


def _landmarks(name: str, curve: Mapping[int, float], spec: Mapping[str, Any]) -> dict[str, float]:
    """The values of a curve by length at L, at s·L and at its longest length; nothing of a curve by something else."""
    context = spec.get("architecture", {}).get("original_context")
    if not context or max(curve) < context:
        return {}
    places = {"L": context, "sL": context * spec.get("rope", {}).get("scale", 1), "longest": max(curve)}
    return {f"{name} at {place}": curve[length] for place, length in places.items() if length in curve}


def _metrics(
    values: Mapping[str, object], at_ms: int, step: int, dataset: str | None = None, digest: str | None = None
) -> list["Metric"]:
    from mlflow.entities import Metric

    named = {"dataset_name": dataset, "dataset_digest": digest}
    return [
        Metric(_name(key), float(value), at_ms, step, **named) for key, value in values.items() if _is_finite(value)
    ]


def _dataset(data: Mapping[str, Any]) -> "DatasetInput":
    """A data set of the manifest, with the beginning of its digest and what it was used for."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": str(data.get("source", ""))})
    dataset = Dataset(name=str(data["name"]), digest=_digest(data), source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", str(data["context"]))] if data.get("context") else [])


def _digest(data: Mapping[str, Any]) -> str:
    return str(data["digest"])[:_MAX_DIGEST]


def _files(study_dir: Path, record: Record, manifest: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """The manifest and the named files that exist, in the folders that they have on disk."""
    names = [*([record["manifest"]] if manifest else []), *record["artifacts"]]
    found = [Path(name) for name in names if (study_dir / name).is_file()]
    return [(study_dir / name, name.parent.as_posix().strip(".")) for name in found]


def _name(key: str) -> str:
    """A name that MLflow accepts."""
    return re.sub(r"[^\w\-. :/]", "_", str(key))[:_MAX_KEY]


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
