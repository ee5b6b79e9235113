"""One process at a time, by a lock file that is gone again afterwards."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def exclusively(lock: Path, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the file `lock`; whoever comes second calls `waiting` and then waits, and a process that dies lets go.

    A file of its own and not the folder: NFS locks only what is open for writing.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        if _is(handle, lock):
            break
        os.close(handle)  # its holder has removed it meanwhile, and somebody else may hold the new one
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _is(handle: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False
