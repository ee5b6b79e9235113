"""Results that no longer fit the study where Snakemake can't know it; one message names them at every start.

Snakemake compares settings and keys with what it noted in .snakemake. Where that folder was deleted, or results were
copied without it, it takes every file as it is: then the manifests are compared. It sees manifests only, so a table or
weights that one of them names may be gone or cut short.
"""

from __future__ import annotations

import shlex
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yarnlab.provenance import read_json
from yarnlab.study.sections import digest
from yarnlab.workflow import Workflow

RECORDS = Path(".snakemake/metadata")
_NAME = 254  # characters of a record's name on disk; a longer one is cut into folders


def warn(flow: Workflow, records: Path = RECORDS) -> None:
    """Say on stderr, in one message, which results of the study do not fit it any more, and what makes them again."""
    if found := outdated(flow, records):
        print(
            "Warning: these results don't fit the study, and Snakemake keeps them (it looks at manifests only, and may "
            "have no record of how they were made).",
            *(f"  {stage} {name}".rstrip() + f": {wrong}" for (stage, name), wrong in found.items()),
            "To make them again, with all that follows from them: envs/run snakemake --cores all "
            f"--config study={shlex.quote(flow.named)} -R {' '.join(_targets(flow, found))}",
            sep="\n",
            file=sys.stderr,
        )


def outdated(flow: Workflow, records: Path = RECORDS) -> dict[tuple[str, str], str]:
    """(stage, name) of each result that is out of date without Snakemake's knowing → what is wrong with it."""
    found = {}
    recorded = records.with_name("metadata.db").exists()  # Snakemake's other store, which is not looked into
    for (stage, name), path in flow.executions().items():
        if manifest := read_json(Path(path)):
            wrong = [*_damaged(flow, manifest)]
            if not recorded and not record_of(path, records).exists():
                wrong += _changed(flow, stage, name, manifest)
            if wrong:
                found[stage, name] = "; ".join(wrong)
    if wrong := [*_damaged(flow, read_json(Path(flow.analysis())))]:
        found["analyse", ""] = "; ".join(wrong)
    return found


def _changed(flow: Workflow, stage: str, name: str, manifest: dict[str, Any]) -> Iterator[str]:
    """What the study asks for and the manifest does not say."""
    if manifest.get("spec_sha256") != digest(flow.section(stage, name)):
        yield "made with other settings"
    if manifest.get("code") != (now := flow.key_of(stage, name)):
        yield f"made as {manifest.get('code')}, now {now}"


def _damaged(flow: Workflow, manifest: dict[str, Any]) -> Iterator[str]:
    """The files that the manifest names and that are not there as they were."""
    for name, written in (manifest.get("outputs", {}) | manifest.get("step_log", {})).items():
        file = Path(flow.root, name)
        if not file.is_file():
            yield f"{name} is missing"
        elif file.stat().st_size != written["bytes"]:
            yield f"{name} has another size"


def record_of(path: str, records: Path = RECORDS) -> Path:
    """Where Snakemake (its file store) notes what made an output."""
    name = urlsafe_b64encode(path.encode()).decode()
    parts = [name[at : at + _NAME] for at in range(0, len(name), _NAME)]
    return records.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def _targets(flow: Workflow, found: dict[tuple[str, str], str]) -> Iterator[str]:
    """What `-R` must name: a rule where all its results are out of date, else the files alone."""
    made = {**flow.executions(), ("analyse", ""): flow.analysis()}
    there = {key: path for key, path in made.items() if Path(path).exists()}
    for stage in dict.fromkeys(stage for stage, _ in found):
        own = {key: path for key, path in there.items() if key[0] == stage}
        if own.keys() <= found.keys():
            yield stage
        else:
            yield from (path for key, path in own.items() if key in found)
