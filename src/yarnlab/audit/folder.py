"""A study's results folder as it lies on disk: every file with its hash, and the records of what it should hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from yarnlab.errors import UserError
from yarnlab.provenance import project_root, read_json, record_is_intact, sha256_of
from yarnlab.results import crate
from yarnlab.results.analyse import INDEX
from yarnlab.results.lineage import lineage, place_of, planned
from yarnlab.stages.layout import Layout
from yarnlab.study.fields import near

# What lies in results/<study> and beside it and is no part of the results, with the reason; docs/verify.md repeats it.
# `*` stands for anything.
NOT_RESULTS = {
    "logs/*": "what jobs printed, for people; nothing reads it",
    "state/*/lock": "which process trains: another one at each start",
    "tracking/system/*": "samples of the machine's load, for the dashboard alone",
    "tracking/mirror.log": "what the process printed that fills MLflow",
    "tracking/mirror.lock": "empty; which process fills MLflow",
    "tracking/ready": "empty; that MLflow's database was there",
    "tracking/failures": "how often MLflow was not reached",
}
BESIDE = {
    "mlflow.db*": "MLflow's database: a copy for the dashboard, which nothing is computed of",
    "mlflow.lock": "empty; which process writes MLflow's database",
    "mlartifacts/*": "copies of manifests, step logs and tables, for the dashboard",
    "comparisons/*": "what `yarnlab compare` wrote; it is made anew by the same command",
}
STATE = "state/"  # unfinished work, which its stage removes at its end


class AuditError(UserError):
    """There is nothing to verify or explain; the message says what was asked for and what there is."""


def study_folder(chosen: str, results: Path) -> Path:
    """The results folder of a study by its name, or at a path; AuditError names the studies that there are."""
    folder = Path(chosen) if "/" in chosen or (Path(chosen) / "study.json").is_file() else results / chosen
    if not (folder / "study.json").is_file():
        there = sorted(path.parent.name for path in folder.parent.glob("*/study.json"))
        raise AuditError(f"{folder} holds no results (no study.json){near(folder.name, there)}")
    return folder


@dataclass(frozen=True)
class Folder:
    """results/<study>, read as it was at the first look; an unreadable record counts as empty."""

    path: Path

    @cached_property
    def study(self) -> dict[str, Any]:
        return read_json(self.path / "study.json")

    @cached_property
    def names(self) -> frozenset[str]:
        """Every file by its place in the folder, hidden ones too, without what is no part of the results."""
        return frozenset(name for name in _files(self.path) if not is_no_result(name))

    @cached_property
    def hashes(self) -> dict[str, str]:
        """sha256 of every file but unfinished work: reads them all. One that goes meanwhile is not among them."""

        def hash_of(name: str) -> tuple[str, str]:
            try:
                return name, sha256_of(self.path / name)
            except FileNotFoundError:
                return name, ""

        names = sorted(name for name in self.names if not name.startswith(STATE))
        with ThreadPoolExecutor() as pool:
            return {name: found for name, found in pool.map(hash_of, names) if found}

    @cached_property
    def size(self) -> int:
        """Bytes of all files that are hashed."""
        return sum((self.path / name).stat().st_size for name in self.hashes)

    @cached_property
    def planned(self) -> dict[str, str]:
        """Manifest → `<stage>.<name>` of all that the study runs.

        By what the workflow noted at its last start; where there is no such note, what study.json names and all that
        it was made from.
        """
        note = self.path / "tracking" / "planned.json"
        if record_is_intact(note):
            layout, records = Layout(Path()), read_json(note)["records"]
            return {layout.manifest(*record.split(".", 1)).as_posix(): record for record in records}
        found = lineage(self.path, planned(self.study)) if self.study else {}
        return {name: f"{made.get('stage')}.{made.get('name')}" for name, made in found.items()}

    @cached_property
    def manifests(self) -> dict[str, dict[str, Any]]:
        """The planned manifests that are there."""
        return {name: read_json(self.path / name) for name in self.planned if name in self.names}

    @cached_property
    def analysis(self) -> dict[str, Any]:
        return read_json(self.path / INDEX)

    @cached_property
    def described(self) -> dict[str, str]:
        """sha256 of every file that the RO-Crate names, as it says."""
        graph = read_json(self.path / crate.FILE).get("@graph", ())
        return {entity["@id"]: entity["sha256"] for entity in graph if isinstance(entity, dict) and "sha256" in entity}

    def is_intact(self, record: str) -> bool:
        """Whether a record is, byte for byte, what was written; one without a hash of its own as the crate says."""
        intact = record_is_intact(self.path / record)
        return self.described.get(record) == sha256_of(self.path / record) if intact is None else intact

    def differing(self, outputs: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """(file, what is wrong) of what a record lists with hashes; the end of a sentence that begins with the file."""
        for name, made in outputs.items():
            if name not in self.hashes:
                yield name, "is missing"
            elif self.hashes[name] != made["sha256"]:
                yield name, "is not what was written"

    def hash_of(self, path: str) -> str | None:
        """sha256 of an input that a record names by its path in the project, now; None if it is gone."""
        if (place := place_of(self.path, path)) is not None:
            return self.hashes.get(place)
        file = project_root() / path
        return sha256_of(file) if file.is_file() else None

    @property
    def run(self) -> str:
        """The command that runs the study."""
        named = f"envs/run snakemake --cores all --config study={self.study.get('study', self.path.name)}"
        return str(self.analysis.get("command") or named)

    def target(self, name: str) -> str:
        """A file of the folder as the workflow calls it."""
        return f"results/{self.study.get('study', self.path.name)}/{name}"

    def making(self, name: str) -> str:
        """The command that makes a file of the folder, and what it needs, where it is not there."""
        return f"{self.run} -- {self.target(name)}"

    def again(self, *names: str) -> str:
        """The command that makes files, or all of a rule, again although they are there, and what follows from them."""
        return f"{self.run} -R {' '.join(self.target(name) if '.' in name else name for name in names)}"

    def remove(self, name: str) -> str:
        return f"rm -r {self.path / name}"


def is_no_result(name: str) -> bool:
    """Whether a file is no part of the results, by its place in the folder."""
    return any(fnmatchcase(name, place) for place in NOT_RESULTS)


def _files(folder: Path) -> Iterator[str]:
    """All files below; folders may be links to other disks."""
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            yield os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/")
