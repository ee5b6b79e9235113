"""What a Snakemake that was killed leaves in the way of the next one: its locks, which name no process."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from yarnlab.training.lock import is_local

LOCKS = Path(".snakemake/locks")
_held: list[FileLock] = []  # until this process has ended, however it does


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
