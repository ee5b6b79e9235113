"""A study's results as an RO-Crate: what is there, what made it from what, with which code, in one JSON-LD file.

The crate is the results folder itself; ro-crate-metadata.json describes it by the profile Provenance Run Crate
(w3id.org/ro/wfrun/provenance), which archives such as Zenodo and WorkflowHub read. An action for each stage's manifest
and one for the analysis lead from what was read to the files that were made, with the command that makes these again.
Each is a step of the workflow, whose Snakefile and rules are copied into the folder, in the `snakemake` call of it.
"""

from __future__ import annotations

import json
import mimetypes
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.errors import UserError
from yarnlab.provenance import project_root, read_json, replacing, sha256_of
from yarnlab.results.lineage import ends, lineage, planned
from yarnlab.tracking.executions import load_executions, of_moment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rocrate.model.entity import Entity
    from rocrate.rocrate import ROCrate

FILE = "ro-crate-metadata.json"
# Provenance Run Crate is all of these, and RO-Crate 1.1.
PROFILES = {
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
}
WORKFLOW, RULES = "Snakefile", "workflow/rules/"
PAPER = "https://arxiv.org/abs/2309.00071"
LICENCE = "MIT for what yarnlab wrote; weights and texts keep the licences of what they were made from"
MIT = "https://spdx.org/licenses/MIT"
SNAKEMAKE = "https://snakemake.github.io"
ANALYSIS = "analysis.json"
COMPLETED = {"actionStatus": "http://schema.org/CompletedActionStatus"}
# Made by no stage, beside what analysis.json names.
REPORTED = ("report.html", "study.json", "tracking/runs.json")
mimetypes.add_type("application/vnd.apache.parquet", ".parquet")


class CrateError(UserError):
    """Results that can't be described; the message says what is missing or changed, and what to do."""


def write_crate(study_dir: Path) -> Path:
    """Write ro-crate-metadata.json for the study whose results lie in `study_dir`; returns its path.

    Copies the workflow beside it first. Raises CrateError as `description` does.
    """
    shutil.rmtree(study_dir / RULES, ignore_errors=True)
    for source in (project_root() / WORKFLOW, *(project_root() / RULES).glob("*.smk")):
        copy = study_dir / source.relative_to(project_root())
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
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
    crate = ROCrate(version="1.1")
    crate.name = f"{study['title']} (yarnlab study {study['study']})"
    crate.description = "Models, evaluations, tables, figures and report of one study of YaRN (arXiv 2309.00071)."
    crate.datePublished = max(manifest["ended"] for manifest in manifests.values())
    crate.license = crate.add_jsonld({"@id": "#licence", "@type": "CreativeWork", "name": LICENCE})
    workflow = _workflow(crate, study_dir)
    for profile, name in PROFILES.items():
        version = profile.rpartition("/")[2]
        crate.root_dataset.append_to("conformsTo", _entity(crate, profile, "CreativeWork", name=name, version=version))
    crate.root_dataset["isBasedOn"] = crate.add_jsonld({"@id": PAPER, "@type": "ScholarlyArticle"})
    crate.metadata.extra_terms["sha256"] = "https://schema.org/sha256"
    analysis = read_json(study_dir / ANALYSIS)
    if analysis:
        manifests[ANALYSIS] = {
            "stage": "analyse",
            "name": study["study"],
            "run": "analysis",
            "spec_sha256": analysis["study_sha256"],
            "seeds": {},
            "packages": {},
            "started": analysis["ended"],
        } | analysis
    for name in (*REPORTED, *(f"training/{name}.jsonl" for name in study["models"]), *manifests):
        if (study_dir / name).is_file():
            _add(crate, study_dir, name, sha256_of(study_dir / name))
    workflow["version"] = (analysis or next(reversed(manifests.values())))["git"]["commit"] or "unknown"
    command = analysis.get("command", f"envs/run snakemake --cores all --config study={study['study']}")
    actions = []
    for name, manifest in manifests.items():
        again = f"{command} --force results/{study['study']}/{name}"
        actions.append((_action(crate, study_dir, name, manifest, again), manifest))
    runs = _runs(crate, study_dir, workflow, actions, command)
    crate.root_dataset["mentions"] = [*runs, *(action for action, _ in actions)]
    described = crate.metadata.generate()
    for entity in described["@graph"]:  # RO-Crate wants a single value as itself
        entity |= {key: value[0] for key, value in entity.items() if isinstance(value, list) and len(value) == 1}
    return json.dumps(described, indent=1, allow_nan=False) + "\n"


def _workflow(crate: ROCrate, study_dir: Path) -> Entity:
    """The Snakefile as the crate's main entity; its rules are files beside it."""
    for rules in sorted(study_dir.glob(f"{RULES}*.smk")):
        name = rules.relative_to(study_dir).as_posix()
        _add(crate, study_dir, name, sha256_of(rules))
    properties = {
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
        "name": "yarnlab",
        "contentSize": str(_size(study_dir, WORKFLOW)),
        "sha256": sha256_of(study_dir / WORKFLOW),
        "license": {"@id": MIT},
        "encodingFormat": "text/plain",
        "conformsTo": {"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"},
    }
    return crate.add_workflow(dest_path=WORKFLOW, main=True, lang="snakemake", properties=properties)


