"""The process beside a running study that keeps MLflow up to date, a little below the study's priority.

At the lowest one, beside stages that use all cores, it got a hundredth of a core and held the lock of the database for
minutes, so that the study's last publication gave up. It therefore spares CPU time by pauses, and holds the lock for a
part of the runs at once.
"""

import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from yarnlab.processes import start_apart, watch
from yarnlab.provenance import now
from yarnlab.tracking.executions import end_execution, start_execution
from yarnlab.tracking.publication import PublishResult, publish
from yarnlab.tracking.records import write_plan

_LONGEST_WAIT_S = 300.0
_PATIENCE_S = 15.0  # of a process that waits for the lock: a fourth of what it has
_NICENESS = 5  # more than the study's: a fourth of a core beside stages that use all
_CPU_SHARE = 0.05  # of one core, over publications and pauses


def start_mirror(study_dir: Path, planned: Iterable[tuple[str, str]]) -> None:
    """Start `follow` for the calling process, detached from it and from the terminal, and return at once.

    planned: (stage, name) of all that the study runs. It writes to tracking/mirror.log. That it can't start is no
    reason to stop a study: said on stderr.
    """
    study_dir = Path(study_dir).resolve()
    command = [sys.executable, "-m", "yarnlab", "mirror", "--study-dir", str(study_dir), "--parent", str(os.getpid())]
    try:
        write_plan(study_dir, planned)
        with open(study_dir / "tracking" / "mirror.log", "ab") as log:
            # Ctrl-C must not cost the last publication. One thread: it must not compete with a training for cores.
            start_apart(command, log, {"OMP_NUM_THREADS": "1"})
    except OSError as error:
        print(f"Warning: no live MLflow curves ({error}); they are published at the end.", file=sys.stderr)


def follow(study_dir: Path, *, parent_pid: int, interval_s: float = 5.0) -> None:
    """Publish every `interval_s` seconds until the process `parent_pid` is gone, then once more.

    One follower per study at a time: a second one waits for the first, which ends with its own parent. While
    nothing gets through to MLflow the intervals double up to five minutes, and the log says so once; up to three
    times as long they are where a publication costs much.
    """
    from filelock import FileLock, Timeout

    study_dir, parent_lives = Path(study_dir), watch(parent_pid)
    with suppress(OSError):
        os.nice(_NICENESS)
    lock = FileLock(study_dir / "tracking" / "mirror.lock")
    with suppress(Timeout), lock.acquire(poll_interval=0.1, cancel_check=lambda: not parent_lives()):
        start_execution(study_dir, parent_pid)
        last, failures, warned, result = False, 0, False, PublishResult()
        while not last or (result.pending and not result.warning):
            last = not parent_lives()  # asked before publishing, so that what the parent did last is seen
            if last:
                end_execution(study_dir)
            began_s = time.process_time()
            result = publish(study_dir, deadline_s=5.0, patience_s=_PATIENCE_S)
            failures = failures + 1 if result.warning and not result.published else 0
            if bool(result.warning) != warned:
                warned = not warned
                failed = f"{result.warning} Trying again until the study ends; what is missing stays on disk."
                _log(failed if warned else f"MLflow is up to date again ({result.published} runs).")
            sparing_s = min((time.process_time() - began_s) / _CPU_SHARE, 3 * interval_s)
            wake = time.monotonic() + min(max(interval_s * 2**failures, sparing_s), _LONGEST_WAIT_S)
            while not last and time.monotonic() < wake and parent_lives():
                time.sleep(min(0.5, interval_s))
        if result.warning:
            _log(f"{result.pending} runs are not published; the next start of the study does it.")


def _log(message: str) -> None:
    print(f"{now()} {message}", flush=True)
