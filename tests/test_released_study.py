"""The study of the authors' own checkpoints at tiny sizes: old configs in, perplexities out, offline after the downloads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from yarnlab.study.read import read_study

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

pytestmark = pytest.mark.slow
NOWHERE = "http://127.0.0.1:9"
KINDS = ("perplexity", "sliding_window", "passkey_official")


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """(folder, study file, environment, hub): the shrunken study and a hub that serves what it names."""
    from hub.mini_hub import MiniHub
    from standin.repositories import build
    from standin.shrink import RELEASED_KEPT, shrink

    folder = tmp_path_factory.mktemp("released")
    study = shrink(read_study(ROOT / "config/studies/released.yaml")[0], RELEASED_KEPT, KINDS)
    file = folder / "released.yaml"
    file.write_text(json.dumps(study))
    build(folder / "hub", study)
    with MiniHub(folder / "hub") as hub:
        environment = {**os.environ, **hub.env(folder / "home"), "YARNLAB_HUB_LOCK": str(folder / "hub.lock.yaml")}
        yield folder, file, {key: value for key, value in environment.items() if "OFFLINE" not in key}, hub


def run(ready, *targets: str, **changes: str) -> subprocess.CompletedProcess:
    folder, study, environment, _ = ready
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "2"]
    return subprocess.run(
        [*command, *targets, "--config", f"study={study}"],
        capture_output=True, text=True, cwd=ROOT, env=environment | changes, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def fetched(ready) -> Path:
    done = run(ready, "assets")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return ready[0] / "results/released"


@pytest.fixture(scope="module")
def finished(ready, fetched) -> Path:
    """Evaluated on a machine without a network."""
    done = run(ready, "evaluations", HF_ENDPOINT=NOWHERE)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return fetched


def test_no_code_of_a_repository_was_fetched(ready, fetched):
    assert any((ready[0] / "hub").rglob("modeling_mistral_yarn.py"))
    assert not list(fetched.rglob("*.py"))


def test_every_checkpoint_is_evaluated(ready, finished):
    """Finite losses at every length, by a kernel that the manifest names; another for what needs a key cache."""
    study = json.loads(ready[1].read_text())
    for kind, attention in zip(KINDS, ("yarnlab_measured", "yarnlab_measured", "sdpa"), strict=True):
        models = study["evaluations"][kind]["models"]
        assert any(name.startswith("released-") for name in models)
        for name in models:
            manifest = json.loads((finished / f"evaluations/{kind}/{name}.manifest.json").read_text())
            assert manifest["facts"]["attention"] == attention, (kind, name)
            table = pd.read_parquet(finished / f"evaluations/{kind}/{name}.parquet")
            assert len(table) and (kind == "passkey_official" or table["nll"].map(float).notna().all())


def test_a_caller_who_is_offline_stays_so(ready, fetched):
    """What is missing is said without a request to the hub, which is there; a cache that holds it is enough."""
    folder, _, environment, hub = ready
    name, repository = "released-7b-8k", "emozilla/Yarn-Llama-2-7b-8k"
    manifest = f"results/released/assets/{name}/manifest.json"
    commit = json.loads((folder / manifest).read_text())["facts"]["commit"]
    shutil.rmtree(fetched / "assets" / name)
    hub.requests.clear()
    done = run(ready, manifest, HF_HUB_OFFLINE="1")
    assert done.returncode != 0 and "HF_HUB_OFFLINE forbids" in done.stdout + done.stderr
    cache = Path(environment["HF_HOME"]) / "hub" / f"models--{repository.replace('/', '--')}" / "snapshots" / commit
    shutil.copytree(folder / "hub/models" / repository, cache)
    done = run(ready, manifest, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / manifest).exists() and not hub.requests
