"""Unfinished work in a study's folder: each file of it against the hash that was written with it."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from yarnlab.audit.folder import STATE, Folder
from yarnlab.evaluation import partial_results
from yarnlab.results import crate
from yarnlab.results.analyse import INDEX
from yarnlab.training import checkpoint_files
from yarnlab.weights import CARD


def damaged(folder: Folder) -> Iterator[tuple[str, str]]:
    """(file, what is wrong) of what lies in state/; the end of a sentence that begins with the file."""
    for name in sorted(name for name in folder.names if name.startswith(STATE)):
        file = folder.path / name
        *place, last = name.split("/")[1:]
        try:
            if last.startswith("."):
                intact = None
            elif place[0] == ".evaluations":
                intact = partial_results.content(file) is not None
            elif place[-1].startswith("checkpoint-"):
                intact = checkpoint_files.is_intact(file)
            else:
                intact = None
        except FileNotFoundError:
            intact = not file.exists()  # it has served and is gone, or another file of its checkpoint is missing
        if intact is None:
            yield name, "is what a process that was killed was writing; nothing reads it"
        elif not intact:
            yield name, "is not what was written; nothing reads it, and what it held is computed again"


def unvouched(folder: Folder) -> set[str]:
    """Files at the places of what made them whose record is missing or damaged: nothing vouches for them.

    They are made again, or put back if they have the hashes of what was kept of the stage; nothing else reads them.
    """
    places = []
    for manifest, record in folder.planned.items():
        if manifest not in folder.manifests or not folder.is_intact(manifest):
            stage, name = record.split(".", 1)
            places.append(f"{manifest.removesuffix('manifest.json')}*")
            places.append(f"training/{name}.jsonl" if stage == "train" else f"nll/*/{name}.npz")
    if not folder.is_intact(INDEX):
        places += ["tables/*", "figures/*", "claims.json", f"models/*/{CARD}"]
    if crate.FILE not in folder.names:
        places += [crate.WORKFLOW, f"{crate.RULES}*"]
    records = {INDEX, *folder.planned}
    return {name for name in folder.hashes.keys() - records if any(fnmatchcase(name, place) for place in places)}
