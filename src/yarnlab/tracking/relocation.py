"""A results folder that was moved, copied or mounted elsewhere keeps its artifacts in MLflow.

MLflow keeps absolute addresses of artifacts, and has no way to change them but its database.
"""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from yarnlab.tracking.store import database_lock, own_database

_WAIT_S = 10.0


def artifact_location(results: Path, experiment: str) -> str:
    """Where the artifacts of an experiment (yarnlab/<study>) lie beside the database, as a file URI."""
    return (Path(results).resolve() / "mlartifacts" / experiment.rpartition("/")[2]).as_uri()


def relocate(results: Path) -> None:
    """Let every experiment of the results folder's own database, and its runs, lead to the folder as it lies now.

    Costs a millisecond where nothing moved. In one transaction: never an experiment without its runs. Does nothing
    to a database that can't be read or written, or is in use; the next call does it.
    """
    database = own_database(results)
    if database is None or not database.exists():
        return
    with suppress(sqlite3.Error, OSError):
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            if not _moved(connection, results):
                return
        with database_lock(Path(results), _WAIT_S) as held:
            if held:
                with closing(sqlite3.connect(database, timeout=5)) as connection, connection:
                    for experiment, old, new in _moved(connection, results):
                        _rewrite(connection, experiment, old, new)


def _moved(connection: sqlite3.Connection, results: Path) -> list[tuple[int, str, str]]:
    """(experiment's id, where its artifacts were, where they are) of those whose folder was another one."""
    found = connection.execute(
        "SELECT experiment_id, name, artifact_location FROM experiments WHERE name LIKE 'yarnlab/%'"
    )
    places = [(experiment, old or "", artifact_location(results, name)) for experiment, name, old in found]
    # One that somebody put elsewhere on purpose has another ending.
    return [place for place in places if place[1] != place[2] and _end(place[1]) == _end(place[2])]


def _end(location: str) -> list[str]:
    return location.split("/")[-2:]


def _rewrite(connection: sqlite3.Connection, experiment: int, old: str, new: str) -> None:
    connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, experiment))
    connection.execute(
        "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
        "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
        (new, len(old) + 1, experiment, len(old) + 1, f"{old}/"),
    )
