"""What a new user does: `yarnlab new` on a folder with a model and one with text, then the workflow, to the report.

In a copy of the project, with an empty HOME and no hub. The environment is the tests' own.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import networkx
import psutil
import pytest
from how_tos import ROOT, copy_project
from results.report.check import check_report

pytestmark = pytest.mark.slow

MINUTES = 3  # that two cores may take; half of what they have then, since stages wait for each other
LOOK_S = 0.2
SHAPE = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 128}
FAMILIES = {"llama": {}, "qwen3": {"tie_word_embeddings": True, "rope_theta": 1e6}}


@pytest.fixture
def project(tmp_path: Path, tiny_data: Path) -> Path:
    """A copy of the project with ./books in it, the tests' environment and nobody's HOME; its path has to be quoted."""
    root = copy_project(tmp_path / "it's a project")
    shutil.copytree(ROOT / "envs", root / "envs")
    (tmp_path / "home").mkdir()
    (root / "books").mkdir()
    sources = sorted(Path(networkx.__file__).parent.rglob("*.py"))
    long = [file for file in sources if "tests" not in file.parts and file.stat().st_size > 6000]
    for number, file in enumerate(long[:24]):
        shutil.copy(file, root / "books" / f"{number:02d}.txt")
    return root


def save_model(family: str, folder: Path, tokenizer: Path) -> None:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**SHAPE, **FAMILIES[family])).save_pretrained(folder)
    for file in tokenizer.iterdir():
        shutil.copy(file, folder)


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    kept = ("PATH", "LANG", "OMP_NUM_THREADS", "YARNLAB_MACHINE", "CUDA_VISIBLE_DEVICES")
    environment = {key: os.environ[key] for key in kept if key in os.environ}
    environment |= {"HOME": str(project.parent / "home"), "PYTHONPATH": str(project / "src"), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


@contextmanager
def cpu_seconds(project: Path) -> Iterator[dict[tuple[int, float], float]]:
    """CPU seconds of every process that works with the copy: jobs are forked, so nobody waits for all of them here."""
    found: dict[tuple[int, float], float] = {}
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            for process in psutil.process_iter(["create_time", "cpu_times", "environ"]):
                seen = process.info
                if seen["cpu_times"] and (seen["environ"] or {}).get("PYTHONPATH", "").startswith(str(project)):
                    found[process.pid, seen["create_time"]] = seen["cpu_times"].user + seen["cpu_times"].system

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_with_a_model_ends_in_its_report(family: str, project: Path, tiny_data: Path) -> None:
    save_model(family, project / "folder", tiny_data / "tokenizer")
    new = ("-m", "yarnlab", "new", "mine", "--model", "./folder", "--scale", "2", "--text", "./books")
    with cpu_seconds(project) as taken:
        made = run(project, sys.executable, *new)
    assert made.returncode == 0, made.stderr[-3000:]
    assert (
        "--config study=mine" in made.stdout and "path: ./folder" in (project / "config/studies/mine.yaml").read_text()
    )
    again = run(project, sys.executable, *new)
    assert again.returncode == 1 and re.fullmatch(r"error: .*mine\.yaml is there already: .*--force\n", again.stderr)
    with cpu_seconds(project) as more:
        done = run(project, "snakemake", "--cores", "all", "--config", "study=mine")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-4000:]
    assert 20 < sum(taken.values()) + sum(more.values()) < 60 * MINUTES  # below the first, jobs were not seen

    results = project / "results" / "mine"
    assert check_report(results) == []
    judged = json.loads((results / "claims.json").read_text())
    assert judged["form"] == "extension" and len(judged["claims"]) == 12
    assert {claim["id"] for claim in judged["claims"] if claim["status"] == "not run"} == set()
    page = html.unescape((results / "report.html").read_text())
    assert "From 128 to 256 tokens: did it work?" in page and "<h1>folder from 128" in page
    snippet = re.search(r"<pre><code>(.*?)</code></pre>", page, re.DOTALL)
    assert snippet is not None
    text = 'print(model.generate(**tokenizer("import", return_tensors="pt"), max_new_tokens=3).shape)'
    loaded = run(project, sys.executable, "-c", f"{snippet[1]}\n{text}")
    assert loaded.returncode == 0 and "torch.Size" in loaded.stdout, loaded.stderr[-2000:]
