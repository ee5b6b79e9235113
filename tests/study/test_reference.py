"""The published schema and the page of keys are those of the code, and study files follow them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from yarnlab.study import reference
from yarnlab.study.read import read_study
from yarnlab.workflow import CONFIG

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted((ROOT / "config" / "studies").glob("*.yaml"))
AGAIN = "run `envs/run yarnlab schema --write`"


@pytest.fixture(scope="module")
def schema():
    return reference.study_schema()


def test_committed_files_are_up_to_date(tmp_path):
    (tmp_path / "workflow" / "schemas").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    for file in reference.write_reference(tmp_path):
        assert (ROOT / file.relative_to(tmp_path)).read_text(encoding="utf-8") == file.read_text(encoding="utf-8"), (
            AGAIN
        )


def test_the_verb_prints_the_schema(schema):
    done = subprocess.run([sys.executable, "-m", "yarnlab", "schema"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == schema


@pytest.mark.parametrize("file", STUDIES, ids=[file.stem for file in STUDIES])
def test_study_files_follow_the_schema(schema, file):
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(read_study(file)[0])


def test_the_schema_knows_extends_and_refuses_other_keys(schema):
    study = read_study(STUDIES[0])[0]
    validator = Draft202012Validator(schema)
    assert validator.is_valid(study | {"extends": "other.yaml"})
    assert not validator.is_valid(study | {"extend": "other.yaml"})
    assert not validator.is_valid(study | {"seed": "1"})


# Whose keys have no descriptions yet: those of evaluations.
UNDESCRIBED = {"Evaluations"}  # its keys are described where their own sections are


def test_every_key_has_its_description(schema):
    for name, section in {"Study": schema, **schema["$defs"]}.items():
        missing = [key for key, value in section["properties"].items() if not value.get("description")]
        assert not missing or name in UNDESCRIBED, f"{name} has no description of {missing}"


def test_the_page_names_every_key(schema):
    page = (ROOT / "docs" / "study-reference.md").read_text(encoding="utf-8")
    for section in (schema, *schema["$defs"].values()):
        assert all(f"\n| `{key}` | " in page for key in section["properties"])


def test_config_readme_names_every_study_and_config_key():
    text = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in (*CONFIG, *(file.stem for file in STUDIES)))


def test_the_workflow_catalog_finds_what_it_needs():
    """Its standardized usage: the file itself with a way of deployment, and instructions in config/README.md."""
    usage = YAML(typ="safe").load(ROOT / ".snakemake-workflow-catalog.yml")["usage"]
    assert usage["software-stack-deployment"] == {"conda": True} and usage["report"] is True
