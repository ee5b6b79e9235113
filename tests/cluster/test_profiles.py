"""The profiles: every rule has its line, every line has its rule, and what must never be there is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
import yte
from snakemake.cli import parse_args

from yarnlab.cluster import slurm
from yarnlab.study.evaluations import KINDS

ROOT = Path(__file__).resolve().parents[2]
# Rules of the workflow as Snakemake has them: (name, runs on the calling machine, makes files, its resources).
RULES = """
import json, sys
from pathlib import Path
from snakemake.api import ConfigSettings, ResourceSettings, SnakemakeApi
with SnakemakeApi() as api:
    made = api.workflow(ResourceSettings(cores=1), ConfigSettings(config={"study": "smoke"}), snakefile=Path("Snakefile"))
    workflow = made._workflow
    print(json.dumps([(r.name, r.name in workflow._localrules, bool(r.output), list(r.resources)) for r in workflow.rules]))
"""


@pytest.fixture(scope="module")
def rules() -> list[tuple[str, bool, bool, list[str]]]:
    command = [sys.executable, "-c", RULES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    return [tuple(rule) for rule in json.loads(done.stdout.splitlines()[-1])]


def profile(name: str, monkeypatch: pytest.MonkeyPatch, account: str = "ours") -> dict[str, Any]:
    """What Snakemake reads when it is called with --profile NAME in the project's root."""
    monkeypatch.setattr(slurm, "site", lambda executor, **_: slurm.Site(executor, account, "batch", "accelerated"))
    monkeypatch.setattr(slurm, "gpus_of_this_machine", lambda: 4)
    with open(ROOT / name / "profile.v9+.yaml") as file:
        return yte.process_yaml(file, require_use_yte=True)


def test_every_submitted_rule_asks_for_memory_and_time(rules, monkeypatch):
    """By itself or in the cluster profile. Snakemake ignores the name of a rule that does not exist, so a renamed rule
    would lose its resources."""
    submitted = {name for name, local, makes, _ in rules if makes and not local}
    planned = {name for name, *_, resources in rules if {"mem_mb", "runtime"} <= set(resources)}
    named = profile("cluster", monkeypatch)["set-resources"]
    assert planned == {"train", *KINDS} and set(named) == submitted - planned
    assert all({"mem_mb", "runtime"} <= set(given) for given in named.values())


def test_jobs_ask_for_account_and_partition_of_the_site(monkeypatch):
    settings = profile("cluster", monkeypatch)
    assert settings["default-resources"] == {
        "slurm_account": "ours",
        "slurm_partition": "batch",
        "mem_mb": 8000,
        "runtime": 60,
    }
    assert "slurm-no-account" not in settings


def test_a_site_without_accounts(monkeypatch):
    settings = profile("cluster", monkeypatch, account="")
    assert settings["slurm-no-account"] is True
    assert "slurm_account" not in settings["default-resources"]


def test_what_keeps_a_run_alive(monkeypatch):
    """Requeue (a preempted job is waited for without end otherwise), retries here and not in rules, no outputs of
    failed jobs; `tasks` in the defaults would start one task a GPU."""
    settings = profile("cluster", monkeypatch)
    assert (
        settings["executor"] == "slurm" and settings["slurm-requeue"] is True and settings["rerun-incomplete"] is True
    )
    assert settings["retries"] >= 1
    assert not any("retries" in file.read_text() for file in (ROOT / "workflow" / "rules").glob("*.smk"))
    assert not {"keep-incomplete", "immediate-submit"} & set(settings)
    assert "tasks" not in settings["default-resources"]


def test_the_node_profile_runs_here_and_counts_gpus(monkeypatch):
    settings = profile("node", monkeypatch)
    assert "executor" not in settings
    assert settings["resources"] == {"needed_gpus": 4}


def test_every_call_goes_on_after_a_crash_and_leaves_the_text_of_commands_out_of_what_reruns(monkeypatch):
    """The default profile says so for plain calls, from any folder, and the two others say the same."""
    with open(ROOT / "profiles" / "default" / "profile.v9+.yaml") as file:
        default = yaml.safe_load(file)
    assert default == {"rerun-triggers": ["mtime", "input", "params"], "rerun-incomplete": True}
    for name in ("cluster", "node"):
        assert default.items() <= profile(name, monkeypatch).items()
    for folder, snakefile in ((ROOT, []), ("/", ["--snakefile", str(ROOT / "Snakefile")])):
        monkeypatch.chdir(folder)
        _, arguments = parse_args(["--dry-run", *snakefile])
        assert {trigger.name.lower() for trigger in arguments.rerun_triggers} == {*default["rerun-triggers"]}
        assert arguments.rerun_incomplete is True


def test_both_profiles_select_the_paper_study(monkeypatch):
    assert profile("cluster", monkeypatch)["config"] == profile("node", monkeypatch)["config"] == ["study=paper"]


# As much of an executor plugin as Snakemake needs to plan with it.
ELSEWHERE = """
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import CommonSettings
common_settings = CommonSettings(non_local_exec=True, implies_no_shared_fs=False, job_deploy_sources=False)
class Executor(RemoteExecutor): ...
"""


def test_a_copy_of_the_cluster_profile_serves_another_scheduler(tmp_path):
    """With one word changed it asks for nothing of SLURM: neither its plugin, nor sbatch, nor the three values."""
    shutil.copytree(ROOT / "workflow" / "profiles" / "cluster", tmp_path / "elsewhere")
    (copy,) = (tmp_path / "elsewhere").iterdir()
    copy.write_text(copy.read_text().replace('executor="slurm"', 'executor="elsewhere"'))
    (tmp_path / "snakemake_executor_plugin_elsewhere").mkdir()
    (tmp_path / "snakemake_executor_plugin_elsewhere" / "__init__.py").write_text(ELSEWHERE)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("YARNLAB_")}
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path)]
    done = subprocess.run(
        [*command, "--profile", str(tmp_path / "elsewhere"), "--config", "study=smoke", "--dry-run", "data"],
        env={**kept, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'src'}", "PATH": str(Path(sys.executable).parent)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "rule tokenizer" in done.stdout and "slurm" not in done.stdout
