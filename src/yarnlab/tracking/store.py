"""Where MLflow's data lives: the tracking URI, whether it answers, and the database behind it."""

import fcntl
import os
import re
import socket
import sqlite3
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_ENVIRONMENT = {
    # The first failed request ends a publication: what it missed is on disk and is sent the next time.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
}


# A connection that is kept open goes on to write into a file that was deleted or replaced.
_FOR_FILES = {"MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool"}


def tracking_uri(results: Path) -> str:
    """MLFLOW_TRACKING_URI, else the sqlite database that all studies of `results` share."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_own_database(results)}"


def own_database(results: Path) -> Path | None:
    """The database of the results folder, which moves with it; None where MLFLOW_TRACKING_URI names another store."""
    own = _own_database(results)
    return own if database_file(tracking_uri(results)) == own else None


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
    parts = urlsplit(uri)
    if parts.hostname is None:
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
            health = without_login(uri).rstrip("/") + "/health"
            with urllib.request.urlopen(health, timeout=timeout_s):
                return None
        port = parts.port or _DATABASE_PORTS.get(parts.scheme.partition("+")[0])
        if port is not None:
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
def mlflow_environment(uri: str) -> Iterator[None]:
    """Settings for the MLflow client in this process, for the time of a `with`; the user's own ones win."""
    wanted = _ENVIRONMENT | (_FOR_FILES if database_file(uri) is not None else {})
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def exclusive(path: Path, keep_waiting: Callable[[], bool]) -> Iterator[bool]:
    """Hold the lock file; yields whether it was got before `keep_waiting` said no."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not keep_waiting():
                    yield False
                    return
                time.sleep(0.1)
            except OSError:
                # A shared filesystem without locks: going on is better than never publishing.
                break
            else:
                break
        yield True


@contextmanager
def database_lock(results: Path, wait_s: float) -> Iterator[bool]:
    """One writer at a time for what all studies of `results` share."""
    give_up = time.monotonic() + wait_s
    with exclusive(results / "mlflow.lock", lambda: time.monotonic() < give_up) as held:
        yield held


def initialise(results: Path) -> None:
    """Make the database ready (what `mlflow db upgrade` does), or see whether the server answers.

    Runs before anything publishes, because processes that meet an empty database at once break each other's
    migrations. Never fails a study: what goes wrong is said on stderr; a dead server costs at most 1.5 s.
    """
    results = Path(results)
    uri = tracking_uri(results)
    warning = unreachable(uri, 1.5)
    database = database_file(uri)
    if database is not None:
        try:
            with database_lock(results, wait_s=120), mlflow_environment(uri):
                migrate(database)
        except Exception as error:
            warning = f"The MLflow database {database} could not be made ready: {redacted(str(error))}"
    if warning:
        print(
            f"Warning: {warning} The study goes on; its next start publishes what is missing.",
            file=sys.stderr,
        )


def migrate(database: Path) -> None:
    """Make the database, or bring it to this MLflow's schema, in a copy that then takes its place: never half a schema.

    The caller holds `database_lock`.
    """
    import mlflow.store.db.utils as db
    from sqlalchemy import create_engine, event

    with quiet_loggers():
        if database.exists():
            engine = create_engine(f"sqlite:///{database}")
            current = db._get_schema_version(engine)
            engine.dispose()
            if current == db._get_latest_schema_revision():
                return
        database.parent.mkdir(parents=True, exist_ok=True)
        copy = database.with_name(f".{database.name}.part")
        with suppress(FileNotFoundError):
            copy.unlink()
        if database.exists():
            with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
        engine = create_engine(f"sqlite:///{copy}")
        # A copy may be lost at any moment, so its fifty migrations need not wait for the disk.
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        if db._is_empty_database(engine):
            db._initialize_tables(engine)
        else:
            db._upgrade_db(engine)
        engine.dispose()
        with open(copy, "rb") as file:
            os.fsync(file.fileno())
        copy.replace(database)


@contextmanager
def quiet_loggers() -> Iterator[None]:
    """Keep the libraries' own messages (which may hold a URI with its password) off the terminal."""
    import logging

    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3", "sqlalchemy")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def experiment_created(uri: str, experiment: str) -> int | None:
    """When the experiment was created (ms), read straight from an sqlite file: 0 if it is not there.

    Tells in a millisecond whether the database is still the one that was published to. None where only a
    server can tell.
    """
    database = database_file(uri)
    if database is None:
        return None
    if not database.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            query = "SELECT creation_time FROM experiments WHERE name = ? AND lifecycle_stage = 'active'"
            row = connection.execute(query, (experiment,)).fetchone()
    except sqlite3.DatabaseError as error:
        return None if "lock" in str(error) else 0
    return int(row[0]) if row else 0
