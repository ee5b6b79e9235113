"""What stages say of themselves on disk: the truth that MLflow mirrors.

<study_dir>/tracking/records/<stage>.<name>.json   written by the stage itself
<study_dir>/tracking/planned.json                  the names of all records that the study plans, by the workflow
"""

import json
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
    manifest: str,
    metrics_file: str | None = None,
    artifacts: Iterable[str] = (),
) -> str:
    """Say on disk that this stage runs now; returns its run id (uuid4 hex).

    A stage that did not finish and starts again with the same `spec` and the same `state` (what it continues
    from) is the same run: it keeps its id and its start time, so its curves go on where they stopped.
    `manifest`, `metrics_file` (one JSON object per line) and `artifacts` (tables and other small files to
    attach) are paths relative to `study_dir`, of files that need not exist yet.
    """
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
        "metrics_file": metrics_file and f"{Path(study_dir).resolve().name}/{metrics_file}",  # the one from results/
        "manifest": manifest,
        "artifacts": list(artifacts),
        "error": None,
    }
    write_record(path, record)
    return str(record["run"])


def record_end(
    study_dir: Path, stage: str, name: str, *, error: str | None = None, artifacts: Iterable[str] = ()
) -> None:
    """Say on disk that the stage has finished, or failed with `error`; `artifacts` join those named before.

    Does nothing when the record has disappeared: a study must not fail over its tracking files.
    """
    path = _record_path(study_dir, stage, name)
    if record := provenance.read_record(path):
        write_record(path, ended(record, error=error, artifacts=artifacts))


def ended(record: Record, *, error: str | None, artifacts: Iterable[str]) -> Record:
    """`record` as it is when the stage has ended now."""
    status = "finished" if error is None else "failed"
    named = list(dict.fromkeys([*record["artifacts"], *artifacts]))
    return record | {"status": status, "ended": now(), "error": error, "artifacts": named}


def read_record(study_dir: Path, stage: str, name: str) -> Record:
    """What the stage's last execution said of itself; empty if there is nothing to read."""
    record = provenance.read_record(_record_path(study_dir, stage, name))
    return {key: value for key, value in record.items() if key != SELF_SHA256}


def restore_record(study_dir: Path, record: Record) -> None:
    """Have an earlier execution, with the record that `read_record` gave then, stand for its stage again.

    `restored` says that it is about what the stage would now compute with, though it started earlier.
    """
    write_record(_record_path(study_dir, record["stage"], record["name"]), record | {"restored": now()})


def write_plan(study_dir: Path, executions: Iterable[tuple[str, str]]) -> None:
    """Note every (stage, name) that the study plans, so that what was dropped from it can be told."""
    names = [record_name(stage, name) for stage, name in executions]
    write_record(Path(study_dir) / "tracking" / "planned.json", {"records": names})


def load_records(study_dir: Path) -> list[Record]:
    """All readable records of what the study plans, oldest first."""
    planned = provenance.read_record(study_dir / "tracking" / "planned.json").get("records")
    found = {p.stem: provenance.read_record(p) for p in (study_dir / "tracking" / "records").glob("*.json")}
    held = [record for name, record in found.items() if "stage" in record and (planned is None or name in planned)]
    return sorted(held, key=lambda record: record["started"])


def record_name(stage: str, name: str) -> str:
    """What a stage's record is called, in files and tables."""
    return f"{stage}.{name}"


def system_file(study_dir: Path, record: str) -> Path:
    """Where a record's samples of the machine are."""
    return Path(study_dir) / "tracking" / "system" / f"{record}.jsonl"


def json_lines(file: Path, skip: int) -> list[dict[str, Any]]:
    """The complete lines of a JSONL file after the first `skip`; what is no object counts as an empty one.

    The last line may be half-written: it counts once its newline is there.
    """
    return [_object(line) for line in file.read_bytes().split(b"\n")[:-1][skip:]] if file.is_file() else []


def _object(line: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        value = json.loads(line)
        return value if isinstance(value, dict) else {}
    return {}


def _record_path(study_dir: Path, stage: str, name: str) -> Path:
    return Path(study_dir) / "tracking" / "records" / f"{record_name(stage, name)}.json"
