"""The RO-Crate of a study: complete, readable by the library that others use, and true."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import rocrate
from results.synthetic import ENTRY
from rocrate.rocrate import ROCrate

from yarnlab.provenance import sha256_of
from yarnlab.results.crate import CrateError, write_crate

VALIDATOR = shutil.which("rocrate-validator")
COMMAND = "envs/run snakemake --cores all --config study=demo"


def manifest(
    study: Path,
    name: str,
    outputs: dict[str, bytes],
    inputs: tuple[str, ...] = (),
    started: str = "2026-01-01T00:00:00.000Z",
) -> Path:
    """A stage's manifest at `name` with these outputs, written too; its inputs are other manifests of the study."""
    made = {}
    for output, content in outputs.items():
        (study / output).parent.mkdir(parents=True, exist_ok=True)
        (study / output).write_bytes(content)
        made[output] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (study / name).parent.mkdir(parents=True, exist_ok=True)
    content = {
        "stage": name.split("/")[0], "name": name.split("/")[1], "run": hashlib.sha256(name.encode()).hexdigest()[:32],
        "spec_sha256": "0" * 64, "seeds": {"seed": 42}, "inputs": {f"results/demo/{path}": "1" * 64 for path in inputs},
        "outputs": made, "git": {"commit": "c" * 40, "dirty": False}, "packages": {"torch": "2.13.0"},
        "started": started, "ended": "2026-01-01T00:01:00.000Z",
    }  # fmt: skip
    (study / name).write_text(json.dumps(content))
    return study / name


def write_study(folder: Path, models: tuple[str, ...], **evaluations: tuple[str, ...]) -> None:
    """study.json: these models, and for each kind of evaluation the models that it is planned for."""
    model = ENTRY | {
        "method": "none",
        "scale": 1.0,
        "parent": None,
        "seed": 42,
        "trained_length": 64,
        "kind": "pretrain",
    }
    content = {
        "study": "demo",
        "study_sha256": "2" * 64,
        "title": "a demo",
        "models": {name: {"arm": name, **model} for name in models},
        "evaluations": {kind: {"models": list(names)} for kind, names in evaluations.items()},
    }
    (folder / "study.json").write_text(json.dumps(content))


@pytest.fixture
def study(tmp_path) -> Path:
    folder = tmp_path / "results" / "demo"
    manifest(folder, "data/train/manifest.json", {"data/train/tokens.npy": b"123"})
    manifest(
        folder, "models/base/manifest.json", {"models/base/model.safetensors": b"45"}, ("data/train/manifest.json",)
    )
    write_study(folder, models=("base",))
    (folder / "report.html").write_text("<p>")
    manifest(
        folder,
        "evaluations/ppl/base.manifest.json",
        {"evaluations/ppl/base.parquet": b"6"},
        ("models/base/manifest.json",),
    )
    made = json.loads(
        manifest(folder, "analyse/of/it", {"tables/t.csv": b"a,b"}, ("evaluations/ppl/base.manifest.json",)).read_text()
    )
    shutil.rmtree(folder / "analyse")
    analysis = {key: made[key] for key in ("inputs", "outputs", "git", "ended")} | {"study_sha256": "2" * 64}
    (folder / "analysis.json").write_text(json.dumps(analysis | {"command": COMMAND}))
    write_study(folder, models=("base",), ppl=("base",))
    execution = {"started": "2026-01-01T00:00:00.000Z", "ended": None, "user": "ada", "command": "snakemake -c 2"}
    (folder / "tracking/executions").mkdir(parents=True)
    (folder / "tracking/executions/1.json").write_text(json.dumps(execution | {"id": "2026-01-01T000000.000Z"}))
    return folder


def several(value) -> list:
    """What an entity has of a property; RO-Crate writes a single value as itself."""
    return value if isinstance(value, list) else [value]


def test_every_file_is_described_as_it_is(study):
    """Files of the crate exist with the size and hash that it gives; the library of the format reads it."""
    crate = ROCrate(str(write_crate(study).parent))
    files = {entity.id: entity for entity in crate.get_by_type("File")}
    assert {"report.html", "data/train/tokens.npy", "models/base/model.safetensors"} < set(files)
    for name, entity in files.items():
        assert entity["sha256"] == sha256_of(study / name), name
        assert int(entity["contentSize"]) == (study / name).stat().st_size
    assert {part.id for part in crate.root_dataset["hasPart"]} == set(files)


def test_actions_lead_from_inputs_to_outputs(study):
    """One for each manifest: the model was made from the corpus, by this commit."""
    crate = ROCrate(str(write_crate(study).parent))
    actions = {action["name"]: action for action in crate.get_by_type("CreateAction")}
    made = actions["models base"]
    assert made["object"].id == "data/train/manifest.json"
    assert {entity.id for entity in made["result"]} == {"models/base/manifest.json", "models/base/model.safetensors"}
    assert made["instrument"]["softwareVersion"] == "c" * 40


def test_a_tables_file_leads_back_to_the_text_with_commands(study):
    """From file to file by the actions alone: table, evaluation, model, corpus, each with what makes it again."""
    crate = ROCrate(str(write_crate(study).parent))
    actions = [a for a in crate.get_by_type("CreateAction") if a["instrument"].id != "Snakefile"]
    found, wanted = [], "tables/t.csv"
    while True:
        (action,) = (a for a in actions if wanted in {entity.id for entity in several(a["result"])})
        found.append((action["name"], action["description"].split("`")[1].removeprefix(COMMAND)))
        if not action.get("object"):
            break
        wanted = several(action["object"])[0].id
    assert found == [
        ("analyse demo", " --force results/demo/analysis.json"),
        ("evaluations ppl", " --force results/demo/evaluations/ppl/base.manifest.json"),
        ("models base", " --force results/demo/models/base/manifest.json"),
        ("data train", " --force results/demo/data/train/manifest.json"),
    ]


