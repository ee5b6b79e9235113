"""A study's experiment in MLflow: what it is, and the view of it that the printed link opens.

MLflow's page reads three tags. `mlflow.experimentKind` decides whether it shows model training or language-model
applications; `mlflow.note.content` is the description; `mlflow.sharedViewState.<key>` is a view that was saved there,
opened by `viewStateShareKey=<key>` in the address.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

from yarnlab.lazy import entities, mlflow
from yarnlab.provenance import read_json
from yarnlab.tracking.store import SCHEME, is_server

_VIEW = "yarnlab"
_COLUMNS = {
    "tags": ("stage", "method", "scale"),
    "metrics": (
        "loss",
        "perplexity/nll at L",
        "perplexity/nll at sL",
        "perplexity/nll at longest",
        "passkey at sL",
        "passkey at longest",
        "cost/train/seconds",
    ),
    "attributes": ("Created", "Duration"),
}
# title: metric, and what it is drawn over: steps (which are lengths for an evaluation), or another metric
_CHARTS = (
    ("Training loss by step", "loss", "", "linear"),
    ("Training loss by tokens", "loss", "tokens", "linear"),
    ("Perplexity by length", "perplexity", "", "log"),
    ("NLL by length", "perplexity/nll", "", "log"),
    ("Passkey accuracy by length", "passkey", "", "log"),
)


def study_experiment(client: mlflow.MlflowClient, study_dir: Path) -> entities.Experiment:
    """The study's experiment, made or brought back from MLflow's trash when needed, with its description and view.

    A new one has its artifacts below an address that does not name the folder's place, so the folder may move; a
    server says itself where they are.
    """
    name = f"yarnlab/{study_dir.resolve().name}"
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    if experiment is None:
        place = re.sub(r"[^\w.-]", "_", study_dir.resolve().name, flags=re.ASCII)
        made = client.create_experiment(
            name, artifact_location=None if is_server(client.tracking_uri) else SCHEME + place
        )
        experiment = client.get_experiment(made)
    for key, value in _tags(study_dir, experiment.creation_time).items():
        if experiment.tags.get(key) != value:
            client.set_experiment_tag(experiment.experiment_id, key, value)
    return experiment


def view_path(experiment_id: str) -> str:
    """What follows the dashboard's address in the link to the study's runs."""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={_VIEW}"


def _tags(study_dir: Path, created_ms: int | None) -> dict[str, str]:
    study = read_json(study_dir / "study.json")
    description = [f"**{study.get('title', study_dir.resolve().name)}**", *study.get("notes", [])]
    description += [
        "One run for each model: its training by step, its evaluations as curves by length (open a run's *Model "
        "metrics*, or select runs and the chart view). Their parent is the execution of the study, with its report and "
        "figures under *Artifacts*. Checkpoints are under *Models*."
    ]
    view = {"name": "Models", "createdAt": created_ms, "updatedAt": created_ms, "state": _packed(_view())}
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": "\n\n".join(description),
        f"mlflow.sharedViewState.{_VIEW}": json.dumps(view),
    }


def _packed(state: dict[str, Any]) -> str:
    """As MLflow's page packs a view, since a tag holds 5,000 characters."""
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()


def _view() -> dict[str, Any]:
    """Runs, newest first, with the columns that tell models apart, and the charts that compare them."""
    columns = [f"{kind}.`{key}`" for kind, keys in _COLUMNS.items() for key in keys]
    return {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, 110),
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "arm"}]},
        "compareRunSections": [{"uuid": _VIEW, "name": "Models compared", "display": True, "isReordered": True}],
        "isAccordionReordered": True,  # else sections are put in the order of their names
        "compareRunCharts": [_chart(i, *chart) for i, chart in enumerate(_CHARTS)],
    }


def _chart(number: int, title: str, metric: str, over: str, scale: str) -> dict[str, Any]:
    """What differs from the charts that MLflow's page makes by itself."""
    return {
        "uuid": f"{_VIEW}-{number}",
        "type": "LINE",
        "runsCountToCompare": 100,
        "metricSectionId": _VIEW,
        "displayName": title,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisScaleType": scale,
        "xAxisKey": "metric" if over else "step",
        "selectedXAxisMetricKey": over,
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": True,
    }
