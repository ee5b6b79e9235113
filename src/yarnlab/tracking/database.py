"""The sqlite database of a results folder: made, upgraded, and written by one process at a time.

`mlflow db upgrade` is MLflow's one public way to make or upgrade a database: a process of five seconds, so it runs
only where a client can't open the database.
"""

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING

from yarnlab.provenance import replacing
from yarnlab.tracking.store import SETTINGS, database_file, mlflow_settings, redacted, tracking_uri, unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient


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


def database_lock(results: Path, wait_s: float) -> AbstractContextManager[bool]:
    """One writer at a time for what all studies of `results` share."""
    give_up = time.monotonic() + wait_s
    return exclusive(Path(results).resolve() / "mlflow.lock", lambda: time.monotonic() < give_up)


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
            with database_lock(results, wait_s=120), mlflow_settings(uri):
                connect(uri)
        except Exception as error:
            warning = (
                f"The MLflow database {database} could not be made ready: {redacted(str(error))}. "
                "If it is damaged, move it away: all that it holds is made again from the records on disk."
            )
    if warning:
        print(f"Warning: {warning} The study goes on; its next start publishes what is missing.", file=sys.stderr)


def connect(uri: str) -> "MlflowClient":
    """A client of the server or database; an sqlite file is made or upgraded first where that is needed.

    The caller holds `database_lock`, within `mlflow_settings`.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    database = database_file(uri)
    if database is not None and not database.exists():
        _upgrade(database)
    elif database is not None:
        with closing(sqlite3.connect(database)) as file:
            file.execute("PRAGMA schema_version")  # MLflow's client takes 50 s to give up what is no database
        try:
            MlflowClient(uri).search_experiments(max_results=1)
        except MlflowException:  # the schema of another MLflow
            _upgrade(database)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


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
        done = subprocess.run(command, capture_output=True, text=True, env=SETTINGS | environ, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().rpartition("\n")[2] or f"mlflow db upgrade: {done.returncode}")
        with replacing(database) as new:
            shutil.copyfile(copy, new)
