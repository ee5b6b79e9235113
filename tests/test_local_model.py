"""A model of the user's own folder, saved by stock transformers: adopted, and evaluated through the stages."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from yarnlab.families.parts import UnsupportedModel
from yarnlab.hub.errors import HubError
from yarnlab.plan import plan_study
from yarnlab.stages.data import fetch_asset, make_corpus
from yarnlab.stages.evaluate import evaluate
from yarnlab.stages.layout import Layout
from yarnlab.stages.models import make_model
from yarnlab.study.read import StudyError
from yarnlab.workflow import Workflow

STUDY = """\
study: mine
title: a model of a folder
seed: 3
replicates: 2
assets:
  mine: {{type: model, path: {path}}}
corpora:
  held: {{source: python-packages, packages: [accelerate], tokenizer: mine, min_tokens: 512, documents: 2}}
models:
  base:
    hub:
      asset: mine
      vocab_size: 512
      architecture:
        family: llama
        hidden_size: 32
        intermediate_size: 64
        num_hidden_layers: 2
        num_attention_heads: 2
        num_key_value_heads: 1
        head_dim: 16
        original_context: 64
        rope_theta: 10000.0
        tie_word_embeddings: true
        alpha: 0.5
        beta: 4
evaluations:
  zero_shot:
    corpus: held
    models: [base]
    precision: fp32
    threads: 1
    methods: [yarn, pi]
    scales: [4]
    max_length: 256
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_model, tiny_data: Path) -> Path:
    folder = tmp_path / "my-llama"
    tiny_model.save_pretrained(folder)
    for file in (tiny_data / "tokenizer").iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.fixture
def flow(tmp_path: Path, folder: Path):
    def load(**changes: str) -> Workflow:
        text = STUDY.format(path=folder)
        for old, new in changes.items():
            text = text.replace(old, new)
        (tmp_path / "mine.yaml").write_text(text)
        loaded = Workflow.load(str(tmp_path / "mine.yaml"), tmp_path)
        loaded.root = str(tmp_path / "results" / "mine")
        return loaded

    return load


def test_a_model_of_a_folder_is_evaluated_without_training(tmp_path, flow, folder, monkeypatch) -> None:
    """Its weights, the family's ramp, and text of its own tokenizer; the network is not asked."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    study, layout = flow(), Layout(tmp_path / "results" / "mine")
    fetch_asset(layout, "mine", study.section("asset", "mine"), "0", None)
    asset = json.loads((layout.asset("mine") / "manifest.json").read_text())
    assert asset["facts"]["content"] == asset["spec"]["content"]
    assert asset["outputs"]["assets/mine/model.safetensors"]["bytes"] == (folder / "model.safetensors").stat().st_size
    make_corpus(layout, "held", study.section("corpus", "held"), "0", None)
    make_model(layout, "base", study.section("train", "base"), "0", None, execution=[])
    evaluate("zero_shot", layout, "base", study.section("zero_shot", "base"), "0", None, threads=1)
    table = pd.read_parquet(layout.evaluation("zero_shot", "base"))
    assert set(table["seed"]) == {3} and set(table["method"]) == {"yarn", "pi"} and table["nll"].between(1, 12).all()
    assert plan_study(study.study).totals()["download"] == 0


def test_an_edited_folder_makes_the_asset_again(flow, folder) -> None:
    """Its content is part of the section, so Snakemake sees another one at the next start."""
    before = flow().section("asset", "mine")
    assert flow().section("asset", "mine") == before and len(before["content"]) == 64
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    assert flow().section("asset", "mine")["content"] != before["content"]


@pytest.mark.parametrize("known", [True, False])
def test_a_model_of_a_folder_is_compared_with_stock_transformers(tmp_path, flow, monkeypatch, known) -> None:
    """As a published one is: what a family does to its logits and is not known here keeps it from being adopted."""
    from yarnlab.families import logits

    if not known:
        monkeypatch.setattr(logits, "transform_of", lambda config: logits.LogitTransform(multiplier=0.5))
    study, layout = flow(), Layout(tmp_path / "results" / "mine")
    fetch_asset(layout, "mine", study.section("asset", "mine"), "0", None)
    with nullcontext() if known else pytest.raises(UnsupportedModel, match=r"stock transformers are .* apart"):
        make_model(layout, "base", study.section("train", "base"), "0", None, execution=[])
    assert (layout.model("base") / "model.safetensors").exists() == known


def test_a_folder_that_is_no_model_ends_the_start_with_one_message(flow, folder) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(HubError, match=r"^assets\.mine: .*my-llama lacks weights"):
        flow()


@pytest.mark.parametrize("other", ["path: x, repo: a/b, revision: main", "repo: a/b", "revision: main"])
def test_an_asset_has_one_source(flow, folder, other: str) -> None:
    with pytest.raises(StudyError, match=r"assets\.mine: an asset needs either `repo` and `revision`, or `path`"):
        flow(**{f"path: {folder}": other})


def test_a_model_reads_packages_of_its_own_tokenizer(flow) -> None:
    """The study needs no tokenizer of its own; text without an asset's would have none, another asset's is foreign."""
    assert flow().corpus_tokenizer(SimpleNamespace(corpus="held")).endswith("/assets/mine/manifest.json")
    with pytest.raises(StudyError, match=r"corpora\.held: needs the `tokenizer` of an asset, or the study's own"):
        flow(**{", tokenizer: mine": ""})
    with pytest.raises(StudyError, match=r"corpora\.held\.tokenizer: there is no asset 'nine'; did you mean 'mine'\?"):
        flow(**{"tokenizer: mine": "tokenizer: nine"})
    other = "assets:\n  other: {type: model, repo: a/b, revision: main}"
    with pytest.raises(StudyError, match=r"is tokenised by other, the model base reads ids of mine"):
        flow(**{"assets:": other, "tokenizer: mine": "tokenizer: other"})
