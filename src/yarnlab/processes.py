"""What processes know of each other: whether another one still lives, and what this one was started for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

ON_GPU = "YARNLAB_ON_GPU"  # set for a process that was started to compute on a GPU; on a CPU it would take weeks


def watch(pid: int) -> Callable[[], bool]:
    """A function that says whether the process that has this number now still lives."""
    born = _birth(pid)
    return lambda: born is not None and _birth(pid) == born


def _birth(pid: int) -> str | None:
    """When the process started, to tell it from a later one with the same number; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:  # no /proc (macOS)
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "unknown"
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started
