"""Where the artifacts of runs lie: in a folder beside the database, whose address does not name its place.

MLflow notes an experiment's address for good, and makes a relative path absolute. An address with the scheme
`mlflow-artifacts:` leaves the place to the server, so a moved folder keeps its artifacts. MLflow's client takes such an
address only over HTTP: where there is no server, files are copied to where `serve` lets MLflow look for them.
"""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from yarnlab.tracking.store import database_file, is_server, own_database

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

ARTIFACTS = "mlartifacts"
"""The folder beside the database; what MLflow calls `mlflow-artifacts:/`."""
_SCHEME = "mlflow-artifacts:/"


def new_location(study_dir: Path, uri: str) -> str | None:
    """Where a new experiment of the study has its artifacts; None lets a server say it."""
    return None if is_server(uri) else _SCHEME + re.sub(r"[^\w.-]", "_", study_dir.resolve().name, flags=re.ASCII)


def were_left_behind(study_dir: Path, uri: str, experiment: "Experiment") -> bool:
    """Whether the folder was moved since an earlier yarnlab noted an absolute address for the artifacts."""
    results = study_dir.resolve().parent
    address = (results / ARTIFACTS / study_dir.resolve().name).as_uri()
    noted = str(experiment.artifact_location)
    # One that somebody put elsewhere on purpose has another ending.
    same_ending = noted.startswith("file:") and noted.split("/")[-2:] == address.split("/")[-2:]
    return database_file(uri) == own_database(results) and same_ending and noted != address


def keep_file(client: "MlflowClient", results: Path, uri: str, run: "Run", file: Path, folder: str) -> None:
    """Make the file an artifact of the run, in `folder` ("" is the top)."""
    if is_server(uri) or not run.info.artifact_uri.startswith(_SCHEME):
        client.log_artifact(run.info.run_id, str(file), folder or None)
        return
    place = Path(results) / ARTIFACTS / run.info.artifact_uri.removeprefix(_SCHEME) / folder
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, place)
