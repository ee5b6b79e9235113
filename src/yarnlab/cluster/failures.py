"""Why SLURM or the kernel ended jobs, and what to do about it: the Snakefile asks after a failure.

Each is one line with rule, number and fix. What failed by itself has said so in its own log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from yarnlab.cluster.slurm import PROFILE
from yarnlab.errors import killed

# What ended a job, by the state that SLURM gives it, and what to do.
_ADVICE = {
    "OUT_OF_MEMORY": "it used more memory than it asked for: raise its mem_mb in {profile}, then run the same command.",
    "TIMEOUT": "its time limit ended before its work: run the same command, a training continues where it was saved, "
    "an evaluation with what it had not computed; if it gets no further, it needs a longer runtime in {profile}.",
    "NODE_FAIL": "its node failed: run the same command.",
    "PREEMPTED": "a job of higher priority took its place: run the same command to continue.",
    "CANCELLED": "it was cancelled (scancel): run the same command to continue.",
}
_RULE = re.compile(r"Error in (?:local)?rule (\w+)")
_ENDED = re.compile(r"SLURM-job '([^']+)' failed, SLURM status is: '(\w+)")
_LOGS = re.compile(r"^\s+log: (.+?)(?: \(check log file.*)?$")
# Without cgroups, SLURM ends a job that outgrows its memory itself, and calls it FAILED.
_MEMORY = re.compile(r"exceeded (?:job )?memory limit|oom.?kill", re.IGNORECASE)

# Of a job of this machine: before the rule is named, and without a word of the job itself.
_KILLED = re.compile(r"died with <Signals\.SIGKILL|returned non-zero exit status 137\b")


def explain(logs: Iterable[str | Path]) -> list[str]:
    """One line for each job that was killed or that SLURM ended, with rule and fix; `logs` are Snakemake's."""
    rule, job, state, lines, unnamed = "?", "", "", [], False
    for log in logs:
        for line in Path(log).read_text(encoding="utf-8", errors="replace").splitlines():
            if found := _RULE.search(line):
                rule, job, state = found[1], "", ""
                if unnamed:
                    lines.append(killed(f"rule {rule}: a job"))
                unnamed = False
            elif _KILLED.search(line):
                unnamed = True
            elif found := _ENDED.search(line):
                job, state = found[1], found[2]
                if state in _ADVICE:
                    lines.append(_explanation(rule, job, state))
            elif state == "FAILED" and (found := _LOGS.match(line)):
                files = [Path(name) for name in found[1].split(", ") if Path(name).stem == job]
                if any(file.exists() and _MEMORY.search(file.read_text(errors="replace")) for file in files):
                    lines.append(_explanation(rule, job, "OUT_OF_MEMORY"))
    return list(dict.fromkeys(lines))


def _explanation(rule: str, job: str, state: str) -> str:
    return f"rule {rule}, SLURM job {job}: {_ADVICE[state].format(profile=PROFILE)}"
