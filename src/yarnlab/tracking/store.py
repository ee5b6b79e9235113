"""Where MLflow is: the tracking URI, what files and messages call it, whether it answers, where its artifacts lie."""

import os
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
_CLIENT_SETTINGS = SETTINGS | {
    # The first failed request ends a publication: what it missed is on disk and is sent the next time.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # a message may hold the URI with its password
    # A connection that is kept open goes on to write into a file that was deleted or replaced.
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
    "GIT_PYTHON_REFRESH": "quiet",
}
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
ARTIFACTS = "mlartifacts"
"""The folder beside the database; what MLflow calls `mlflow-artifacts:/`."""
SCHEME = "mlflow-artifacts:/"


def tracking_uri(results: Path) -> str:
    """MLFLOW_TRACKING_URI, else the sqlite database that all studies of `results` share."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_own_database(results)}"


def store_name(results: Path) -> str:
    """What files on disk call this MLflow: never with a login, and the folder's own database without its place."""
    uri, own = tracking_uri(results), _own_database(results)
    return own.name if database_file(uri) == own else redacted(uri)


def _own_database(results: Path) -> Path:
    return Path(results).resolve() / "mlflow.db"


def redacted(text: str) -> str:
    """`text` with the user:password@ part of every URI in it replaced by ***@."""
    return re.sub(r"(\w://)[^/\s]*@", r"\1***@", text)


def without_login(uri: str) -> str:
    """The URI without its user:password@ part, for a link that a browser can open."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def is_server(uri: str) -> bool:
    """Whether the URI names an MLflow server, not a database."""
    return uri.startswith(("http://", "https://"))


def database_file(uri: str) -> Path | None:
    """The file of an sqlite URI; None for anything else."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def artifact_repository(results: Path, uri: str, address: str) -> "ArtifactRepository":
    """What keeps the artifacts of a run or model whose artifact address this is.

    MLflow notes an address for good. One with the scheme `mlflow-artifacts:` leaves the place to the server, so that a
    moved folder keeps its artifacts; where there is no server, it is where `serve` lets MLflow look for them.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if not is_server(uri) and address.startswith(SCHEME):
        place = Path(results).resolve() / ARTIFACTS / address.removeprefix(SCHEME).lstrip("/")
        address = place.as_uri()
    return get_artifact_repository(address, tracking_uri=uri)


def unreachable(uri: str, deadline_s: float) -> str | None:
    """Why nothing answers at `uri`, found out within `deadline_s` seconds; None when something does.

    Any HTTP answer but a gateway's 502-504 counts: whether it is the right one, MLflow itself will say.
    """
    if urlsplit(uri).hostname is None:
        return None
    reasons: list[str | None] = []
    # A thread: neither a name lookup nor a server that sends a byte now and then minds a socket timeout.
    patience_s = 0.9 * deadline_s
    probe = threading.Thread(target=lambda: reasons.append(_probe(uri, patience_s)), daemon=True)
    probe.start()
    probe.join(patience_s)
    reason = reasons[0] if reasons else f"no answer within {patience_s:.1f} s"
    return reason and f"The MLflow server {redacted(uri)} cannot be reached ({reason})."


def _probe(uri: str, timeout_s: float) -> str | None:
    parts = urlsplit(uri)
    try:
        if is_server(uri):
            urllib.request.urlopen(without_login(uri).rstrip("/") + "/health", timeout=timeout_s).close()
        elif port := parts.port or _DATABASE_PORTS.get(parts.scheme.partition("+")[0]):
            socket.create_connection((parts.hostname or "", port), timeout=timeout_s).close()
    except urllib.error.HTTPError as answer:
        return f"HTTP status {answer.code}" if answer.code in (502, 503, 504) else None
    except urllib.error.URLError as error:
        # Only the certificate is doubtful, and MLflow has settings of its own for that.
        return None if "CERTIFICATE" in str(error.reason) else str(error.reason)
    except Exception as error:
        return str(error) or type(error).__name__
    return None


@contextmanager
def mlflow_settings(uri: str) -> Iterator[None]:
    """Settings of MLflow's client in this process, for the time of a `with`; the user's own ones win.

    Registering a model looks at the environment's tracking URI, not at the client's.
    """
    settings = _CLIENT_SETTINGS | {"MLFLOW_TRACKING_URI": uri}
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
