"""A finished model whose manifest Snakemake has deleted: it is put back instead of being trained again.

Snakemake deletes a rule's declared output before each attempt. So a model that was finished, edited, started and then
edited back has weights and no manifest, although the attempt in between was stopped before it had replaced them. What
its training said (manifest, step log, tracking record) is therefore kept a second time beside the weights, undeclared,
until other weights take their place (`weights.replacing_checkpoint`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from yarnlab import tracking
from yarnlab.contract import StageRun
from yarnlab.provenance import read_json, replacing, sha256_of, write_json
from yarnlab.weights import MADE, MANIFEST

STEPS, RECORD = "steps.jsonl", "record.json"


def is_made(run: StageRun) -> bool:
    """Whether a finished model of this specification, code and input is there."""
    return _is_of(run, read_json(run.manifest))


def keep(run: StageRun) -> None:
    """Keep what the finished execution `run` wrote of itself; without room for that, nothing is kept."""
    kept = run.manifest.parent / MADE
    try:
        (kept / MANIFEST).unlink(missing_ok=True)
        write_json(kept / RECORD, tracking.read_record(run.study_dir, run.stage, run.name))
        if run.metrics_file is not None:
            _copy(run.metrics_file, kept / STEPS)
        _copy(run.manifest, kept / MANIFEST)  # last: what is kept counts if this is there
    except OSError:
        shutil.rmtree(kept, ignore_errors=True)


def put_back(run: StageRun) -> bool:
    """Whether the model that `run` is about to make was there all along; it is then finished as it was before.

    That is so if it was made of the same specification, code and inputs, its files hold what was written then, and an
    attempt of another kind came after it. Without one, whoever starts the same training again wants it done again.
    """
    kept = run.manifest.parent / MADE
    made, record = read_json(kept / MANIFEST), read_json(kept / RECORD)
    last = tracking.read_record(run.study_dir, run.stage, run.name)
    if not record or not _is_of(run, made) or not last:
        return False
    if (last.get("state"), last.get("spec")) == (run.state, dict(run.spec)):
        return False
    if run.metrics_file is not None and not (kept / STEPS).is_file():
        return False
    if not all(_holds(run.study_dir / name, written["sha256"]) for name, written in made["outputs"].items()):
        return False
    if run.metrics_file is not None:
        _copy(kept / STEPS, run.metrics_file)  # until now it shows the attempt that came after
    _copy(kept / MANIFEST, run.manifest)
    tracking.restore_record(run.study_dir, record)  # last: if this is stopped before, the next start does it all again
    return True


def _is_of(run: StageRun, manifest: dict[str, Any]) -> bool:
    """Whether it was made as `run` says: a state can be continued under more settings than a model is made with."""
    return (manifest.get("facts", {}).get("state"), manifest.get("spec")) == (run.state, dict(run.spec))


def _holds(file: Path, sha256: str) -> bool:
    return file.is_file() and sha256_of(file) == sha256


def _copy(file: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(file, temporary)
