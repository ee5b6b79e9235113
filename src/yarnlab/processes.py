"""What processes know of each other: whether another one still lives, and what this one was started for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

ON_GPU = "YARNLAB_ON_GPU"  # set for a process that was started to compute on a GPU; on a CPU it would take weeks


def watch(pid: int) -> Callable[[], bool]:
    """A function that says whether the process that has this number now still lives; a zombie does not."""
    import psutil

    ended = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    process: psutil.Process | None = None
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)  # knows its start time, to tell it from a later one with the same number

    def lives() -> bool:
        with suppress(psutil.NoSuchProcess):
            return process is not None and process.is_running() and process.status() not in ended
        return False

    return lives
