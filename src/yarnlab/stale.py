"""Results that no longer fit the study where Snakemake can't know it: it has no record of how they were made.

Snakemake compares settings and code with what it noted in .snakemake. Where that folder was deleted, or results were
copied without it, it takes every file as it is. Manifests say what made them, so they are compared instead.
"""

from __future__ import annotations

import shlex
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

from yarnlab.code import code_key
from yarnlab.provenance import read_json
from yarnlab.study.sections import digest, section
from yarnlab.workflow import Workflow

RECORDS = Path(".snakemake/metadata")
_NAME = 254  # characters of a record's name on disk; a longer one is cut into folders


def warn(flow: Workflow, records: Path = RECORDS) -> None:
    """Say on stderr, in one message, which results of the study have other settings or code than it now asks for.

    Silent for whatever Snakemake has recorded: it makes that again by itself.
    """
    if message := _message(flow, stale(flow, records)):
        print(message, file=sys.stderr)


def stale(flow: Workflow, records: Path = RECORDS) -> dict[tuple[str, str], str]:
    """(stage, name) of each result that is out of date without Snakemake's knowing → "settings", "code" or both."""
    if records.with_name("metadata.db").exists():
        return {}  # Snakemake's other store; it is not looked into
    found = {}
    for (stage, name), path in flow.executions().items():
        if not record_of(path, records).exists() and (manifest := read_json(Path(path))):
            now = {"settings": digest(section(flow.study, stage, name)), "code": code_key(stage)}
            then = {"settings": manifest.get("spec_sha256"), "code": manifest.get("code")}
            if changed := [what for what in now if now[what] != then[what]]:
                found[stage, name] = " and ".join(changed)
    return found


def record_of(path: str, records: Path = RECORDS) -> Path:
    """Where Snakemake (its file store) notes what made an output."""
    name = urlsafe_b64encode(path.encode()).decode()
    parts = [name[at : at + _NAME] for at in range(0, len(name), _NAME)]
    return records.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def _message(flow: Workflow, found: dict[tuple[str, str], str]) -> str:
    if not found:
        return ""
    return "\n".join(
        [
            "Warning: these results don't fit the study, and Snakemake keeps them: it has no record of how they were "
            "made (.snakemake was deleted, or they were copied here).",
            *(f"  {stage} {name}: made with other {changed}" for (stage, name), changed in found.items()),
            "To make them again, with all that follows from them: envs/run snakemake --cores all "
            f"--config study={shlex.quote(flow.named)} -R {' '.join(_targets(flow, found))}",
        ]
    )


def _targets(flow: Workflow, found: dict[tuple[str, str], str]) -> Iterator[str]:
    """What `-R` must name: a rule where all its results are out of date, else the files alone."""
    there = {key: path for key, path in flow.executions().items() if Path(path).exists()}
    for stage in dict.fromkeys(stage for stage, _ in found):
        own = {key: path for key, path in there.items() if key[0] == stage}
        if own.keys() <= found.keys():
            yield stage
        else:
            yield from (path for key, path in own.items() if key in found)
