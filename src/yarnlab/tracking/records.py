"""What stages say of themselves on disk: the truth that MLflow mirrors.

<study_dir>/tracking/records/<stage>.<name>.json   written by the stage itself
<study_dir>/tracking/planned.json                  the names of all records that the study plans, by the workflow
"""

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from yarnlab import provenance
from yarnlab.provenance import SELF_SHA256, now, write_record

Record = dict[str, Any]
"""One tracking/records/*.json, with the keys that `record_start` writes."""


def record_start(
    study_dir: Path,
    *,
    stage: str,
    name: str,
    study: str,
    study_sha256: str,
    spec: Mapping[str, Any],
    state: str = "",
    tags: Mapping[str, str],
    manifest: str | Path,
    metrics_file: str | Path | None = None,
    artifacts: Iterable[str | Path] = (),
) -> str:
    """Say on disk that this stage runs now; returns its run id (uuid4 hex).

    A stage that did not finish and starts again with the same `spec` and the same `state` (what it continues
    from) is the same run: it keeps its id and its start time, so its curves go on where they stopped.
    `manifest`, `metrics_file` (one JSON object per line) and `artifacts` (tables and other small files to
    attach) lie in `study_dir`, and are given either relative to it or as paths that lead there; they need not
    exist yet. ValueError for a path outside `study_dir`.
    """
    study_dir = Path(study_dir)
    path = _record_path(study_dir, stage, name)
    spec = json.loads(json.dumps(spec, default=str))
    previous = provenance.read_record(path)
    same = (previous.get("spec"), previous.get("state", "")) == (spec, state)
    resumed = same and previous["status"] != "finished"
    record = {
        "run": previous["run"] if resumed else uuid.uuid4().hex,
        "stage": stage,
        "name": name,
        "study": study,
        "study_sha256": study_sha256,
        "status": "running",
        "started": previous["started"] if resumed else now(),
        "ended": None,
        "spec": spec,
        "state": state,
        "tags": dict(tags),
        # The one path that is relative to results/, as its readers expect.
        "metrics_file": metrics_file and f"{study_dir.resolve().name}/{_inside(study_dir, metrics_file)}",
        "manifest": _inside(study_dir, manifest),
        "artifacts": [_inside(study_dir, file) for file in artifacts],
        "error": None,
    }
    write_record(path, record)
    return str(record["run"])


def record_end(
    study_dir: Path, stage: str, name: str, *, error: str | None = None, artifacts: Iterable[str | Path] = ()
) -> None:
    """Say on disk that the stage has finished, or failed with `error`; `artifacts` join those named before.

    Does nothing when the record has disappeared: a study must not fail over its tracking files.
    """
    study_dir = Path(study_dir)
    path = _record_path(study_dir, stage, name)
    record = provenance.read_record(path)
    if record:
        write_record(path, ended(study_dir, record, error=error, artifacts=artifacts))


def ended(study_dir: Path, record: Record, *, error: str | None, artifacts: Iterable[str | Path]) -> Record:
    """`record` as it is when the stage has ended now."""
    named = [*record["artifacts"], *(_inside(study_dir, file) for file in artifacts)]
    status = "finished" if error is None else "failed"
    return record | {"status": status, "ended": now(), "error": error, "artifacts": list(dict.fromkeys(named))}


def read_record(study_dir: Path, stage: str, name: str) -> Record:
    """What the stage's last execution said of itself; empty if there is nothing to read."""
    record = provenance.read_record(_record_path(Path(study_dir), stage, name))
    return {key: value for key, value in record.items() if key != SELF_SHA256}


def restore_record(study_dir: Path, record: Record) -> None:
    """Have an earlier execution, with the record that `read_record` gave then, stand for its stage again.

    `restored` says that it is about what the stage would now compute with, though it started earlier.
    """
    write_record(_record_path(Path(study_dir), record["stage"], record["name"]), record | {"restored": now()})


def write_plan(study_dir: Path, executions: Iterable[tuple[str, str]]) -> None:
    """Note every (stage, name) that the study plans, so that what was dropped from it while it ran can be told."""
    names = [record_name(stage, name) for stage, name in executions]
    write_record(Path(study_dir) / "tracking" / "planned.json", {"records": names})


def load_records(study_dir: Path) -> list[Record]:
    """All readable records of the study, oldest first; `dropped` is one that runs by its record but in no plan."""
    found = [provenance.read_record(path) for path in (study_dir / "tracking" / "records").glob("*.json")]
    records = sorted(filter(None, found), key=lambda record: record["started"])
    planned = provenance.read_record(study_dir / "tracking" / "planned.json").get("records")
    for record in records:
        name = record_name(record["stage"], record["name"])
        if planned is not None and name not in planned and record["status"] == "running":
            record["status"] = "dropped"
    return records


def metric_lines(study_dir: Path, file: str | None, skip: int) -> list[dict[str, Any]]:
    """The complete lines of a JSONL file of results/ after the first `skip`; an unreadable one is empty.

    The last line may be half-written: it counts once its newline is there.
    """
    path = study_dir.resolve().parent / (file or "")
    return [_parsed(line) for line in path.read_bytes().split(b"\n")[:-1][skip:]] if path.is_file() else []


def system_file(study_dir: Path, record: str) -> str:
    """Where a record's samples of the machine are, in results/."""
    return f"{study_dir.resolve().name}/tracking/system/{record}.jsonl"


def _record_path(study_dir: Path, stage: str, name: str) -> Path:
    return study_dir / "tracking" / "records" / f"{record_name(stage, name)}.json"


def record_name(stage: str, name: str) -> str:
    """What a stage's record is called, in files and tables."""
    return f"{stage}.{name}"


def _inside(study_dir: Path, path: str | Path) -> str:
    """A file's place in the study's folder, absolute or relative to it; folders in it may be links to other disks."""
    path = Path(path)
    inside = Path(os.path.relpath(path if path.is_relative_to(study_dir) else study_dir / path, study_dir))
    if ".." in inside.parts:
        raise ValueError(f"{path} is outside the study's directory {study_dir}; track only files inside it.")
    return inside.as_posix()


def _parsed(line: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        value = json.loads(line)
        return value if isinstance(value, dict) else {}
    return {}