def test_every_action_is_a_step_of_a_run_of_the_workflow(study):
    """Provenance Run Crate: who called Snakemake, on which steps of the Snakefile; what ran before is told apart."""
    manifest(study, "data/train/manifest.json", {"data/train/tokens.npy": b"123"}, started="2025-01-01T00:00:00.000Z")
    crate = ROCrate(str(write_crate(study).parent))
    assert crate.mainEntity.id == "Snakefile" and (study / "workflow/rules/train.smk").is_file()
    runs = {a.id: a for a in crate.get_by_type("CreateAction") if a["instrument"].id == "Snakefile"}
    now = runs["#execution-2026-01-01T000000.000Z"]
    assert (now["agent"]["name"], now["name"], len(runs)) == ("ada", "snakemake -c 2", 2)
    assert "agent" not in runs["#execution-earlier"]
    organised = {a["result"].id: several(a["object"]) for a in crate.get_by_type("OrganizeAction")}
    steps = {control["instrument"].id: control["object"]["name"] for own in organised.values() for control in own}
    assert steps == {
        "#step-data": "data train",
        "#step-models": "models base",
        "#step-evaluations": "evaluations ppl",
        "#step-analyse": "analyse demo",
    }
    assert {step.id for step in crate.mainEntity["step"]} == set(steps)
    assert [control["object"]["name"] for control in organised["#execution-earlier"]] == ["data train"]


def test_the_mirrors_note_of_an_end_changes_no_crate(study):
    """The execution goes on while its crate is written, and others follow it."""
    first = write_crate(study).read_bytes()
    file = study / "tracking/executions/1.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ended": "2026-01-01T00:09:00.000Z"}))
    later = {"id": "2026-01-02T000000.000Z", "started": "2026-01-02T00:00:00.000Z", "ended": None}
    file.with_name("2.json").write_text(json.dumps(later))
    assert write_crate(study).read_bytes() == first


@pytest.mark.skipif(VALIDATOR is None, reason="rocrate-validator is not installed (docs/verify.md says how)")
def test_the_public_validator_finds_it_sound(study):
    """By the profile Provenance Run Crate; it would name a crate without a workflow."""
    interpreter, script = Path(VALIDATOR).with_name("python"), Path(__file__).with_name("validate_crate.py")
    vocabulary = Path(rocrate.__file__).parent / "data" / "schema.jsonld"
    command = [interpreter, script, write_crate(study).parent, vocabulary]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    crate = study / "ro-crate-metadata.json"
    crate.write_text(crate.read_text().replace('"mainEntity"', '"about"'))
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_the_same_results_give_the_same_crate(study):
    first = write_crate(study).read_bytes()
    assert write_crate(study).read_bytes() == first


def test_a_file_that_is_not_what_its_manifest_says_is_named(study):
    """Changed or lost: one message, and no crate that vouches for it."""
    weights = study / "models/base/model.safetensors"
    weights.write_bytes(b"456")
    with pytest.raises(CrateError, match=r"model.safetensors has 3 bytes instead of 2"):
        write_crate(study)
    weights.unlink()
    with pytest.raises(CrateError, match=r"model.safetensors is missing"):
        write_crate(study)
    assert not (study / "ro-crate-metadata.json").exists()


def test_nothing_finished_is_said_so(tmp_path):
    with pytest.raises(CrateError, match="run the study"):
        write_crate(tmp_path)


def test_only_what_the_study_plans_is_published(study):
    """A dropped arm, an evaluation that no longer names a model, and a corpus that nothing reads are no part of it, nor
    do they stop it when their files are gone; what a planned model was made from is."""
    train = ("data/train/manifest.json",)
    manifest(study, "assets/hub/manifest.json", {"assets/hub/text.parquet": b"6"})
    manifest(study, "data/held/manifest.json", {"data/held/tokens.npy": b"7"}, ("assets/hub/manifest.json",))
    manifest(study, "data/old/manifest.json", {"data/old/tokens.npy": b"8"})
    manifest(study, "models/old/manifest.json", {"models/old/model.safetensors": b"9"}, train)
    for name in ("base", "other"):
        made = {f"evaluations/passkey/{name}.parquet": b"0"}
        manifest(study, f"evaluations/passkey/{name}.manifest.json", made, ("data/held/manifest.json",))
    for name in ("base", "old"):
        (study / "training").mkdir(exist_ok=True)
        (study / "training" / f"{name}.jsonl").write_text("{}\n")
    for lost in ("models/old/model.safetensors", "data/old/tokens.npy", "evaluations/passkey/other.parquet"):
        (study / lost).unlink()
    write_study(study, models=("base", "other"), passkey=("base",))

    crate = ROCrate(str(write_crate(study).parent))
    files = {entity.id for entity in crate.get_by_type("File")}
    assert {"assets/hub/text.parquet", "data/held/tokens.npy", "data/train/tokens.npy", "training/base.jsonl"} <= files
    assert {"models/base/model.safetensors", "evaluations/passkey/base.parquet"} <= files
    assert not {name for name in files if "old" in name or "other" in name}
    actions = {action["name"]: action for action in crate.get_by_type("CreateAction")}
    assert actions["data held"]["object"].id == "assets/hub/manifest.json"
