"""One writer of one training state, also when a coordinator was restarted while its job goes on.

The lock is a file. On one machine the kernel's lock on it tells whether the holder lives, and ends with the holder.
Across machines the file's content does: it names the holder's host and SLURM job.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from yarnlab.errors import UserError

STEP_S = 1.0  # between two looks at a held lock
MESSAGE_S = 300.0  # between two messages while waiting
SETTLE_S = 2.0  # after a takeover across machines: whoever wrote last has it
# SLURM's states of a job of which no process lives; a requeued one is PENDING, and will wait for whoever took over.
FINISHED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PENDING", "PREEMPTED",
    "REQUEUED", "REQUEUE_HOLD", "TIMEOUT",
}  # fmt: skip


class StateBusy(UserError):
    """The state may be in use, and whether it is can't be found out; the message says what to look at."""


@contextmanager
def exclusive(state: Path, *, step_s: float = STEP_S) -> Iterator[bool]:
    """Hold the state's lock; yields whether another job had to be waited for, which may have done the work.

    Waits while a live process of this machine or a live SLURM job holds it, with a message every now and then; takes
    over from a dead one. Raises StateBusy if the holder is on another machine and belongs to no SLURM job.
    """
    waited, said = False, -MESSAGE_S
    while (file := _acquired(state)) is None:
        waited = True
        if time.monotonic() - said >= MESSAGE_S:
            print(f"waiting for {_described(_holder(state))}, which trains from {state}", file=sys.stderr, flush=True)
            said = time.monotonic()
        time.sleep(step_s)
    try:
        yield waited
    finally:
        with suppress(OSError):  # the folder may be gone with the finished model's state
            os.truncate(file, 0)
        os.close(file)


def _acquired(state: Path) -> int | None:
    """The locked file with this process named in it, or None if a live job holds it."""
    state.mkdir(parents=True, exist_ok=True)
    file = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if _lock(file, state) and _is_current(file, state) and _take(file, state):
            held, file = file, -1
            return held
        return None
    finally:
        if file >= 0:
            os.close(file)


def _lock(file: int, state: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: the process's number must do
        holder = _holder(state)
        return not (holder and holder["host"] == os.uname().nodename and _lives(holder["pid"]))
    return True


def _is_current(file: int, state: Path) -> bool:
    """Whether the file is still the one of that name: a finished job removes its state, and the lock with it."""
    try:
        return os.fstat(file).st_ino == (state / "lock").stat().st_ino
    except OSError:
        return False


def _take(file: int, state: Path) -> bool:
    """Write this process's name into the lock unless a live job elsewhere stands there."""
    me: dict[str, Any] = {"host": os.uname().nodename, "pid": os.getpid(), "slurm_job": os.environ.get("SLURM_JOB_ID")}
    holder = _holder(state)
    elsewhere = holder is not None and holder["host"] != me["host"]
    if holder is not None and elsewhere and not _is_over(holder, me["slurm_job"], state):
        return False
    os.truncate(file, 0)
    os.pwrite(file, json.dumps(me).encode(), 0)
    os.fsync(file)
    if elsewhere:
        time.sleep(SETTLE_S)
    return _holder(state) == me


def _holder(state: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((state / "lock").read_text(encoding="utf-8"))
        return {key: found[key] for key in ("host", "pid", "slurm_job")}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # free, or written halfway by a job that died of it


def _is_over(holder: dict[str, Any], my_job: str | None, state: Path) -> bool:
    """Whether a holder on another machine has ended."""
    job = holder["slurm_job"]
    if job is not None and job == my_job:
        return True  # SLURM requeued this very job: its former process is dead
    if job is None or shutil.which("squeue") is None:
        raise StateBusy(
            f"{state} was last used by {_described(holder)}, and from here it can't be told whether that has ended. "
            f"If it has, remove {state / 'lock'} and run the same command again"
        )
    done = subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True, check=False)
    if done.returncode:
        if "Invalid job id" in done.stderr:  # SLURM forgets jobs some minutes after their end
            return True
        print(f"squeue does not answer ({done.stderr.strip()}); asking again", file=sys.stderr, flush=True)
        return False
    return set(done.stdout.split()) <= FINISHED


def _described(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "another process"
    job = f"SLURM job {holder['slurm_job']}, " if holder["slurm_job"] else ""
    return f"{job}process {holder['pid']} on {holder['host']}"


def _lives(pid: int) -> bool:
    from yarnlab.processes import watch

    return watch(pid)()
