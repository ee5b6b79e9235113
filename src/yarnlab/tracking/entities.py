"""A record, its manifest and its JSONL lines in MLflow's terms: tags, parameters, metrics, data sets."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeGuard

from yarnlab.tracking.records import Record

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

MAX_VALUE = 6000
"""Characters of a parameter that MLflow stores (of a tag it stores more)."""
_MAX_KEY, _MAX_DIGEST = 250, 36


def run_tags(record: Record, manifest: Mapping[str, Any]) -> dict[str, str]:
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
        "git_commit": git.get("commit"),
        "git_dirty": None if git.get("dirty") is None else str(git["dirty"]).lower(),
        "mlflow.source.name": f"yarnlab {record['stage']} {record['name']}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git.get("commit"),
    }
    return {_name(key): str(value)[:MAX_VALUE] for key, value in tags.items() if value not in (None, "")}


def spec_params(record: Record) -> list[tuple[str, str]]:
    """The leaves of the spec as ("train.steps", "100"); lists stay whole, as JSON."""
    return [(_name(key), text[:MAX_VALUE]) for key, text in _leaves(record["spec"], "")]


def step_metrics(record: Record, lines: Sequence[Mapping[str, Any] | None]) -> list["Metric"]:
    """Every finite number of the JSONL lines, at the time of its measurement: the same for the same lines."""
    from mlflow.entities import Metric

    started_ms = milliseconds(record["started"])
    metrics = []
    for line in lines:
        if line is None or not isinstance(line.get("step"), int):
            continue
        seconds = line.get("seconds")
        at_ms = started_ms + (round(1000 * seconds) if _is_finite(seconds) else 0)
        for key, value in line.items():
            if key != "step" and _is_finite(value):
                metrics.append(Metric(_name(key), float(value), at_ms, line["step"]))
    return metrics


def summary_metrics(record: Record, manifest: Mapping[str, Any], step: int) -> list["Metric"]:
    """The manifest's finite metrics, placed at the run's end."""
    from mlflow.entities import Metric

    ended_ms = milliseconds(record["ended"])
    return [
        Metric(_name(key), float(value), ended_ms, step)
        for key, value in manifest.get("metrics", {}).items()
        if _is_finite(value)
    ]


def dataset_inputs(manifest: Mapping[str, Any]) -> list["DatasetInput"]:
    """The manifest's data sets, each with the beginning of its digest and what it was used for."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(
                name=str(data["name"]),
                digest=str(data["digest"])[:_MAX_DIGEST],
                source_type="local",
                source=json.dumps({"uri": str(data.get("source", ""))}),
            ),
            tags=[InputTag("mlflow.data.context", str(data["context"]))] if data.get("context") else [],
        )
        for data in manifest.get("datasets", [])
    ]


def milliseconds(moment: str) -> int:
    """An ISO 8601 time as MLflow counts: milliseconds since 1970."""
    return round(1000 * datetime.fromisoformat(moment).timestamp())


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