def _runs(
    crate: ROCrate, study_dir: Path, workflow: Entity, actions: list[tuple[Entity, dict[str, Any]]], command: str
) -> list[Entity]:
    """One for each `snakemake` call that something here was made in: who ran it, and its steps."""
    executions, runs = load_executions(study_dir), []
    known = {execution["id"]: execution for execution in executions}
    made_in: dict[str, list[tuple[Entity, dict[str, Any]]]] = {}
    for action, manifest in actions:
        made_in.setdefault(of_moment(executions, manifest["started"]), []).append((action, manifest))
    for identifier, own in sorted(made_in.items()):
        earliest = {"command": command, "started": min(manifest["started"] for _, manifest in own)}
        execution = known.get(identifier, earliest)
        name = execution["command"]
        # Its own end is noted after the crate is written.
        when = {
            "startTime": _time(execution["started"]),
            "endTime": _time(max(manifest["ended"] for _, manifest in own)),
        }
        what = {"name": name, "description": f"{name}: {len(own)} actions of the workflow"} | when | COMPLETED
        run = crate.add_action(
            workflow,
            f"#execution-{identifier or 'earlier'}",
            object=_once(entity for action, _ in own for entity in action.get("object") or ()),
            result=_once(entity for action, _ in own for entity in action["result"]),
            properties=what,
        )
        engine = _entity(
            crate,
            SNAKEMAKE,
            "SoftwareApplication",
            name="Snakemake",
            url=SNAKEMAKE,
            softwareVersion=own[0][1]["packages"].get("snakemake", "unknown"),
        )
        steps = [_step(crate, workflow, action, manifest) for action, manifest in own]
        organised = what | {"@type": "OrganizeAction", "name": f"Snakemake runs {name}"}
        organisation = crate.add_action(
            engine, f"#organisation-{identifier or 'earlier'}", steps, run, properties=organised
        )
        if "user" in execution:
            agent = _entity(crate, f"#person-{execution['user']}", "Person", name=execution["user"])
            for action in (run, organisation, *steps, *(action for action, _ in own)):
                action["agent"] = agent
            crate.root_dataset["author"] = agent
        runs.append(run)
    return runs


def _step(crate: ROCrate, workflow: Entity, action: Entity, manifest: dict[str, Any]) -> Entity:
    """That the workflow ran this action: as which of its steps, with which tool."""
    tool = action["instrument"]
    step = _entity(crate, f"#step-{manifest['stage']}", "HowToStep", name=manifest["stage"])
    for entity, key, value in ((workflow, "step", step), (step, "workExample", tool), (workflow, "hasPart", tool)):
        if value not in (entity.get(key) or []):
            entity.append_to(key, value)
    properties = {key: action[key] for key in ("description", "startTime", "endTime", "actionStatus")}
    properties |= {"@type": "ControlAction", "name": f"run {action['name']}"}
    return crate.add_action(step, f"#control-{manifest['run']}", action, properties=properties)


def _entity(crate: ROCrate, identifier: str, kind: str, **properties: object) -> Entity:
    """The crate's entity of this name, made at its first use."""
    return crate.get(identifier) or crate.add_jsonld({"@id": identifier, "@type": kind, **properties})


def _time(moment: str) -> str:
    """With its offset in digits, the one form that the public validator knows."""
    return moment.replace("Z", "+00:00")


def _once(entities: Iterable[Entity]) -> list[Entity]:
    return list({entity.id: entity for entity in entities}.values())


def _action(crate: ROCrate, study_dir: Path, name: str, manifest: dict[str, Any], again: str) -> Entity:
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
            "startTime": _time(manifest["started"]),
            "endTime": _time(manifest["ended"]),
            "description": f"Made again by `{again}`; settings sha256 {manifest['spec_sha256']}, "
            f"seeds {json.dumps(manifest['seeds'])}.",
            **COMPLETED,
        },
    )


def _input(crate: ROCrate, path: str) -> Entity | None:
    """The crate's entity for a manifest that a stage read."""
    return next((entity for end in ends(path) if (entity := crate.dereference(end)) is not None), None)


def _software(crate: ROCrate, manifest: dict[str, Any]) -> Entity:
    """yarnlab at the manifest's commit, with the packages that it ran on."""
    git = manifest["git"]
    version = f"{git['commit'] or 'unknown'}{' with changes' if git['dirty'] else ''}"
    packages = ", ".join(f"{name} {number}" for name, number in manifest["packages"].items()) or "as in its lock file"
    return _entity(
        crate,
        f"#yarnlab-{version.replace(' ', '-')}",
        "SoftwareApplication",
        name="yarnlab",
        softwareVersion=version,
        softwareRequirements=packages,
        license={"@id": MIT},
    )


def _add(crate: ROCrate, study_dir: Path, name: str, sha256: str, size: int | None = None) -> Entity:
    """A file of the crate. Raises CrateError if it is missing or has another size than `size`."""
    if (known := crate.dereference(name)) is not None:
        return known
    found = _size(study_dir, name, size)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    properties = {"sha256": sha256, "contentSize": str(found), "encodingFormat": kind}
    return crate.add_file(dest_path=name, properties=properties)


def _size(study_dir: Path, name: str, expected: int | None = None) -> int:
    path = study_dir / name
    found = path.stat().st_size if path.is_file() else None
    if found is None or (expected is not None and found != expected):
        state = "is missing" if found is None else f"has {found:,} bytes instead of {expected:,}"
        raise CrateError(f"{path} {state}, unlike its manifest says: run the study again to make it anew")
    return found


def _read(path: Path, study_dir: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CrateError(f"{path} is missing or can't be read: run the study {study_dir.name} first") from None
    return found
