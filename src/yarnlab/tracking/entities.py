"""A stage's record, its manifest and its JSONL lines in MLflow's terms; what is sent for a record is decided here."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from yarnlab.tracking.records import Record, load_manifest, metric_lines

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

SUPERSEDED = "yarnlab.superseded"
"""The tag of runs whose stage was started anew under another id; no other run has it."""
PASSING_TAGS = ("error", SUPERSEDED)
"""Tags that a run loses when its record no longer gives them."""
_ENDS = {"finished": "FINISHED", "failed": "FAILED", "dropped": "KILLED"}
_MAX_KEY, _MAX_VALUE, _MAX_DIGEST = 250, 6000, 36  # characters that MLflow stores


@dataclass(frozen=True)
class RunEntities:
    """All that MLflow is told of a record.

    tags, params: of the whole record, whatever MLflow has of them already; metrics: of the `lines` JSONL lines that
    were asked for; files: each with the folder that it has on disk; status: None while the stage runs; ended_ms: None
    until the stage says when it ended.
    """

    tags: dict[str, str]
    params: dict[str, str]
    metrics: list["Metric"]
    lines: int
    datasets: list["DatasetInput"]
    files: list[tuple[Path, str]]
    status: str | None
    ended_ms: int | None


def run_entities(study_dir: Path, record: Record, skip_lines: int) -> RunEntities:
    """What the record, its manifest (once finished) and its JSONL lines after the first `skip_lines` say."""
    manifest = load_manifest(study_dir, record)
    lines = metric_lines(study_dir, record, skip_lines)
    ended_ms = milliseconds(record["ended"]) if record["ended"] else None
    metrics = _step_metrics(record, lines)
    if manifest:
        metrics += _metrics(manifest.get("metrics", {}), ended_ms or 0, step=skip_lines + len(lines))
    return RunEntities(
        tags=_tags(record, manifest),
        # The leaves of the spec as {"train.steps": "100"}; lists stay whole, as JSON.
        params={_name(key): text[:_MAX_VALUE] for key, text in _leaves(record["spec"], "")},
        metrics=metrics,
        lines=len(lines),
        datasets=[_dataset(data) for data in manifest.get("datasets", [])],
        files=_files(study_dir, record, manifest) if record["status"] != "running" else [],
        status=_ENDS.get(record["status"]),
        ended_ms=ended_ms,
    )


def new_run(record: Record) -> dict[str, Any]:
    """What MLflow is told when the record's run is made; `yarnlab.run` is the tag by which it is found again."""
    return {
        "start_time": milliseconds(record["started"]),
        "tags": {"yarnlab.run": record["run"]},
        "run_name": f"{record['stage']}/{record['name']}",
    }


def milliseconds(moment: str) -> int:
    """An ISO 8601 time as MLflow counts: milliseconds since 1970."""
    return round(1000 * datetime.fromisoformat(moment).timestamp())


def _tags(record: Record, manifest: Mapping[str, Any]) -> dict[str, str]:
    """What a run is searched by; the commit comes from the manifest, so only a finished stage has it."""
    from yarnlab.study.sections import digest

    git = manifest.get("git") or {}
    tags = {("parent_model" if key == "parent" else key): value for key, value in record["tags"].items()}
    tags |= {
        "stage": record["stage"],
        "study": record["study"],
        "study_sha256": record["study_sha256"],
        "spec_sha256": manifest.get("spec_sha256") or digest(record["spec"]),
        "manifest": record["manifest"],
        "error": record["error"] if record["status"] == "failed" else None,
        "git_commit": git.get("commit"),
        "git_dirty": None if git.get("dirty") is None else str(git["dirty"]).lower(),
        "mlflow.source.name": f"yarnlab {record['stage']} {record['name']}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git.get("commit"),
    }
    return {_name(key): str(value)[:_MAX_VALUE] for key, value in tags.items() if value not in (None, "")}


def _step_metrics(record: Record, lines: Sequence[Mapping[str, Any] | None]) -> list["Metric"]:
    """Every finite number of the JSONL lines, at the time of its measurement: the same for the same lines."""
    started_ms = milliseconds(record["started"])
    metrics = []
    for line in lines:
        if line is None or not isinstance(line.get("step"), int):
            continue
        seconds = line.get("seconds")
        at_ms = started_ms + (round(1000 * seconds) if _is_finite(seconds) else 0)
        metrics += _metrics({key: value for key, value in line.items() if key != "step"}, at_ms, line["step"])
    return metrics


def _metrics(values: Mapping[str, object], at_ms: int, step: int) -> list["Metric"]:
    from mlflow.entities import Metric

    return [Metric(_name(key), float(value), at_ms, step) for key, value in values.items() if _is_finite(value)]


def _dataset(data: Mapping[str, Any]) -> "DatasetInput":
    """A data set of the manifest, with the beginning of its digest and what it was used for."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": str(data.get("source", ""))})
    digest = str(data["digest"])[:_MAX_DIGEST]
    dataset = Dataset(name=str(data["name"]), digest=digest, source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", str(data["context"]))] if data.get("context") else [])


def _files(study_dir: Path, record: Record, manifest: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """The manifest at the top, and the named files that exist in the folders that they have on disk."""
    files = [(study_dir / record["manifest"], "")] if manifest else []
    for name in map(Path, record["artifacts"]):
        if (study_dir / name).is_file():
            files.append((study_dir / name, "" if name.parent == Path() else name.parent.as_posix()))
    return files


def _leaves(value: object, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, child in value.items():
            yield from _leaves(child, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, value if isinstance(value, str) else json.dumps(value)


def _name(key: str) -> str:
    """A name that MLflow accepts."""
    return re.sub(r"[^\w\-. :/]", "_", str(key))[:_MAX_KEY]


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
