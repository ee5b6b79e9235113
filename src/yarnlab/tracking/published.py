"""What MLflow is known to have of a study, and how often something was missing there.

<study_dir>/tracking/published.json   {MLflow's store: {run: what it has of it}}
<study_dir>/tracking/runs.json        {"<stage>.<name>": where its MLflow run is}
<study_dir>/tracking/failures         how many explicit publications fell short
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yarnlab.provenance import read_json, write_json
from yarnlab.tracking.database import experiment_created
from yarnlab.tracking.records import load_records, record_name
from yarnlab.tracking.store import store_name, tracking_uri


def load_published(study_dir: Path, uri: str) -> dict[str, dict[str, Any]]:
    """What this MLflow has: {run: {experiment_id, experiment_created, run_id, lines, finished, ended}}.

    Also of executions that have no record any more, until their runs are marked as superseded.
    """
    published: dict[str, dict[str, dict[str, Any]]] = read_json(study_dir / "tracking" / "published.json")
    return published.get(store_name(study_dir.parent, uri), {})


def save_published(study_dir: Path, uri: str, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace what is known of this MLflow; other tracking URIs keep theirs."""
    path = study_dir / "tracking" / "published.json"
    write_json(path, {**read_json(path), store_name(study_dir.parent, uri): entries})


def is_lost(study_dir: Path, uri: str) -> bool:
    """Whether what was published is gone: the database was deleted or replaced. A server is not asked."""
    published = load_published(study_dir, uri).values()
    created = experiment_created(study_dir, uri) if published else None
    return created is not None and any(entry.get("experiment_created") != created for entry in published)


def runs_table(study_dir: Path) -> dict[str, dict[str, str]]:
    """{"<stage>.<name>": {"experiment_id", "run_id", "url_path"}} of every record that is in MLflow.

    `url_path` is what follows the dashboard's address: "#/experiments/1/runs/0f…".
    """
    study_dir = Path(study_dir)
    entries = load_published(study_dir, tracking_uri(study_dir.parent))
    table = {}
    for record in load_records(study_dir):
        if entry := entries.get(record["run"]):
            experiment_id, run_id = entry["experiment_id"], entry["run_id"]
            url_path = f"#/experiments/{experiment_id}/runs/{run_id}"
            row = {"experiment_id": experiment_id, "run_id": run_id, "url_path": url_path}
            table[record_name(record["stage"], record["name"])] = row
    return dict(sorted(table.items()))


def write_runs(study_dir: Path) -> None:
    """Write `runs_table` to tracking/runs.json, where the report looks for it."""
    write_json(Path(study_dir) / "tracking" / "runs.json", runs_table(study_dir))


def publication_state(study_dir: Path) -> str:
    """Which MLflow is published to, and how often something was missing there: a parameter of the rule that publishes.

    What is lost counts from the moment that it is, and stays counted when it is published again; so the rule runs
    once more after a loss or a failure, and never after a success.
    """
    study_dir = Path(study_dir)
    uri = tracking_uri(study_dir.parent)
    missed = failed_publications(study_dir) + is_lost(study_dir, uri)
    return f"{store_name(study_dir.parent, uri)} {missed}"


def failed_publications(study_dir: Path) -> int:
    """How many times something stayed unpublished or was lost, ever."""
    try:
        return int((Path(study_dir) / "tracking" / "failures").read_text())
    except (OSError, ValueError):
        return 0


def count_failed_publication(study_dir: Path) -> None:
    """Add one to `failed_publications`."""
    write_json(study_dir / "tracking" / "failures", failed_publications(study_dir) + 1)
