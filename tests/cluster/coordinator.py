"""A Snakemake that submits to the SLURM of the tests, and what they look at and change there."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lab import run

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10"]


# The plugin waits 10 s longer after each look at the queue that found no job finished, up to three minutes: right for
# jobs of hours, and minutes of this test. Nothing else is changed.
SNAKEMAKE = """
import sys
from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
waits = RemoteExecutor.next_seconds_between_status_checks
def wait(self, seconds): self._next_seconds_between_status_checks = min(seconds, 2)
RemoteExecutor.next_seconds_between_status_checks = waits.setter(wait)
sys.argv[0] = "snakemake"
main()
"""


class Coordinator:
    """A running Snakemake; its output goes to a file."""

    def __init__(self, folder: Path, environment: dict[str, str], *arguments: str, project: Path = ROOT) -> None:
        self.log = folder / f"coordinator-{len(list(folder.glob('coordinator-*')))}.log"
        snakemake = [sys.executable, "-c", SNAKEMAKE, "--snakefile", str(project / "Snakefile")]
        study = ["--config", f"study={folder / 'studies' / 'queued.yaml'}"]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*snakemake, "--directory", str(folder), *arguments, *study],
                cwd=project,
                env=environment,
                stdout=output,
                stderr=output,
            )

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 240) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"it ended before {what}:\n{self.text[-4000:]}"
            assert time.monotonic() < until, f"no {what} in {seconds} s:\n{self.text[-4000:]}"
            time.sleep(0.02)

    def finish(self, seconds: float = 600) -> str:
        code = self.process.wait(seconds)
        assert code == 0, self.text[-6000:]
        return self.text


def processes(job: str, *words: str) -> list[int]:
    """Processes of a SLURM job whose command line has all these words one after another."""
    wanted, found = b"\0".join(word.encode() for word in words), []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and wanted in (folder / "cmdline").read_bytes():
                process = int(folder.name)
                found += [process] * (variables(process).get("SLURM_JOB_ID") == job)
        except OSError:  # it has just ended
            continue
    return found


def variables(process: int) -> dict[str, str]:
    """The environment that a process was started with."""
    lines = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def node_of(job: str) -> str:
    return run("squeue", "-h", "-j", job, "-o", "%N").strip()


def start_at_once(job: str) -> None:
    """SLURM lets a requeued job wait for some seconds, until credentials of its first start have expired."""
    run("scontrol", "update", f"jobid={job}", "StartTime=now", check=False)


def job_of(rule: str, state: str = "RUNNING") -> str:
    """The number of the SLURM job of a rule that is in this state, or "" if there is none."""
    for line in run("squeue", "-h", "-t", state, "-o", "%i %k").splitlines():
        number, _, comment = line.partition(" ")
        if comment.startswith(rule):
            return number
    return ""


def end_by_limit(rule: str) -> str:
    """Let the time limit of a rule's running job be now; returns its number."""
    job = job_of(rule)
    run("scontrol", "update", f"jobid={job}", "EndTime=now+1")
    return job


def states(job: str) -> list[str]:
    """All states that accounting has for a job, one for each time that it was started."""
    return run("sacct", "-D", "-X", "-n", "-P", "-j", job, "-o", "state").split()
