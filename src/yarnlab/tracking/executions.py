"""Executions of a study: one file for each `snakemake` call that runs something, tracking/executions/<id>.json."""

import os
import shlex
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from yarnlab.provenance import git_state, hardware, now, read_record, remove_drafts, write_record

Execution = dict[str, Any]
"""id, started, ended (None while it runs), user, command, git, hardware; `killed` where nobody noted its end."""


def start_execution(study_dir: Path, pid: int) -> None:
    """Note that the process `pid` runs the study: who, since when, where, with which command and commit."""
    import psutil

    remove_drafts(_file(study_dir, "*"))  # none of the former ones is written again
    with suppress(psutil.NoSuchProcess, OSError):
        process = psutil.Process(pid)
        started = datetime.fromtimestamp(process.create_time(), UTC).isoformat(timespec="milliseconds")
        started = started.replace("+00:00", "Z")
        program, *arguments = [part for part in process.cmdline() if not part.endswith(("/python", "/python3"))]
        execution = {
            "id": started.replace(":", ""),
            "started": started,
            "ended": None,
            "user": process.username(),
            "command": shlex.join([os.path.basename(program), *arguments]),
            "git": git_state(),
            "hardware": hardware(),
        }
        write_record(_file(study_dir, execution["id"]), execution)


def end_execution(study_dir: Path) -> None:
    """Note the end of the newest execution."""
    for execution in load_executions(study_dir)[-1:]:
        if execution["ended"] is None:
            write_record(_file(study_dir, execution["id"]), execution | {"ended": now()})


def load_executions(study_dir: Path) -> list[Execution]:
    """All executions, oldest first. One that another follows has ended, even if it was killed with its mirror."""
    executions = [found for path in sorted(_file(study_dir, "").parent.glob("*.json")) if (found := read_record(path))]
    for earlier, later in pairwise(executions):
        if earlier["ended"] is None:
            earlier |= {"ended": later["started"], "killed": True}
    return executions


def of_moment(executions: list[Execution], moment: str) -> str:
    """The id of the execution in which something started; '' before the first one."""
    return max((execution["id"] for execution in executions if execution["started"] <= moment), default="")


def _file(study_dir: Path, execution: str) -> Path:
    return study_dir / "tracking" / "executions" / f"{execution}.json"
