"""What in a results folder nothing of the study needs any more. Stages never remove another setting's work; this does,
when it is told to. A run may be under way: what it finishes, renames or removes meanwhile is gone, and no mistake.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from yarnlab.stages.layout import Layout
from yarnlab.study.evaluations import KINDS
from yarnlab.study.schema import Study

DRAFT = re.compile(r"\..+\.[a-z0-9_]{8}(\.\w+)?|\..+\.partial")  # as provenance.replacing and weights.py name them
NOT_NAMED = "the study does not name it"
DRAFT_S = 86400  # a younger one may still be written


@dataclass(frozen=True)
class Leftover:
    """A file or folder that can go, and why; `bytes` on disk, of which files that others link to stay there."""

    path: Path
    why: str
    bytes: int


def leftovers(layout: Layout, study: Study) -> list[Leftover]:
    """What can go: results that the study does not name, states beside a finished result, drafts of killed processes.

    States of an unfinished training or evaluation stay, those of other settings too: which ones it will go on from is
    known when it starts.
    """
    return [Leftover(path, why, _size(path)) for path, why in sorted(_found(layout, study))]


def remove(found: Leftover) -> bool:
    """Remove it, and folders that hold nothing else; false where a training of that model is at work."""
    from filelock import FileLock, Timeout

    if found.path.is_file():
        found.path.unlink(missing_ok=True)
        return True
    lock, folder = found.path.with_name("lock"), found.path.parent
    holder = FileLock(lock)
    try:
        if lock.exists():
            holder.acquire(blocking=False)
    except Timeout:
        return False
    with suppress(FileNotFoundError):
        shutil.rmtree(found.path)
    with suppress(FileNotFoundError):
        if list(folder.iterdir()) in ([], [lock]):
            shutil.rmtree(folder)
    holder.release()
    return True


def _found(layout: Layout, study: Study) -> Iterator[tuple[Path, str]]:
    root, models = layout.root, study.instances()
    named = {"assets": {*study.assets}, "data": {*study.corpora, "tokenizer"}, "models": {*models}}
    for place, names in named.items():
        yield from ((path, NOT_NAMED) for path in _folders(root / place) if path.name not in names)
    yield from ((path, NOT_NAMED) for path in _files_of_dropped(root, study))
    for model in _folders(root / "state"):
        why = _needless(model.name in models, layout.model(model.name) / "manifest.json")
        yield from ((state, why) for state in _folders(model) if why)
    for kind in _folders(root / "state" / ".evaluations"):
        settings = getattr(study.evaluations, kind.name, None) if kind.name in KINDS else None
        for model in _folders(kind):
            arm = models.get(model.name, ("", 0))[0]
            manifest = layout.evaluation(kind.name, model.name).with_suffix(".manifest.json")
            why = _needless(settings is not None and arm in settings.models, manifest)
            yield from ((state, why) for state in _folders(model) if why)
    for path in root.rglob(".*"):
        if not DRAFT.fullmatch(path.name) or path.is_relative_to(root / "assets"):  # which each fetch puts in order
            continue
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > DRAFT_S:
                yield path, "a process that was killed was writing it"


def _files_of_dropped(root: Path, study: Study) -> Iterator[Path]:
    """Step logs, evaluations and what is noted of stages, of models, corpora and kinds that the study has not."""
    models, kinds = study.instances(), dict(study.evaluations)
    evaluated = {
        kind: {model for model, (arm, _) in models.items() if settings is not None and arm in settings.models}
        for kind, settings in kinds.items()
    }
    executions = {f"{kind}.{model}" for kind, names in evaluated.items() for model in names}
    executions |= {f"train.{model}" for model in models} | {f"asset.{asset}" for asset in study.assets}
    executions |= {f"corpus.{corpus}" for corpus in study.corpora} | {"tokenizer.tokenizer"}
    yield from (file for file in (root / "training").glob("*.jsonl") if file.stem not in models)
    yield from (file for file in (root / "nll").glob("*/*.npz") if file.stem not in models)
    yield from (file for file in (root / "tracking" / "records").glob("*.json") if file.stem not in executions)
    yield from (kept for kept in (root / ".finished").glob("*.*") if kept.name not in executions)
    for file in (root / "evaluations").glob("*/[!.]*"):
        if not any(file.name.startswith(f"{model}.") for model in evaluated.get(file.parent.name, ())):
            yield file


def _needless(named: bool, manifest: Path) -> str:
    """Why the states of a result can go; empty if they can't."""
    if not named:
        return "an unfinished attempt at what the study does not name"
    return "an unfinished attempt of other settings or inputs, beside a finished result" if manifest.exists() else ""


def _folders(place: Path) -> list[Path]:
    return [path for path in place.glob("*") if path.is_dir() and not path.name.startswith(".")]


def _size(path: Path) -> int:
    size = 0
    for file in path.rglob("*") if path.is_dir() else [path]:
        with suppress(FileNotFoundError):
            size += file.lstat().st_size if file.is_file() else 0
    return size
