"""What every result of a study was made from: its manifests, an input before what reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from yarnlab.provenance import read_json
from yarnlab.results.results import Model, manifests_of_plan

Manifest = dict[str, Any]


def planned(study: dict[str, Any]) -> list[str]:
    """Of a study.json that nothing else is read of: as `manifests_of_plan`."""
    models = {name: Model.of(name, entry) for name, entry in study["models"].items()}
    return manifests_of_plan(models, study["evaluations"])


def lineage(study_dir: Path, names: Iterable[str]) -> dict[str, Manifest]:
    """The manifests at these paths below `study_dir`, as far as they are there, and all that they come from, by path.

    What is read stands before what reads it. A file that can't be read counts as empty.
    """
    found: dict[str, Manifest] = {}
    for name in names:
        if (study_dir / name).is_file():
            _collect(study_dir, name, found)
    return found


def _collect(study_dir: Path, name: str, found: dict[str, Manifest]) -> None:
    if name in found:
        return
    manifest = read_json(study_dir / name)
    for path in manifest.get("inputs", ()):
        if (source := place_of(study_dir, path)) is not None:
            _collect(study_dir, source, found)
    found[name] = manifest


def place_of(study_dir: Path, path: str) -> str | None:
    """Where in `study_dir` an input lies that a record names by a path from outside of it; None if it does not."""
    return next((end for end in ends(path) if (study_dir / end).is_file()), None)


def ends(path: str) -> Iterator[str]:
    """A path without its first folders, one less each: records name what they read from outside the results folder."""
    parts = path.strip("/").split("/")
    return ("/".join(parts[i:]) for i in range(len(parts)))
