"""One run of a stage: what it reads and makes is recorded, and its manifest is written last.

A manifest on disk means that the stage finished and every output it names exists. Stages record their start and end
on disk for tracking, and never talk to a tracking server.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yarnlab.provenance import (
    git_state,
    hardware,
    lock_digest,
    now,
    package_versions,
    peak_memory_bytes,
    project_path,
    read_json,
    recorded,
    sha256_of,
    write_record,
)
from yarnlab.study.sections import digest
from yarnlab.tracking import records
from yarnlab.tracking.system import sampled


@dataclass
class StageRun:
    """One execution of a stage: what it read and made, collected while it runs and written as its manifest."""

    study_dir: Path
    stage: str
    name: str
    spec: Mapping[str, Any]
    code: str
    manifest: Path
    inputs: list[Path] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    metrics_file: Path | None = None
    state: str = ""  # names what an execution that ended early left to go on from; another one begins anew
    run: str = ""
    outputs: list[Path] = field(default_factory=list)
    artifacts: list[Path] = field(default_factory=list)
    datasets: list[dict[str, str]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def relative(self, path: Path) -> str:
        """A file's place in the results folder; folders in it may be links to other disks."""
        return Path(os.path.relpath(path, self.study_dir)).as_posix()

    def add_dataset(self, manifest: Path, context: str) -> None:
        """A corpus that this stage read, by the digest in that corpus's own manifest."""
        written = json.loads(manifest.read_text(encoding="utf-8"))
        for dataset in written["datasets"]:
            self.datasets.append({**dataset, "context": context})


def state_key(run: StageRun, *resolved: Any) -> str:
    """What an execution that ended early must have in common with `run` to be continued by it.

    Specification, code, what was read, and `resolved` (JSON): what this machine decides where the specification leaves
    it open. Inputs count by what they hold: a parent that was made again with the same weights is the same parent.
    """
    held = [json.loads(manifest.read_text(encoding="utf-8"))["outputs"] for manifest in run.inputs]
    return digest([dict(run.spec), run.code, held, *resolved])


@contextmanager
def stage_run(run: StageRun, keep: Callable[[dict[str, Any]], None] | None = None) -> Iterator[StageRun]:
    """Record the start, let the stage work, write the manifest; a failure is recorded too and leaves no manifest.

    `keep` gets the manifest's content before it is written: what it notes is there when the stage counts as finished.
    The manifest names the inputs as they were at the start. What can't be recorded (a full disk) is MLflow's loss: it
    takes neither the place of the stage's own error nor a finished stage's manifest.
    """
    started, clock = now(), time.monotonic()
    run.run = records.record_start(
        run.study_dir,
        stage=run.stage,
        name=run.name,
        study=run.study_dir.name,
        study_sha256=os.environ.get("YARNLAB_STUDY_SHA256", ""),
        spec=dict(run.spec),
        state=run.state,
        tags=run.tags,
        manifest=run.relative(run.manifest),
        metrics_file=run.relative(run.metrics_file) if run.metrics_file else None,
    )
    try:
        inputs = {project_path(path): sha256_of(path) for path in run.inputs}
        held = {project_path(path): digest(read_json(path).get("outputs")) for path in run.inputs}
        with sampled(run.study_dir, f"{run.stage}.{run.name}"):
            yield run
        manifest = _manifest(run, inputs, held, started, time.monotonic() - clock)
        if keep is not None:
            keep(manifest)
        write_record(run.manifest, manifest)
    except BaseException as error:
        with suppress(OSError):
            records.record_end(run.study_dir, run.stage, run.name, error=f"{type(error).__name__}: {error}")
        raise
    artifacts = [run.relative(path) for path in run.artifacts]
    try:
        records.record_end(run.study_dir, run.stage, run.name, artifacts=artifacts)
    except OSError as error:
        print(f"warning: {run.stage} {run.name} is made; MLflow won't see its end: {error}", file=sys.stderr)


def _manifest(
    run: StageRun, inputs: dict[str, str], held: dict[str, str], started: str, seconds: float
) -> dict[str, Any]:
    return {
        "manifest": 1,
        "stage": run.stage,
        "name": run.name,
        "study": run.study_dir.name,
        "study_sha256": os.environ.get("YARNLAB_STUDY_SHA256", ""),
        "run": run.run,
        "code": run.code,
        "state": run.state,
        "spec": dict(run.spec),
        "spec_sha256": digest(dict(run.spec)),
        "tags": run.tags,
        "seeds": run.seeds,
        "inputs": inputs,
        "inputs_hold": held,  # of their outputs: an input may be made again to the same content
        "outputs": {run.relative(path): recorded(path) for path in run.outputs},
        "step_log": {run.relative(path): recorded(path) for path in (run.metrics_file,) if path and path.is_file()},
        "datasets": run.datasets,
        "metrics": run.metrics,
        "facts": run.facts,
        "git": git_state(),
        "lock_sha256": lock_digest(),
        "packages": package_versions(),
        "hardware": hardware(),
        "started": started,
        "ended": now(),
        "seconds": round(seconds, 3),
        "peak_memory_bytes": peak_memory_bytes(),
    }
