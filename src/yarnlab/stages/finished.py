"""A finished result that is asked for again unchanged: it is put back, and nothing is computed.

Snakemake starts a job again when an input was written anew, whatever that holds, and deletes the job's manifest first.
So a parent or a corpus that was made again with the same content would cost all that follows from it, and a setting
that was changed, started and changed back would cost the model; so would a kill between the end of a job and
Snakemake's note of it. What a finished stage said (manifest, step log, tracking record) is therefore kept a second
time, undeclared, before its manifest is written; it counts while the files hold what was written.

Snakemake's own `update()` keeps a declared output too. But when an attempt fails it gives the output back with a new
time, and a model of other inputs then passes for made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from yarnlab.provenance import read_json, record_is_intact, remove_drafts, replacing, sha256_of, write_record
from yarnlab.stages.run import StageRun, stage_run
from yarnlab.tracking import records

FORCED = "YARNLAB_FORCED"  # rules and files that a call of Snakemake asks to be made again, one a line; * for all
MANIFEST, STEPS, RECORD = "manifest.json", "steps.jsonl", "record.json"


def is_finished(run: StageRun) -> bool:
    """Whether a finished result of this specification, code and input is there."""
    return _is_of(run, run.manifest)


@contextmanager
def kept_run(run: StageRun) -> Iterator[StageRun]:
    """`stage_run` of a stage whose result is put back where it is asked for again (`restore`)."""
    with stage_run(run, keep=lambda manifest: _keep(run, manifest)):
        yield run
    with suppress(OSError):  # what was kept has another time of the end, and else the same
        write_record(_kept(run) / RECORD, records.read_record(run.study_dir, run.stage, run.name))


def _keep(run: StageRun, manifest: dict[str, Any]) -> None:
    """Keep what the execution `run` says of itself when it has finished; without room for that, nothing is kept."""
    kept = _kept(run)
    record = records.read_record(run.study_dir, run.stage, run.name)
    try:
        (kept / MANIFEST).unlink(missing_ok=True)
        if record:
            artifacts = [run.relative(path) for path in run.artifacts]
            write_record(kept / RECORD, records.ended(record, error=None, artifacts=artifacts))
        if run.metrics_file is not None:
            _copy(run.metrics_file, kept / STEPS)
        write_record(kept / MANIFEST, manifest)  # last: what is kept counts if this is there
    except OSError:
        shutil.rmtree(kept, ignore_errors=True)


def restore(run: StageRun) -> bool:
    """Whether what `run` is about to make was there all along; it is then finished as it was before.

    That is so if it was made of the same specification, code and inputs, its files and what was kept of it hold what
    was written then, and nobody asked for it to be made again.
    """
    kept = _kept(run)
    for name in (MANIFEST, STEPS, RECORD):  # which nothing else would write again
        remove_drafts(kept / name)
    if _is_forced(run) or not all(record_is_intact(kept / name) for name in (MANIFEST, RECORD)):
        return False
    manifest, record = read_json(kept / MANIFEST), read_json(kept / RECORD)
    if not _is_of(run, kept / MANIFEST):
        return False
    outputs = {run.study_dir / name: made["sha256"] for name, made in manifest["outputs"].items()}
    if run.metrics_file is not None:
        outputs[kept / STEPS] = manifest["step_log"][run.relative(run.metrics_file)]["sha256"]
    if not all(file.is_file() and sha256_of(file) == sha256 for file, sha256 in outputs.items()):
        return False
    if run.metrics_file is not None:
        _copy(kept / STEPS, run.metrics_file)  # it may show an attempt that came after
    _copy(kept / MANIFEST, run.manifest)
    records.restore_record(run.study_dir, record)  # last: if this is stopped before, the next start does it all again
    return True


def _is_forced(run: StageRun) -> bool:
    """Whether this very result was asked for: by Snakemake's options, or by hand, without Snakemake."""
    asked = os.environ.get(FORCED, "*").splitlines()
    return not {"*", run.stage, os.path.normpath(run.manifest)}.isdisjoint(asked)


def _kept(run: StageRun) -> Path:
    return run.study_dir / ".finished" / f"{run.stage}.{run.name}"


def _is_of(run: StageRun, manifest: Path) -> bool:
    """Whether it was made as `run` says: a state can be continued under more settings than a model is made with."""
    written = read_json(manifest)
    return (written.get("state"), written.get("spec")) == (run.state, dict(run.spec))


def _copy(file: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(file, temporary)
