"""Where artifacts lie: in a folder beside the database, whose address does not name its place.

MLflow notes an experiment's address for good, and makes a relative path absolute. An address with the scheme
`mlflow-artifacts:` leaves the place to the server, so a moved folder keeps its artifacts. MLflow's client takes such an
address only over HTTP: where there is no server, files are put where `serve` lets MLflow look for them.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from yarnlab.tracking.store import is_server

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ARTIFACTS = "mlartifacts"
"""The folder beside the database; what MLflow calls `mlflow-artifacts:/`."""
SCHEME = "mlflow-artifacts:/"


def place_of(results: Path, uri: str, address: str) -> Path | None:
    """The folder that an artifact address stands for; None where MLflow's client is asked instead."""
    if is_server(uri) or not address.startswith(SCHEME):
        return None
    return Path(results).resolve() / ARTIFACTS / address.removeprefix(SCHEME).lstrip("/")


def keep_file(client: "MlflowClient", results: Path, uri: str, run: "Run", file: Path, folder: str) -> None:
    """Make the file an artifact of the run, in `folder` ("" is the top)."""
    place = place_of(results, uri, run.info.artifact_uri)
    if place is None:
        client.log_artifact(run.info.run_id, str(file), folder or None)
        return
    (place / folder).mkdir(parents=True, exist_ok=True)
    shutil.copy(file, place / folder)
