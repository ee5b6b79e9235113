"""What processes know of each other: whether another one still lives, and what this one was started for and uses."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

ON_GPU = "YARNLAB_ON_GPU"  # set for a process that was started to compute on a GPU; on a CPU it would take weeks
# glibc's malloc: large blocks, which training frees and allocates again at every step, stay with the process. With its
# defaults they go back to the system each time, which costs a third of the throughput on CPUs.
ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}


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


def start_apart(
    command: list[str], log: IO[bytes] | int = subprocess.DEVNULL, settings: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, which Ctrl-C in this terminal does not reach; it writes to `log`.

    settings: variables of its environment, beside those of this process. Raises OSError where no process is to be had.
    """
    env = os.environ | (settings or {})
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=env)


def end_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, however that does (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def hold_environment() -> None:
    """Have `envs/run` change no package of this environment until this process, and those that it forks, have ended.

    Waits while it is changing some. Does nothing where `envs/run` did not make the environment, or without file locks.
    """
    for name in (Path(sys.prefix).name, ".venv-cluster"):
        with suppress(OSError):
            fcntl.flock(os.open(Path(sys.prefix).with_name(f"{name}.lock"), os.O_RDONLY), fcntl.LOCK_SH)
