"""One process at a time, by a lock file that is gone again afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def exclusively(path: Path, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock file `path`; whoever comes second calls `waiting` and then waits, and a process that dies lets go.

    On a file system without flock the file's being there is the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        if isinstance(lock, FileLock):  # it stays one where flock works; who waits for a removed file takes a new one
            path.unlink(missing_ok=True)
        lock.release()
