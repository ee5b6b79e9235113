"""What Snakemake itself would stumble over: folders that can't be written, few open files, locks of a killed one."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from filelock import FileLock, Timeout

from yarnlab.errors import UserError
from yarnlab.training.lock import is_local

LOCKS = Path(".snakemake/locks")
OPEN_FILES = 256  # that a process may have open; with 18 Snakemake ends in a traceback, downloads have some 30
_held: list[FileLock] = []  # until this process has ended, however it does


class NotWritable(UserError):
    """Snakemake would end in a traceback, since a folder can't be written."""


class TooFewOpenFiles(UserError):
    """Snakemake or a job would end in a traceback, since it may not open as many files as it needs."""


def check_writable(*, dry: bool, locks: Path = LOCKS) -> None:
    """Raises NotWritable where Snakemake can't keep its notes: it makes folders for them, and locks in a real run."""
    if not (dry and locks.exists()):
        _check(locks, "Snakemake keeps its notes there")


def check_results(root: Path) -> None:
    """Raises NotWritable where no results can be written to a study's folder."""
    _check(root, "the results go there")


def _check(folder: Path, why: str) -> None:
    place = next(there for there in (folder, *folder.parents) if there.exists())
    if not os.access(place, os.W_OK):
        raise NotWritable(
            f"{place.resolve()} can't be written, and {why}: have whoever owns it run the study, or work in another "
            "folder (--directory FOLDER)"
        )


def raise_open_files() -> None:
    """Have this process, and those that it starts, open as many files as they need, if they may.

    Raises TooFewOpenFiles where the machine does not let them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= OPEN_FILES:
        return
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        raise TooFewOpenFiles(
            f"a process may have {hard} files open here (`ulimit -Hn`), and {OPEN_FILES} are needed: have that limit "
            "raised"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))


def take_over(root: str, locks: Path = LOCKS) -> None:
    """Remove Snakemake's locks on files of `root`, a study's results folder, if whoever set them is dead.

    So after a hard kill (of a container, a spot machine, the power) the same command goes on. Every coordinator of the
    study holds a lock of the kernel's, which ends with it; where others than this machine's kernel write the files too,
    or while another one lives, Snakemake's locks stay.
    """
    try:
        locks.parent.mkdir(exist_ok=True)
        lock = FileLock(locks.with_name(f"coordinator-{Path(root).name}.lock"), fallback_to_soft=False)
        lock.acquire(blocking=False)
    except (Timeout, OSError, NotImplementedError):  # another one lives; a folder that is read-only, or without locks
        return
    _held.append(lock)
    if is_local(locks.parent):
        for file in locks.glob("*.lock"):
            if any(line.startswith(f"{root}/") for line in file.read_text(encoding="utf-8").splitlines()):
                file.unlink(missing_ok=True)
