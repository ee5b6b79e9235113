"""A study's results as an RO-Crate: what is there, what made it from what, with which code, in one JSON-LD file.

The crate is the results folder itself; ro-crate-metadata.json describes it by the profile Process Run Crate
(w3id.org/ro/wfrun/process): an action for each stage's manifest, from the manifests that it read to the files that it
made. Archives such as Zenodo and WorkflowHub read this format.
"""

from __future__ import annotations

import json
import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.errors import UserError
from yarnlab.provenance import read_json, replacing, sha256_of
from yarnlab.results.lineage import ends, lineage, planned

if TYPE_CHECKING:
    from rocrate.model.entity import Entity
    from rocrate.rocrate import ROCrate

FILE = "ro-crate-metadata.json"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
PAPER = "https://arxiv.org/abs/2309.00071"
LICENCE = "MIT for what yarnlab wrote; weights and texts keep the licences of what they were made from"
# Made by no stage, beside what analysis.json names.
REPORTED = ("report.html", "study.json", "analysis.json", "tracking/runs.json")
mimetypes.add_type("application/vnd.apache.parquet", ".parquet")


class CrateError(UserError):
    """Results that can't be described; the message says what is missing or changed, and what to do."""


def write_crate(study_dir: Path) -> Path:
    """Write ro-crate-metadata.json for the study whose results lie in `study_dir`; returns its path.

    Raises CrateError as `description` does.
    """
    text = description(study_dir)
    with replacing(study_dir / FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return study_dir / FILE


def description(study_dir: Path) -> str:
    """What ro-crate-metadata.json says of the results in `study_dir`; the same results give the same text.

    The hashes of stages' outputs are those of their manifests: weights are not read again, only their sizes compared.

    Raises CrateError where a study has not finished, or a file is missing or has another size than its manifest says.
    """
    from rocrate.rocrate import ROCrate

    study = _read(study_dir / "study.json", study_dir)
    # What a study that had other models left behind is no part of it.
    manifests = lineage(study_dir, planned(study))
    for name, manifest in manifests.items():
        if not manifest:
            raise CrateError(f"{study_dir / name} can't be read: remove it and run the study again")
    if not manifests:
        raise CrateError(f"{study_dir} holds no finished stage: run the study first")
    crate = ROCrate()
    crate.name = f"{study['title']} (yarnlab study {study['study']})"
    crate.description = "Models, evaluations, tables, figures and report of one study of YaRN (arXiv 2309.00071)."
    crate.datePublished = max(manifest["ended"] for manifest in manifests.values())
    crate.license = crate.add_jsonld({"@id": "#licence", "@type": "CreativeWork", "name": LICENCE})
    crate.root_dataset["conformsTo"] = [crate.add_jsonld({"@id": PROFILE, "@type": "CreativeWork"})]
    crate.root_dataset["isBasedOn"] = [crate.add_jsonld({"@id": PAPER, "@type": "ScholarlyArticle"})]
    crate.metadata.extra_terms["sha256"] = "https://schema.org/sha256"
    analysis = read_json(study_dir / "analysis.json") or {"outputs": {}}
    for name in (*REPORTED, *sorted(analysis["outputs"]), *(f"training/{name}.jsonl" for name in study["models"])):
        if (study_dir / name).is_file():
            _add(crate, study_dir, name, sha256_of(study_dir / name))
    for name in manifests:
        _add(crate, study_dir, name, sha256_of(study_dir / name))
    actions = [_action(crate, study_dir, name, manifest) for name, manifest in manifests.items()]
    crate.root_dataset["mentions"] = actions
    return json.dumps(crate.metadata.generate(), indent=1, allow_nan=False) + "\n"


def _action(crate: ROCrate, study_dir: Path, name: str, manifest: dict[str, Any]) -> Entity:
    """The execution that a manifest records: CreateAction from its inputs to its outputs."""
    results = [crate.dereference(name)]
    for output, made in manifest["outputs"].items():
        results.append(_add(crate, study_dir, output, made["sha256"], size=made["bytes"]))
    inputs = [found for path in manifest["inputs"] if (found := _input(crate, path)) is not None]
    return crate.add_action(
        _software(crate, manifest),
        identifier=f"#run-{manifest['run']}",
        object=inputs,
        result=results,
        properties={
            "name": f"{manifest['stage']} {manifest['name']}",
            "startTime": manifest["started"],
            "endTime": manifest["ended"],
            "actionStatus": "http://schema.org/CompletedActionStatus",
            "description": f"settings sha256 {manifest['spec_sha256']}, seeds {json.dumps(manifest['seeds'])}",
        },
    )


def _input(crate: ROCrate, path: str) -> Entity | None:
    """The crate's entity for a manifest that a stage read."""
    return next((entity for end in ends(path) if (entity := crate.dereference(end)) is not None), None)


def _software(crate: ROCrate, manifest: dict[str, Any]) -> Entity:
    """yarnlab at the manifest's commit, with the packages that it ran on."""
    git = manifest["git"]
    version = f"{git['commit'] or 'unknown'}{' with changes' if git['dirty'] else ''}"
    identifier = f"#yarnlab-{version.replace(' ', '-')}"
    if (known := crate.dereference(identifier)) is not None:
        return known
    packages = ", ".join(f"{name} {number}" for name, number in manifest["packages"].items())
    return crate.add_jsonld(
        {
            "@id": identifier,
            "@type": "SoftwareApplication",
            "name": "yarnlab",
            "softwareVersion": version,
            "softwareRequirements": packages,
            "license": "https://spdx.org/licenses/MIT",
        }
    )


def _add(crate: ROCrate, study_dir: Path, name: str, sha256: str, size: int | None = None) -> Entity:
    """A file of the crate. Raises CrateError if it is missing or has another size than `size`."""
    if (known := crate.dereference(name)) is not None:
        return known
    path = study_dir / name
    found = path.stat().st_size if path.is_file() else None
    if found is None or (size is not None and found != size):
        state = "is missing" if found is None else f"has {found:,} bytes instead of {size:,}"
        raise CrateError(f"{path} {state}, unlike its manifest says: run the study again to make it anew")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    properties = {"sha256": sha256, "contentSize": str(found), "encodingFormat": kind}
    return crate.add_file(dest_path=name, properties=properties)


def _read(path: Path, study_dir: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CrateError(f"{path} is missing or can't be read: run the study {study_dir.name} first") from None
    return found
