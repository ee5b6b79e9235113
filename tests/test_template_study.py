"""config/studies/template.yaml with tiny models of several architectures: extended, evaluated, and stock checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from standin.shrink import SHAPE as SMALL

from yarnlab.study.read import read_study

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow

SHAPE = {**SMALL, "original_context": 64, "rope_theta": 1e4, "tie_word_embeddings": False}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 2, "rope_theta": 1e6},
    "qwen2": {"num_key_value_heads": 2, "rope_theta": 1e6, "tie_word_embeddings": True},
    "qwen3": {"num_key_value_heads": 1, "rope_theta": 5e5, "head_dim": 16, "tie_word_embeddings": True},
}


def study() -> dict[str, Any]:
    """The template with four bases instead of one, at sizes that two cores run in a minute."""
    template = read_study(ROOT / "config/studies/template.yaml")[0]
    base, extended = template["models"]["base"], template["models"]["extended"]
    train = {"steps": 4, "seq_len": 128, "global_batch": 4, "warmup_steps": 1, "precision": "fp32", "lr": 1e-3}
    train = {**extended["train"], **train, "parallel": {**extended["train"]["parallel"], "threads": 1}}
    models = {}
    for family, shape in FAMILIES.items():
        architecture = {**base["hub"]["architecture"], **SHAPE, **shape, "family": family}
        models[family] = {
            "hub": {"asset": family, "tokenizer": "llama", "vocab_size": 512, "architecture": architecture}
        }
        models[f"{family}-extended"] = {**extended, "from": family, "train": train}
    corpora = template["corpora"]
    corpora["train"] |= {"tokenizer": "llama", "blocks": {"length": 128, "bookends": "document"}, "max_tokens": 20_000}
    corpora["held-out"] |= {"tokenizer": "llama", "min_tokens": 512, "documents": 2}
    perplexity = {**template["evaluations"]["perplexity"], "lengths": {"start": 64, "stop": 512, "step": 64}}
    perplexity |= {"models": list(models), "precision": "fp32", "threads": 1}
    assets = {family: {"type": "model", "repo": f"owner/{family}", "revision": "main"} for family in FAMILIES}
    assets["pg19"] = template["assets"]["pg19"]
    return template | {"assets": assets, "models": models, "evaluations": {"perplexity": perplexity}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The results folder of the whole study."""
    from hub.mini_hub import MiniHub
    from standin.repositories import build

    folder, chosen = tmp_path_factory.mktemp("template"), study()
    (folder / "template.yaml").write_text(json.dumps(chosen))
    build(folder / "hub", chosen)
    with MiniHub(folder / "hub") as hub:
        environment = {**os.environ, **hub.env(folder / "home"), "YARNLAB_HUB_LOCK": str(folder / "hub.lock.yaml")}
        environment = {key: value for key, value in environment.items() if "OFFLINE" not in key}
        command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "2"]
        done = subprocess.run(
            [*command, "--config", f"study={folder / 'template.yaml'}"],
            capture_output=True, text=True, cwd=ROOT, env=environment, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-4000:]
    return folder / "results" / "template"


def test_every_architecture_is_trained_and_evaluated(finished):
    for family in FAMILIES:
        steps = (finished / "training" / f"{family}-extended.jsonl").read_text().splitlines()
        assert len(steps) == 4
        assert (finished / "evaluations/perplexity" / f"{family}-extended.parquet").is_file()
    assert (finished / "report.html").is_file()


def test_stock_transformers_gives_the_same_logits_in_a_fresh_process(finished, tmp_path):
    import torch

    from yarnlab.modeling import load_model, rope_of

    folders = [finished / "models" / f"{family}-extended" for family in FAMILIES]
    program = (
        "import sys, torch; from transformers import AutoModelForCausalLM as M\n"
        "for folder, out in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    m = M.from_pretrained(folder, dtype=torch.float32).eval()\n"
        "    torch.save(m(torch.arange(3, 203)[None]).logits.detach(), out)"
    )
    arguments = [str(path) for folder in folders for path in (folder, tmp_path / folder.name)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    for folder in folders:
        ours = load_model(folder, rope_of(json.loads((folder / "manifest.json").read_text())["spec"]))
        with torch.no_grad():
            logits = ours(torch.arange(3, 203)[None]).logits
        stock = torch.load(tmp_path / folder.name, weights_only=True)
        assert torch.allclose(logits, stock, atol=1e-5), folder.name
