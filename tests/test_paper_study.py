"""The paper study's own YAML at tiny sizes, from a stand-in hub to the report: two processes with FSDP2, every
evaluation, and a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from yarnlab.results.registry import paper_targets
from yarnlab.study.evaluations import KINDS
from yarnlab.study.read import read_study

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

pytestmark = pytest.mark.slow
PLANNED_S = 10.0  # for a whole DAG, before anything runs


def test_the_whole_dag_and_every_target_of_the_paper_are_planned_in_seconds(tmp_path):
    """The paper study as it is, dry: everything, then all tables, figures and the ablation by their names."""
    for targets in ([], [*paper_targets()]):
        start = time.monotonic()
        dry = ["--dry-run", "--quiet", "rules", "--config", "study=paper"]
        done = subprocess.run(
            ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path), *targets, *dry],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert time.monotonic() - start < PLANNED_S
    assert not (tmp_path / "results").exists() or not list((tmp_path / "results").glob("paper/*/*/manifest.json"))


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """(folder, study file, environment): the shrunken study and a hub that serves what it names."""
    from hub.mini_hub import MiniHub
    from standin.repositories import build
    from standin.shrink import shrink

    folder = tmp_path_factory.mktemp("paper")
    study = shrink(read_study(ROOT / "config/studies/paper.yaml")[0])
    file = folder / "paper.yaml"
    file.write_text(json.dumps(study))
    build(folder / "hub", study)
    with MiniHub(folder / "hub") as hub:
        environment = {**os.environ, **hub.env(folder / "home"), "YARNLAB_HUB_LOCK": str(folder / "hub.lock.yaml")}
        # As on a user's machine: only the asset rule may use the network.
        environment = {key: value for key, value in environment.items() if "OFFLINE" not in key}
        yield folder, file, environment


def command(folder: Path, study: Path, *arguments: str) -> list[str]:
    snakefile = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "2"]
    return [*snakefile, *arguments, "--config", f"study={study}"]


def run(ready, *arguments: str) -> subprocess.CompletedProcess:
    folder, study, environment = ready
    return subprocess.run(
        command(folder, study, *arguments), capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )


@pytest.fixture(scope="module")
def finished(ready) -> Path:
    """The whole study, one training job of which was killed in the middle."""
    folder, study, environment = ready
    log = folder / "results/paper/training/yarn-7b-s16.jsonl"
    process = subprocess.Popen(command(folder, study, "results/paper/models/yarn-7b-s16/manifest.json"),
                               cwd=ROOT, env=environment, start_new_session=True)  # fmt: skip
    while not (log.exists() and len(log.read_text().splitlines()) >= 2):
        assert process.poll() is None, "training ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    run(ready, "--unlock")
    done = run(ready, "--rerun-incomplete")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "continuing after step" in done.stdout + done.stderr
    return folder / "results/paper"


def manifest(path: Path) -> dict:
    return json.loads(path.read_text())


def test_every_stage_left_its_manifest(finished):
    study = json.loads((finished / "study.json").read_text())
    for name in study["models"]:
        assert (finished / "models" / name / "manifest.json").exists(), name
    for kind in KINDS:
        for name in study["evaluations"][kind]["models"]:
            assert (finished / "evaluations" / kind / f"{name}.manifest.json").exists(), (kind, name)
    assert (finished / "report.html").stat().st_size > 100_000


def test_the_dashboard_shows_every_run(finished):
    """Each manifest's execution is a run of the study's experiment in MLflow, finished, under its own id."""
    import mlflow

    manifests = [*finished.rglob("manifest.json"), *finished.rglob("*.manifest.json")]
    client = mlflow.MlflowClient(f"sqlite:///{finished.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("yarnlab/paper")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    shown = {run: r.info.status for r in runs for key, run in r.data.tags.items() if key.startswith("execution.")}
    assert len(manifests) > 50
    for file in manifests:
        assert shown[manifest(file)["run"]] == "FINISHED", file


def test_every_published_cell_has_a_value_or_says_not_run(finished):
    """All 489, each with a verdict; what was not run names the command that runs it or the reason why none does."""
    table = pd.read_csv(finished / "tables/verdicts.csv", dtype=str)
    assert len(table) == 489 and table["verdict"].notna().all()
    absent = table[table["verdict"] == "not run"]
    assert len(absent) < 489 and (absent["reason"].notna() | absent["command"].notna()).all()
    assert table.loc[table["verdict"] != "not run", "ours"].notna().all()


def test_training_ran_sharded_over_two_processes(finished):
    facts = manifest(finished / "models/yarn-7b-s16/manifest.json")["facts"]
    assert (facts["sharding"], facts["world"]) == ("fsdp", 2)


def test_a_published_checkpoint_is_linked_not_copied(finished):
    weights = next((finished / "models/llama-2-7b").glob("*.safetensors"))
    assert weights.stat().st_ino == (finished / "assets/llama-2-7b" / weights.name).stat().st_ino


def test_everything_downloaded_is_pinned(finished):
    lock = (finished.parents[1] / "hub.lock.yaml").read_text()
    for asset in (finished / "assets").iterdir():
        facts = manifest(asset / "manifest.json")["facts"]
        assert len(facts["commit"]) == 40 and facts["commit"] in lock


def test_a_second_run_has_nothing_to_do(ready, finished):
    done = run(ready)
    assert "Nothing to be done" in done.stdout + done.stderr


def test_the_exported_checkpoint_is_stock(finished):
    """A fresh process with stock transformers gets the same logits as the checkpoint under our own rotary module."""
    import torch

    from yarnlab.modeling import load_model, rope_of

    folder = finished / "models/yarn-mistral-s8"
    program = (
        "import sys, torch; from transformers import AutoModelForCausalLM as M\n"
        "m = M.from_pretrained(sys.argv[1], dtype=torch.float32).eval()\n"
        "torch.save(m(torch.arange(3, 259)[None]).logits.detach(), sys.argv[2])"
    )
    out = finished / "logits.pt"
    subprocess.run([sys.executable, "-c", program, str(folder), str(out)], check=True)
    ours = load_model(folder, rope_of(manifest(folder / "manifest.json")["spec"]))
    with torch.no_grad():
        logits = ours(torch.arange(3, 259)[None]).logits
    assert torch.allclose(logits, torch.load(out, weights_only=True), atol=1e-5)
