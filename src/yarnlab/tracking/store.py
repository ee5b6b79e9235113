"""Where MLflow's data lives: the tracking URI, whether it answers, and the database and artifacts of a results folder.

`mlflow db upgrade` is MLflow's one public way to make or upgrade a database: a process of five seconds, so it runs
only where a client can't open the database. A client's answer costs four seconds of imports, so one is kept with the
database file's time and size, and is asked for again when these change.
"""

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from yarnlab.provenance import read_json, write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

ARTIFACTS = "mlartifacts"
"""The folder beside the database that holds all artifacts; `serve` shows what lies in it."""
SERVED = "mlflow-artifacts:/"
"""How a database calls that folder: whoever serves it says where it is, so it may be moved."""
SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
_CLIENT_SETTINGS = SETTINGS | {
    # The first failed request ends a publication: what it missed is on disk and is sent the next time.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
}
# A connection that is kept open goes on to write into a file that was deleted or replaced.
_FILE_SETTINGS = {"MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool"}
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def tracking_uri(results: Path) -> str:
    """MLFLOW_TRACKING_URI, else the sqlite database that all studies of `results` share."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_own_database(results)}"


def store_name(results: Path, uri: str) -> str:
    """What files on disk call this MLflow: never with a login, and the folder's own database without its place."""
    own = _own_database(results)
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
    """MLflow's client in this process, for the time of a `with`: the user's own settings win, and no library logs.

    Their messages may hold a URI with its password.
    """
    import logging

    wanted = _CLIENT_SETTINGS | (_FILE_SETTINGS if database_file(uri) is not None else {})
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3", "sqlalchemy")]
    levels = [logger.level for logger in loggers]
    os.environ.update(added)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def exclusive(path: Path, keep_waiting: Callable[[], bool]) -> Iterator[bool]:
    """Hold the lock file; yields whether it was got before `keep_waiting` said no."""
    from filelock import FileLock, Timeout  # 0.1 s, which no stage needs

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    held = True
    try:
        lock.acquire(poll_interval=0.1, cancel_check=lambda: not keep_waiting())
    except Timeout:
        held = False
    except OSError:
        pass  # a shared filesystem whose locks are out of order: going on is better than never publishing
    try:
        yield held
    finally:
        lock.release()


@contextmanager
def database_lock(results: Path, wait_s: float) -> Iterator[bool]:
    """One writer at a time for what all studies of `results` share."""
    give_up = time.monotonic() + wait_s
    with exclusive(Path(results).resolve() / "mlflow.lock", lambda: time.monotonic() < give_up) as held:
        yield held


def initialise(results: Path) -> None:
    """Make the database ready, or see whether the server answers.

    Runs before anything publishes, because processes that meet an empty database at once break each other's
    migrations. Never fails a study: what goes wrong is said on stderr; a dead server costs at most 1.5 s.
    """
    uri = tracking_uri(results)
    warning = unreachable(uri, 1.5)
    database = database_file(uri)
    if database is not None:
        try:
            with database_lock(results, wait_s=120):
                upgrade(database)
        except Exception as error:
            warning = f"The MLflow database {database} could not be made ready: {redacted(str(error))}."
    if warning:
        print(f"Warning: {warning} The study goes on; its next start publishes what is missing.", file=sys.stderr)


def upgrade(database: Path) -> None:
    """Make the database, or bring it to this MLflow's schema, in a copy that then takes its place: never half a schema.

    The caller holds `database_lock`. Raises OSError, sqlite3.Error or RuntimeError with MLflow's last words.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    copy = database.with_name(f".{database.name}.part")
    copy.unlink(missing_ok=True)
    if database.exists():
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    before = _modified(copy)
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{copy}"]
    done = subprocess.run(command, capture_output=True, text=True, env=SETTINGS | os.environ, check=False)
    if done.returncode == 0 and _modified(copy) != before:
        copy.replace(database)
        return
    # Up to date: a server that has the database open would go on with the file that was replaced.
    copy.unlink(missing_ok=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2] or f"mlflow db upgrade: status {done.returncode}")


def _modified(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.exists() else None


def connect(uri: str) -> "MlflowClient":
    """A client of the server or database; an sqlite file is made or upgraded first where that is needed.

    The caller holds `database_lock`, within `mlflow_settings`.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    database = database_file(uri)
    if database is None:
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    if not _is_sqlite(database):
        upgrade(database)
    try:
        MlflowClient(uri).search_experiments(max_results=1)
    except MlflowException:  # the schema of another MLflow
        upgrade(database)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _is_sqlite(database: Path) -> bool:
    # MLflow's client takes 50 s to give up a file that is something else.
    try:
        with open(database, "rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError:
        return False


def experiment_name(study_dir: Path) -> str:
    """The study's experiment in MLflow."""
    return f"yarnlab/{study_dir.resolve().name}"


def experiment_created(study_dir: Path, uri: str) -> int | None:
    """When the study's experiment was created (ms); 0 if an sqlite database has none that can be published to.

    Tells whether the database is still the one that was published to. None where only a server can tell, or a
    database does not.
    """
    database = database_file(uri)
    if database is None:
        return None
    if not _is_sqlite(database):
        return 0
    kept = study_dir / "tracking" / "database.json"
    status = database.stat()
    file = {"path": str(database.resolve()), "modified_ns": status.st_mtime_ns, "bytes": status.st_size}
    answer = read_json(kept)
    if answer.get("file") != file:
        answer = {"file": file, "experiment_created": _ask(study_dir, uri)}
        with suppress(OSError):
            write_json(kept, answer)
    created = answer["experiment_created"]
    return None if created is None else int(created)


def _ask(study_dir: Path, uri: str) -> int | None:
    try:
        with mlflow_settings(uri):
            from mlflow import MlflowClient

            experiment = MlflowClient(uri).get_experiment_by_name(experiment_name(study_dir))
    except Exception:  # locked, or the schema of another MLflow, which `initialise` sees to
        return None
    if experiment is None or experiment.lifecycle_stage != "active" or was_left_behind(study_dir, uri, experiment):
        return 0
    return int(experiment.creation_time)


def new_location(study_dir: Path, uri: str) -> str | None:
    """Where a new experiment of the study has its artifacts; None lets a server say it."""
    return None if is_server(uri) else SERVED + re.sub(r"[^\w.-]", "_", study_dir.resolve().name, flags=re.ASCII)


def was_left_behind(study_dir: Path, uri: str, experiment: "Experiment") -> bool:
    """Whether the folder was moved since an earlier yarnlab noted its absolute address as that of the artifacts."""
    results = study_dir.resolve().parent
    address = (results / ARTIFACTS / study_dir.resolve().name).as_uri()
    noted = str(experiment.artifact_location)
    # One that somebody put elsewhere on purpose has another ending.
    same_ending = noted.startswith("file:") and noted.split("/")[-2:] == address.split("/")[-2:]
    return database_file(uri) == _own_database(results) and same_ending and noted != address


def keep_file(client: "MlflowClient", results: Path, uri: str, run: "Run", file: Path, folder: str) -> None:
    """Make the file an artifact of the run, in `folder` ("" is the top).

    MLflow's client takes `mlflow-artifacts:` addresses only over HTTP; without a server between, the file is copied
    to where `serve` lets MLflow look for it.
    """
    if is_server(uri) or not run.info.artifact_uri.startswith(SERVED):
        client.log_artifact(run.info.run_id, str(file), folder or None)
        return
    place = Path(results) / ARTIFACTS / run.info.artifact_uri.removeprefix(SERVED) / folder
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, place)
