"""What the Snakefile asks of a study, and what jobs get to know of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.settings.types import DAGSettings

from yarnlab import cli
from yarnlab.hub.lock import Asset, Locked, LockedFile, write_lock
from yarnlab.stages.finished import FORCED
from yarnlab.study.sections import canonical, section
from yarnlab.study.summary import summarise
from yarnlab.workflow import Workflow

STUDIES = Path(__file__).resolve().parents[1] / "config" / "studies"


@pytest.mark.parametrize("by", ["name", "file"])
def test_a_report_says_how_its_study_was_run(tmp_path, monkeypatch, by):
    """By the name or the file that was given: that is what runs it again."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    chosen = "smoke"
    if by == "file":
        chosen = str(shutil.copytree(STUDIES, tmp_path / "my studies") / "smoke.yaml")
    Workflow.chosen({"study": chosen}, STUDIES).export_environment(tmp_path)
    given = {}
    monkeypatch.setattr(
        "yarnlab.results.report.render.write_report", lambda study_dir, command: given.update(command=command)
    )
    monkeypatch.setattr(sys, "argv", ["yarnlab", "report", "--study-dir", str(tmp_path / "results" / "smoke")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert given["command"] == f"envs/run snakemake --cores all --config study={shlex.quote(chosen)}"


@pytest.mark.parametrize("study", ["micro", "smoke", "paper", "released"])
def test_every_execution_has_a_manifest_of_its_own(study):
    """The stages' names are the rules', and no two write one file."""
    flow = Workflow.load(study, STUDIES)
    assert len(set(flow.manifests())) == len(flow.executions())
    assert set(flow.manifests()) >= set(flow.model_manifests()) | set(flow.asset_manifests())


LONGEST_WORD = 128 * 1024  # of a command, or of a variable: what Linux takes (MAX_ARG_STRLEN)


def test_a_study_of_many_seeds_can_start(tmp_path):
    """Its summary is 141 kB: no job gets it, or anything that grows with the study, as a word of its command."""
    study = shutil.copytree(STUDIES, tmp_path / "studies") / "micro.yaml"
    study.write_text(re.sub(r"(?m)^replicates: .*$", "replicates: 28", study.read_text()))
    flow = Workflow.load(str(study), STUDIES)
    assert len(canonical(summarise(flow.study))) > LONGEST_WORD
    words = [flow.summary(), flow.tokenizer_spec(), *map(flow.key_of, ("analyse", "report"), ("", ""))]
    for stage, name in {stage: (stage, name) for stage, name in flow.executions()}.values():
        words += [canonical(flow.section(stage, name)), flow.key_of(stage, name)]
    assert max(map(len, words)) < LONGEST_WORD / 8


@pytest.mark.parametrize("there", [True, False])
def test_after_a_failure_the_report_of_the_rest_has_its_command(tmp_path, there):
    flow = Workflow(Workflow.load("smoke", STUDIES).study, results=str(tmp_path / "my results"))
    manifest = Path(flow.evaluation_manifests("perplexity")[1])
    if there:
        manifest.parent.mkdir(parents=True)
        manifest.write_text("{}")
    folder = f"--study-dir '{tmp_path}/my results/smoke'"
    command = f"envs/run yarnlab analyse {folder} && envs/run yarnlab report {folder}"
    assert list(flow.partial_report()) == ([f"For a report of what is there: {command}"] if there else [])


def test_another_pin_of_an_asset_makes_it_again(tmp_path, monkeypatch):
    """Also of one that was fetched before anybody had pinned it; which the pin alone does not make again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YARNLAB_HUB_LOCK", str(tmp_path / "hub.lock.yaml"))
    first, second = "1" * 40, "2" * 40
    study = Workflow.load("released", STUDIES).study
    name, declared = next(iter(study.assets.items()))
    key = Asset(declared.type, declared.repo, declared.revision).key

    def asked(pin: str | None) -> dict:
        if pin is not None:
            file = LockedFile("a", 1, git_sha1="0" * 40)
            write_lock(tmp_path / "hub.lock.yaml", {key: Locked(pin, frozenset([()]), {"a": file})})
        flow = Workflow.load("released", STUDIES)
        spec = flow.spec("asset")(SimpleNamespace(asset=name))
        assert spec == canonical(flow.section("asset", name))
        return json.loads(spec)

    def make(spec: dict, commit: str) -> None:
        manifest = tmp_path / f"results/released/assets/{name}/manifest.json"
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text(json.dumps({"spec": spec, "facts": {"commit": commit}}))

    unpinned = asked(None)
    assert unpinned == section(study, "asset", name)
    assert asked(first) == {**unpinned, "commit": first}
    make(unpinned, first)  # as a fetch does that pins what it brings
    assert asked(first) == unpinned
    updated = asked(second)
    assert updated == {**unpinned, "commit": second}
    make(updated, second)
    assert asked(second) == updated
    assert asked(first) == {**unpinned, "commit": first}


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, ""),
        (
            {"forcerun": {"train", "./results/micro/models/base/manifest.json"}},
            "results/micro/models/base/manifest.json\ntrain",
        ),
        ({"targets": {"models"}}, ""),
        ({"targets": {"models"}, "forcetargets": True}, "models"),
        ({"targets": {"models"}, "forceall": True}, "*"),
    ],
)
def test_jobs_get_to_know_what_the_command_line_asks_for(monkeypatch, options, asked):
    """As -R, --force and --forceall name it; a job that starts for another reason may find its result finished."""
    monkeypatch.setenv(FORCED, "train")
    Workflow.export_forced(DAGSettings(**options))
    assert os.environ[FORCED] == asked
