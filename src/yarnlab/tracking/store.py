"""Where MLflow is: its URI, whether it answers, its settings, and the sqlite database that a results folder has.

`mlflow db upgrade` is MLflow's one public way to make or upgrade a database: a process of five seconds, so it runs
only where a client can't open the database.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from yarnlab.lazy import mlflow
from yarnlab.provenance import replacing

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
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(results).resolve()}/mlflow.db"


def store_name(results: Path) -> str:
    """What files on disk call this MLflow: never with a login, and the folder's own database without its place."""
    return redacted(tracking_uri(results)).removeprefix(f"sqlite:///{Path(results).resolve()}/")


def redacted(text: str) -> str:
    """`text` with the user:password@ part of every URI in it replaced by ***@."""
    return re.sub(r"(\w://)[^/\s]*@", r"\1***@", text)


def without_login(uri: str) -> str:
    """The URI without its user:password@ part, for a link that a browser can open."""
    return redacted(uri).replace("***@", "", 1)


def is_server(uri: str) -> bool:
    """Whether the URI names an MLflow server, not a database."""
    return uri.startswith(("http://", "https://"))


def database_file(uri: str) -> Path | None:
    """The file of an sqlite URI; None for anything else."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def send_files(client: mlflow.MlflowClient, results: Path, address: str, folder: Path, names: Iterable[str]) -> None:
    """Send files of `folder`, under their names in it, to the artifacts of the run or model with this artifact address.

    MLflow notes an address for good. One with the scheme `mlflow-artifacts:` leaves the place to the server, so that a
    moved folder keeps its artifacts; where there is no server, it is where `serve` lets MLflow look for them.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if not is_server(client.tracking_uri) and address.startswith(SCHEME):
        place = Path(results).resolve() / ARTIFACTS / address.removeprefix(SCHEME).lstrip("/")
        address = place.as_uri()
    repository = get_artifact_repository(address, tracking_uri=client.tracking_uri)
    for name in names:
        repository.log_artifact(str(folder / name), os.path.dirname(name) or None)


def unreachable(uri: str, deadline_s: float) -> str:
    """Why nothing answers at `uri`, found out within `deadline_s` seconds; '' when something does.

    Any HTTP answer but a gateway's 502-504 counts: whether it is the right one, MLflow itself will say.
    """
    if urlsplit(uri).hostname is None:
        return ""
    # A thread: neither a name lookup nor a server that sends a byte now and then minds a socket timeout.
    patience_s = 0.9 * deadline_s
    reasons = [f"no answer within {patience_s:.1f} s"]
    probe = threading.Thread(target=lambda: reasons.append(_probe(uri, patience_s)), daemon=True)
    probe.start()
    probe.join(patience_s)
    return reasons[-1]


def _probe(uri: str, timeout_s: float) -> str:
    """Why there is no answer; '' where there is one."""
    parts = urlsplit(uri)
    try:
        if is_server(uri):
            urllib.request.urlopen(without_login(uri).rstrip("/") + "/health", timeout=timeout_s).close()
        elif port := parts.port or _DATABASE_PORTS.get(parts.scheme.partition("+")[0]):
            socket.create_connection((parts.hostname or "", port), timeout=timeout_s).close()
    except urllib.error.HTTPError as answer:
        return f"HTTP status {answer.code}" if answer.code in (502, 503, 504) else ""
    except Exception as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        return "" if "CERTIFICATE" in reason else reason  # only doubtful: MLflow has settings of its own for that
    return ""


@contextmanager
def opened(results: Path, deadline_s: float, lock_s: float) -> Iterator[str]:
    """The URI of MLflow, for a `with` that has its client's settings, the user's own first, and no other writer.

    There is one at a time for all studies of `results`; where a file system has no locks, a file is one. Processes
    that meet an empty database at once would break each other's migrations. Raises ConnectionError where nothing
    answers within `deadline_s` seconds, filelock's Timeout (an OSError) after `lock_s` seconds.
    """
    from filelock import FileLock  # 0.1 s, which no start of the workflow needs

    uri = tracking_uri(results)
    if reason := unreachable(uri, deadline_s):
        raise ConnectionError(f"it cannot be reached ({reason})")
    # Registering a model looks at the environment's tracking URI, not at the client's.
    settings = _CLIENT_SETTINGS | {"MLFLOW_TRACKING_URI": uri}
    added = {name: value for name, value in settings.items() if name not in os.environ}
    with FileLock(Path(results).resolve() / "mlflow.lock").acquire(timeout=lock_s):
        os.environ.update(added)
        try:
            yield uri
        finally:
            for name in added:
                os.environ.pop(name, None)


def sentence(results: Path, error: Exception) -> str:
    """One line about what went wrong with MLflow, with no password in it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return redacted(f"MLflow at {tracking_uri(results)}: {lines[0].removesuffix('.')}.")


def initialise(results: Path) -> None:
    """Make the database ready, or see whether the server answers, before anything publishes.

    Never fails a study: what goes wrong is said on stderr; a dead server costs at most 1.5 s.
    """
    try:
        with opened(results, 1.5, 120) as uri:
            connect(uri)
    except Exception as error:
        problem = sentence(results, error)
        if database_file(tracking_uri(results)):
            problem += (
                " If its file is damaged, move it away: all that it holds is made again from the records on disk."
            )
        print(f"Warning: {problem} The study goes on; its next start publishes what is missing.", file=sys.stderr)


def connect(uri: str) -> mlflow.MlflowClient:
    """A client of the server or database, within `opened`; an sqlite file is made or upgraded first if need be."""
    database = database_file(uri)
    if database is not None and not database.exists():
        _upgrade(database)
    elif database is not None:
        with closing(sqlite3.connect(database)) as file:
            file.execute("PRAGMA schema_version")  # MLflow's client takes 50 s to give up what is no database
        try:
            mlflow.MlflowClient(uri).search_experiments(max_results=1)
        except mlflow.exceptions.MlflowException:  # the schema of another MLflow
            _upgrade(database)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def _upgrade(database: Path) -> None:
    """Make the database, or bring it to this MLflow's schema, in a copy that then takes its place: never half a schema.

    Raises OSError, sqlite3.Error or RuntimeError with MLflow's last words.
    """
    # On a local disk: MLflow's fifty migrations wait for it after each.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / database.name
        if database.exists():
            with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
        command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{copy}"]
        done = subprocess.run(command, capture_output=True, text=True, env=SETTINGS | os.environ, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().rpartition("\n")[2] or f"mlflow db upgrade: {done.returncode}")
        with replacing(database) as new:
            shutil.copyfile(copy, new)
