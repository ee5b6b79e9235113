"""One writer of one training state, also when a coordinator was restarted while its job goes on.

The lock is a file. filelock holds the kernel's lock on it, which ends with the holder. On a file system that several
machines share that is not enough, so the file's content counts there too: it names the holder's host and SLURM job.
"""

from __future__ import annotations

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

import psutil
from filelock import FileLock, Timeout

from yarnlab.errors import UserError
from yarnlab.processes import watch

STEP_S = 1.0  # between two looks at a held lock
MESSAGE_S = 300.0  # between two messages while waiting
SETTLE_S = 2.0  # after a takeover across machines: whoever wrote last has it
# File systems of one kernel: whoever gets the lock there knows that its holder has ended, whatever host name that had
# (a container's, or a machine's that this disk was moved from).
LOCAL = {"apfs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "overlay", "tmpfs", "ufs", "xfs", "zfs"}
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
    lock, me = FileLock(state / "lock", fallback_to_soft=False), _me()
    while not _acquired(lock, me, state):
        waited = True
        if time.monotonic() - said >= MESSAGE_S:
            print(f"waiting for {_described(_holder(state))}, which trains from {state}", file=sys.stderr, flush=True)
            said = time.monotonic()
        time.sleep(step_s)
    try:
        yield waited
    finally:
        with suppress(OSError):  # the folder may be gone with the finished model's state
            if _holder(state) == me:
                os.truncate(state / "lock", 0)
        lock.release()


def _me() -> dict[str, Any]:
    return {"host": os.uname().nodename, "pid": os.getpid(), "slurm_job": os.environ.get("SLURM_JOB_ID")}


def _acquired(lock: FileLock, me: dict[str, Any], state: Path) -> bool:
    """Whether the lock is held now, with this process named in it, since no live job holds it."""
    state.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(blocking=False)
        local = is_local(state)
    except Timeout:
        return False
    except OSError:  # a file system without the kernel's locks: the process's number must do
        local, holder = False, _holder(state)
        if holder and holder["host"] == me["host"] and watch(holder["pid"])():
            return False
    taken = False
    try:
        taken = _taken(me, state, local)
    finally:
        if not taken:
            lock.release()
    return taken


def _taken(me: dict[str, Any], state: Path, local: bool) -> bool:
    """Write this process's name into the lock unless a live job elsewhere stands there."""
    holder = _holder(state)
    elsewhere = holder is not None and holder["host"] != me["host"] and not local
    if holder is not None and elsewhere and not _is_over(holder, me["slurm_job"], state):
        return False
    (state / "lock").write_text(json.dumps(me), encoding="utf-8")
    if elsewhere:
        time.sleep(SETTLE_S)
    return _holder(state) == me


def is_local(folder: Path) -> bool:
    """Whether all that write to the folder have the kernel of this machine, which knows of each other's locks."""
    return _file_system(folder) in LOCAL


def _file_system(folder: Path) -> str:
    """The type of the file system that holds the folder; empty if it can't be told."""
    real = folder.resolve()
    mounted = [one for one in psutil.disk_partitions(all=True) if real.is_relative_to(one.mountpoint)]
    return max(mounted, key=lambda one: len(one.mountpoint)).fstype.lower() if mounted else ""


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
