"""`yarnlab verify`: every file re-hashed and compared with what the record of its making says.

The records: a stage's manifest names its outputs, analysis.json all that the analysis wrote and read, the RO-Crate the
report and all records. Manifests, analysis.json and the records of executions hold a hash of themselves; the crate is
described anew and compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarnlab.audit.folder import AuditError, Folder
from yarnlab.audit.numbers import count_numbers, unbacked_in_readme, unbacked_in_report
from yarnlab.audit.unfinished import damaged, unvouched
from yarnlab.provenance import read_json, record_is_intact
from yarnlab.results import crate
from yarnlab.results.analyse import INDEX
from yarnlab.results.lineage import place_of
from yarnlab.results.output import vega_file
from yarnlab.stages.finished import MANIFEST, RECORD, STEPS
from yarnlab.study.sections import digest

REPORT = "report.html"
CHANGED = "is not what was written"
RUNS = "tracking/runs.json"
ONLY_IN_CRATE = {REPORT: "report", RUNS: "publish"}  # with the rule that makes it


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be: a file of the folder, what is wrong with it, and what puts it right."""

    file: str
    wrong: str
    command: str

    def __str__(self) -> str:
        return f"{self.file}: {self.wrong}; {self.command}"


@dataclass(frozen=True)
class Audit:
    """What was found in a study's folder; `counts`: a line that says what was looked at."""

    findings: tuple[Finding, ...]
    counts: str


def verify(study_dir: Path, readme: Path | None = None) -> Audit:
    """Compare all that lies in `study_dir` with its records, and the numbers of report and README with what backs them.

    readme: checked if it has a block of this study's results.
    Raises AuditError where no study's results lie in `study_dir`.
    """
    folder = Folder(study_dir)
    if "study.json" not in folder.hashes:
        raise AuditError(f"{study_dir} holds no results (no study.json)")
    found: list[Finding] = []
    for look in (_study, _stages, _unfinished, _executions, _analysis, _crate, _unowned):
        found += look(folder, {finding.file for finding in found})
    # Numbers are compared with the files that back them: while one of those is wrong, it says nothing of the numbers.
    if {finding.file for finding in found} <= {REPORT, crate.FILE} and REPORT in folder.hashes:
        again = folder.again("report")
        found += [Finding(REPORT, wrong, again) for wrong in unbacked_in_report(study_dir)]
        if readme is not None:
            command = f"envs/run yarnlab gallery --study-dir {study_dir}"
            found += [Finding(str(readme), wrong, command) for wrong in unbacked_in_readme(study_dir, readme)]
    return Audit(tuple(found), _counts(folder, readme))


def _study(folder: Folder, named: set[str]) -> Iterator[Finding]:
    """study.json, which says what there is."""
    if not folder.is_intact("study.json"):
        yield Finding("study.json", CHANGED, folder.again("study_json"))


def _unfinished(folder: Folder, named: set[str]) -> Iterator[Finding]:
    """What a stage that was stopped goes on from."""
    for name, wrong in damaged(folder):
        yield Finding(name, wrong, folder.remove(name))


def _stages(folder: Folder, named: set[str]) -> Iterator[Finding]:
    """Manifests, the files that they name, and whether what they were made from is still what it was."""
    for name in folder.planned:
        again = folder.again(name)
        if name not in folder.manifests:
            yield Finding(name, "is not there: its stage has not finished", folder.making(name))
        elif not folder.is_intact(name):
            yield Finding(name, CHANGED, again)
        else:
            manifest = folder.manifests[name]
            for file, wrong in folder.differing(manifest["outputs"] | manifest.get("step_log", {})):
                yield Finding(file, f"{wrong}, by {name}", again)
            yield from _older(folder, name, manifest, again)


def _older(folder: Folder, name: str, record: dict[str, Any], again: str) -> Iterator[Finding]:
    """Inputs of a stage, or of a count of shared text, that are not any more what they were."""
    for path, sha256 in record.get("inputs", {}).items():
        if (now := folder.hash_of(path)) is None:
            yield Finding(name, f"was made from {path}, which is gone", again)
        elif now != sha256 and not _holds_the_same(folder, path, record.get("inputs_hold", {}).get(path)):
            yield Finding(name, f"was made from another {path} than is there now", again)


def _holds_the_same(folder: Folder, path: str, held: str | None) -> bool:
    """Whether an input that was made again has the outputs that it had; one that is damaged is named itself."""
    place = place_of(folder.path, path)
    if place is None or not folder.is_intact(place):
        return place is not None
    return held == digest(read_json(folder.path / place)["outputs"])


def _executions(folder: Folder, named: set[str]) -> Iterator[Finding]:
    """What stages and the workflow said of their executions, and the copies that put a finished result back."""
    for name in folder.hashes:
        place, *rest = name.split("/")
        if name == RUNS and record_is_intact(folder.path / name) is False:
            yield Finding(name, CHANGED, folder.again(ONLY_IN_CRATE[name]))
        elif name.startswith(("tracking/records/", "tracking/executions/")) or name in NOTES:
            if not record_is_intact(folder.path / name):
                yield Finding(name, CHANGED, folder.remove(name))
        elif place == "overlap":
            if record_is_intact(folder.path / name):
                yield from _older(folder, name, read_json(folder.path / name), folder.again(name))
            else:
                yield Finding(name, CHANGED, folder.again(name))
        elif place == ".finished" and rest[-1] in (MANIFEST, RECORD) and not record_is_intact(folder.path / name):
            yield Finding(name, f"{CHANGED}; it is a copy", folder.remove(str(Path(name).parent)))
        elif place == ".finished" and rest[-1] == STEPS:
            manifest = (folder.path / name).with_name(MANIFEST)
            if not record_is_intact(manifest):
                continue  # found by itself; what it names decides nothing
            logged = read_json(manifest).get("step_log", {})
            if folder.hashes[name] not in [log["sha256"] for log in logged.values()]:
                yield Finding(name, f"{CHANGED}; it is a copy", folder.remove(str(Path(name).parent)))


