"""What MLflow is told, decided from what is on disk alone, so that a replay into another store gives the same.

A study's runs are: one for each execution, with the report; below it one for each model, with its training and its
evaluations; one for the data. A metric `name/N` of an evaluation (`Outcome.metrics`), N a whole number, is the point
at step N of the curve `<kind>/name`: MLflow draws and compares perplexity by length. What a curve by length has at the
original context L, at s·L and at its longest length are metrics of their own besides, for the columns of a table.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeGuard

from yarnlab.lazy import entities
from yarnlab.provenance import read_json
from yarnlab.tracking.executions import Execution, load_executions, of_moment
from yarnlab.tracking.records import Record, json_lines, load_records, record_name, system_file

DATA = "data"
"""The run of the stages that are about no model: assets, tokenizer, corpora."""
Sent = dict[str, list[Any]]
"""What MLflow has of a run: {record: [execution, JSONL lines, system samples, end]}, {execution: [end, analysis]}."""
REPORT = ("report.html", "figures/*.png", "tables/*.csv")
"""What a person reads of a study; MLflow shows it inline. (`log_table` appends: a table sent twice is doubled.)"""
_MAX_KEY, _MAX_VALUE, _MAX_DIGEST = 250, 6000, 36  # characters that MLflow stores


@dataclass
class StudyRun:
    """A run that MLflow shall have, and what there is to say of it.

    name: a model, `DATA` or an execution's id. parent: an execution's id or ''. Tags, params and status are told in
    full, of the rest what MLflow lacked: metrics, measured (those of the model, each with the data set that it was
    measured on), datasets, files (names in the study's folder). model: manifest, record and params of the checkpoint,
    once that is made. When all has arrived, MLflow has `sent`.
    """

    name: str
    title: str
    parent: str
    started_ms: int
    records: list[Record]
    execution: Execution | None = None
    status: str = "FINISHED"
    ended_ms: int | None = None
    sent: Sent = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[entities.Metric] = field(default_factory=list)
    measured: list[entities.Metric] = field(default_factory=list)
    datasets: list[entities.DatasetInput] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    model: dict[str, Any] = field(default_factory=dict)


def study_runs(study_dir: Path) -> list[StudyRun]:
    """Every run of the study, without what there is to say of it: executions, then models, each after its parent."""
    executions, records = load_executions(study_dir), load_records(study_dir)
    runs: list[StudyRun] = []
    models: dict[str, list[Record]] = {}
    for execution in executions:
        own = [record for record in records if of_moment(executions, record["started"]) == execution["id"]]
        title = f"{study_dir.resolve().name} {execution['started'][:19].replace('T', ' ')}"
        runs.append(StudyRun(execution["id"], title, "", milliseconds(execution["started"]), own, execution))
    for record in records:
        models.setdefault(str(record["tags"].get("model", DATA)), []).append(record)
    parents = {record["name"]: record["tags"].get("parent") for record in records if record["stage"] == "train"}
    for name in sorted(models, key=lambda name: _depth(name, parents)):
        own = _of_these_weights(models[name])
        started = own[0]["started"]
        runs.append(StudyRun(name, name, of_moment(executions, started), milliseconds(started), own))
    return runs


def tell(study_dir: Path, run: StudyRun, sent: Sent) -> None:
    """Fill in what there is to say of the run, of which MLflow has `sent`."""
    states = {record["status"] for record in run.records}
    run.status = "RUNNING" if "running" in states else "FAILED" if "failed" in states else "FINISHED"
    if run.execution is not None:
        _tell_execution(study_dir, run, run.execution, sent)
    else:
        run.ended_ms = max((milliseconds(r["ended"]) for r in run.records if r["ended"]), default=None)
        for record in run.records:
            _tell_record(study_dir, run, record, sent)
    run.tags = {_name(key): value[:_MAX_VALUE] for key, value in run.tags.items() if value}
    run.files = [name for name in run.files if (study_dir / name).is_file()]


def _tell_record(study_dir: Path, run: StudyRun, record: Record, sent: Sent) -> None:
    """What a stage says: settings, tags, its curves as far as they go, and once it has ended what came out."""
    name = record_name(record["stage"], record["name"])
    stage = name if run.name == DATA else record["stage"]
    _, *counts, ended = sent.get(name, ["", 0, 0, None])
    steps = study_dir.resolve().parent / (record["metrics_file"] or "")
    for i, file in enumerate((steps, system_file(study_dir, name))):
        lines = json_lines(file, counts[i])
        run.metrics += _line_metrics(lines, milliseconds(record["started"]), run.started_ms)
        counts[i] += len(lines)
    run.sent[name] = [record["run"], *counts, record["ended"]]
    params = _params(stage, record)
    run.params |= params
    run.tags |= {"parent_model" if key == "parent" else key: str(value) for key, value in record["tags"].items()}
    run.tags |= {"study": record["study"], f"execution.{stage}": record["run"], f"status.{stage}": record["status"]}
    run.tags |= {"mlflow.source.name": f"yarnlab {record['stage']} {record['name']}", "mlflow.source.type": "LOCAL"}
    if record["status"] == "failed":
        run.tags["error"] = "; ".join(filter(None, [run.tags.get("error"), f"{stage}: {record['error']}"]))
    # Before its end the file may be an earlier execution's.
    manifest = read_json(study_dir / record["manifest"]) if record["status"] == "finished" else {}
    run.tags |= _origin_tags(manifest)
    if record["stage"] == "train":
        run.tags |= {"stage": str(record["spec"].get("kind", "")), "manifest": record["manifest"]}
        run.model = manifest and {**manifest, **record, "params": params}
    if record["ended"] != ended:
        if manifest:
            _tell_results(run, stage, record, manifest, counts[0])
        run.files += [*([record["manifest"]] if manifest else []), *record["artifacts"]]


def _tell_execution(study_dir: Path, run: StudyRun, execution: Execution, sent: Sent) -> None:
    """Who ran what, where and when; once it has ended also what came out, of the one that analysed last."""
    run.tags = {"stage": "study", "command": execution["command"], "mlflow.user": execution["user"]}
    run.tags |= {"mlflow.source.name": execution["command"], "mlflow.source.type": "LOCAL"} | _origin_tags(execution)
    _, reported = sent.get(run.name, ["", None])
    if execution["ended"] is None:
        run.status = "RUNNING"
    else:
        if "killed" in execution or run.status == "RUNNING":  # a stage that nobody ended
            run.status = "KILLED"
        run.ended_ms = milliseconds(execution["ended"])
        analysed = read_json(study_dir / "analysis.json").get("ended", "")
        if analysed != reported and of_moment(load_executions(study_dir), analysed) == run.name:
            for group, counts in read_json(study_dir / "claims.json").get("counts", {}).items():
                verdicts = {f"verdicts/{group}/{verdict}": n for verdict, n in counts.items()}
                run.metrics += _metrics(verdicts, milliseconds(analysed), 0)
            found = (path for pattern in REPORT for path in sorted(study_dir.glob(pattern)))
            run.files = [path.relative_to(study_dir).as_posix() for path in found]
            reported = analysed
    run.sent = {run.name: [execution["ended"] or "", reported]}


def milliseconds(moment: str) -> int:
    """An ISO 8601 time as MLflow counts: milliseconds since 1970."""
    return round(1000 * datetime.fromisoformat(moment).timestamp())


def _depth(name: str, parents: Mapping[str, str | None]) -> int:
    """How many models a model is made from."""
    return 1 + _depth(parents[name] or "", parents) if name in parents else 0


def _of_these_weights(records: list[Record]) -> list[Record]:
    """A model's records without the evaluations of earlier weights of it."""
    trained = next((str(record["started"]) for record in records if record["stage"] == "train"), "")
    return [record for record in records if str(record.get("restored", record["started"])) >= trained]


def _origin_tags(source: Mapping[str, Any]) -> dict[str, str]:
    """Code and machine of a manifest or an execution."""
    git, machine = source.get("git") or {}, source.get("hardware") or {}
    tags = {"mlflow.source.git.commit": git.get("commit"), "git_dirty": git.get("dirty")}
    tags |= {key: machine.get(key) for key in ("host", "cpu", "gpu")}
    return {key: _text(value) for key, value in tags.items() if value is not None}


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


def _line_metrics(lines: Iterable[Mapping[str, Any]], stage_ms: int, run_ms: int) -> list[entities.Metric]:
    """Every finite number of JSONL lines, at the time of its measurement: the same for the same lines.

    stage_ms, run_ms: when stage and run started. A sample of the machine has a time; its step is the second of the run.
    """
    metrics = []
    for line in lines:
        since_ms = 1000 * line["seconds"] if _is_finite(line.get("seconds")) else 0
        at_ms = round(1000 * line["time"] if "time" in line else stage_ms + since_ms)
        values = {key: value for key, value in line.items() if key not in ("step", "time")}
        metrics += _metrics(values, at_ms, line.get("step", (at_ms - run_ms) // 1000))
    return metrics


def _tell_results(run: StudyRun, stage: str, record: Record, manifest: Mapping[str, Any], lines: int) -> None:
    """The numbers of a manifest: those of a training at its last line, else as curves; cost and data sets."""
    at_ms, datasets = milliseconds(record["ended"]), [_dataset(data) for data in manifest.get("datasets", [])]
    run.datasets += datasets
    cost = {f"cost/{stage}/{key}": manifest.get(key) for key in ("seconds", "peak_memory_bytes")}
    run.metrics += _metrics(cost, at_ms, 0)
    measured_on = {f"dataset_{key}": getattr(data.dataset, key) for data in datasets[:1] for key in ("name", "digest")}
    curves: dict[str, dict[int, float]] = {}
    for key, value in manifest.get("metrics", {}).items():
        name, step = (key, lines) if stage == "train" else _point(stage, key)
        if _is_finite(value):
            curves.setdefault(name, {})[step] = value
    for name, points in curves.items():
        for step, value in points.items():
            run.measured += _metrics({name: value}, at_ms, step, **measured_on)
        if stage != "train":
            run.measured += _metrics(_landmarks(name, points, record["spec"]), at_ms, 0, **measured_on)


def _point(stage: str, key: str) -> tuple[str, int]:
    """Name and step of an evaluation's metric."""
    name = key if key.split("/")[0] == stage else f"{stage}/{key}"
    curve, _, step = name.rpartition("/")
    return (curve, int(step)) if step.isdecimal() else (name, 0)


def _landmarks(name: str, curve: Mapping[int, float], spec: Mapping[str, Any]) -> dict[str, float]:
    """The values of a curve by length at L, at s·L and at its longest length; nothing of a curve by something else."""
    context = spec.get("architecture", {}).get("original_context")
    if not context or max(curve) < context:
        return {}
    places = {"L": context, "sL": context * spec.get("rope", {}).get("scale", 1), "longest": max(curve)}
    return {f"{name} at {place}": curve[length] for place, length in places.items() if length in curve}


def _metrics(values: Mapping[str, object], at_ms: int, step: int, **measured_on: str) -> list[entities.Metric]:
    finite = {key: value for key, value in values.items() if _is_finite(value)}
    return [entities.Metric(_name(key), float(value), at_ms, step, **measured_on) for key, value in finite.items()]


def _dataset(data: Mapping[str, Any]) -> entities.DatasetInput:
    """A data set of the manifest, with the beginning of its digest and what it was used for."""
    source = json.dumps({"uri": str(data.get("source", ""))})
    dataset = entities.Dataset(str(data["name"]), str(data["digest"])[:_MAX_DIGEST], source_type="local", source=source)
    context = [entities.InputTag("mlflow.data.context", data["context"])] if data.get("context") else []
    return entities.DatasetInput(dataset, context)


def _name(key: str) -> str:
    """A name that MLflow accepts."""
    return re.sub(r"[^\w\-. :/]", "_", str(key))[:_MAX_KEY]


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