NOTES = ("tracking/planned.json", "tracking/folder.json")


def _analysis(folder: Folder, named: set[str]) -> Iterator[Finding]:
    """analysis.json, the tables, figures and claims that it names, and what they were made from."""
    again = folder.again("analyse")
    if INDEX not in folder.hashes:
        yield Finding(INDEX, "is not there: the study has not been analysed", folder.making(INDEX))
        return
    if not folder.is_intact(INDEX):
        yield Finding(INDEX, CHANGED, again)
        return
    for file, wrong in folder.differing(folder.analysis["outputs"]):
        yield Finding(file, f"{wrong}, by {INDEX}", again)
    if (inputs := folder.analysis.get("inputs")) is None:
        yield Finding(INDEX, "does not say what it was made from", again)
        return
    read = {place for path in inputs if (place := place_of(folder.path, path)) is not None}
    for path, sha256 in inputs.items():
        place = place_of(folder.path, path)
        if (now := folder.hash_of(path)) is None:
            yield Finding(INDEX, f"was made from {path}, which is gone", again)
        elif now != sha256 and place not in named:
            made = folder.again("study_json") if place == "study.json" else again
            yield Finding(place or path, "is not what tables, figures and claims were made from", made)
    for name in sorted(folder.manifests.keys() - read - named):
        if not name.startswith("assets/"):
            yield Finding(INDEX, f"was made without {name}", again)


def _crate(folder: Folder, named: set[str]) -> Iterator[Finding]:
    """The RO-Crate, and what only it has the hash of: the report, and where MLflow has the runs."""
    unfinished = crate.FILE in folder.hashes and folder.planned.keys() - folder.manifests.keys()
    if crate.FILE not in folder.hashes or unfinished:
        wrong = "describes what is not there" if unfinished else "is not there"
        yield Finding(crate.FILE, f"{wrong}: the study has not finished", folder.making(crate.FILE))
    if crate.FILE not in folder.hashes:
        if REPORT in folder.hashes:
            wrong = f"can't be compared: {crate.FILE}, which has its hash, is not there"
            yield Finding(REPORT, wrong, folder.making(crate.FILE))
        return
    differing = [name for name, sha256 in folder.described.items() if folder.hashes.get(name) != sha256]
    for name in differing:
        if name in ONLY_IN_CRATE and name not in named:
            wrong = f"is not the one that {crate.FILE} describes" if name in folder.hashes else "is missing"
            yield Finding(name, wrong, folder.again(ONLY_IN_CRATE[name]))
        elif name not in named:
            yield Finding(crate.FILE, f"describes another {name} than is there", folder.again("crate"))
    if differing or unfinished or named:
        return
    try:
        sound = crate.description(folder.path) == (folder.path / crate.FILE).read_text(encoding="utf-8")
    except (crate.CrateError, UnicodeDecodeError):
        sound = False
    if not sound:
        yield Finding(crate.FILE, "does not describe these results", folder.again("crate"))


def _unowned(folder: Folder, named: set[str]) -> Iterator[Finding]:
    """Files that no record names; not where the record that would name them is damaged or not there yet."""
    if named & {"study.json", "tracking/planned.json"}:
        return
    owned = {"study.json", INDEX, REPORT, crate.FILE, crate.WORKFLOW, RUNS, *NOTES, *folder.described}
    owned |= {name for name in (vega_file(folder.path / "figures").relative_to(folder.path).as_posix(),)}
    owned |= folder.analysis.get("outputs", {}).keys()
    for name, manifest in folder.manifests.items():
        owned |= {name, *manifest.get("outputs", ()), *manifest.get("step_log", ())}
    for record in folder.planned.values():
        owned |= {f"tracking/records/{record}.json"}
        owned |= {f".finished/{record}/{kept}" for kept in (MANIFEST, STEPS, RECORD)}
    unfinished = unvouched(folder)
    for name in sorted(folder.hashes.keys() - owned - unfinished):
        if not name.startswith(("tracking/executions/", "overlap/", crate.RULES)):
            yield Finding(name, "belongs to nothing that the study has made", folder.remove(name))


def _counts(folder: Folder, readme: Path | None) -> str:
    made = folder.analysis
    counted = {
        "files": len(folder.hashes),
        "stages": len(folder.manifests),
        "tables": len(made.get("tables", ())),
        "figures": len(made.get("figures", ())),
        "claims": len(read_json(folder.path / "claims.json").get("claims", ())),
        "numbers in the report": count_numbers(folder.path / REPORT),
    }
    said = f"{', '.join(f'{n:,} {what}' for what, n in counted.items())}; {folder.size / 1e6:,.1f} MB re-hashed"
    if others := len(unvouched(folder)):
        said += f"; {others:,} of the files are of stages that have not finished, and nothing vouches for them"
    return said
