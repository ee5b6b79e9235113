"""A model in a GGUF file, through the stages: asset, model, evaluation; every method's NLL is stock transformers'."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hub.test_gguf import CONTEXT, DIM, HEADS, KV, LAYERS, MLP, WIDTH, WORDS, write_gguf

from yarnlab.stages.data import fetch_asset, make_corpus
from yarnlab.stages.evaluate import evaluate
from yarnlab.stages.layout import Layout
from yarnlab.stages.models import make_model
from yarnlab.workflow import Workflow

METHODS = ("none", "pi", "ntk-aware", "ntk-by-parts", "temperature", "yarn")
LENGTH = 2048
STUDY = """\
study: chat
title: a chat model in a GGUF file
seed: 3
assets:
  chat: {{type: model, path: {path}, quantisation: Q4_1, bos: "<|endoftext|>", eos: "<|endoftext|>"}}
corpora:
  held: {{source: python-packages, packages: [rich], tokenizer: chat, min_tokens: {length}, documents: 2}}
models:
  base:
    hub:
      asset: chat
      vocab_size: {words}
      architecture:
        family: llama
        hidden_size: {width}
        intermediate_size: {mlp}
        num_hidden_layers: {layers}
        num_attention_heads: {heads}
        num_key_value_heads: {kv}
        head_dim: {dim}
        original_context: {context}
        rope_theta: 10000.0
        alpha: 0.5
        beta: 4
        tie_word_embeddings: true
evaluations:
  zero_shot:
    corpus: held
    models: [base]
    methods: [{methods}]
    scales: [32]
    max_length: {length}
    lengths: [100, 1500]
    precision: fp32
    threads: 1
"""
SHAPE = {"words": len(WORDS), "width": WIDTH, "mlp": MLP, "layers": LAYERS, "heads": HEADS, "kv": KV, "dim": DIM}


@pytest.fixture
def flow(tmp_path: Path) -> Workflow:
    file = write_gguf(tmp_path / "chat.gguf")
    text = STUDY.format(path=file, length=LENGTH, context=CONTEXT, methods=", ".join(METHODS), **SHAPE)
    (tmp_path / "chat.yaml").write_text(text)
    flow = Workflow.load(str(tmp_path / "chat.yaml"), tmp_path)
    flow.root = str(tmp_path / "results" / "chat")
    return Workflow(flow.study, str(tmp_path / "results"))


def test_every_method_gives_stock_transformers_losses(flow: Workflow, tmp_path: Path) -> None:
    """From the GGUF file to the table, against the same file under stock transformers with the method's tables.

    Equal to 1e-3 nats over one document in fp32; the further lengths come from the same pass.
    """
    layout = Layout(tmp_path / "results" / "chat")
    fetch_asset(layout, "chat", flow.section("asset", "chat"), "0", None)
    manifest = json.loads((layout.asset("chat") / "manifest.json").read_text())
    assert manifest["facts"]["conversions"][0]["quantisation"] == "Q4_1"
    make_corpus(layout, "held", flow.section("corpus", "held"), "0", None)
    make_model(layout, "base", flow.section("train", "base"), "0", None, execution=[])
    assert json.loads((layout.model("base") / "manifest.json").read_text())["facts"]["dequantised_from"] == "Q4_1"
    evaluate("zero_shot", layout, "base", flow.section("zero_shot", "base"), "0", None, threads=1)
    table = pd.read_parquet(layout.root / "evaluations" / "zero_shot" / "base.parquet")
    assert sorted(table["length"].unique()) == [64, 100, 128, 256, 512, 1024, 1500, 2048]

    from yarnlab.corpus.tokens import TokenisedCorpus

    corpus = TokenisedCorpus.open(layout.corpus("held"))
    assert corpus.bos == 0 and corpus.document(0)[0] == 0  # not the chat's
    ids = torch.from_numpy(corpus.document(0)[:LENGTH].astype(np.int64))[None]
    means = set()
    for method in METHODS:
        losses = stock_nll(tmp_path, flow.study.architecture("base").head.make_rope(method, 32.0), ids)
        own = table[(table["method"] == method) & (table["document"] == corpus.names[0])].set_index("length")["nll"]
        for length in (100, 1024, 1500, LENGTH):
            assert own[length] == pytest.approx(losses[: length - 1].mean(), abs=1e-3), (method, length)
        means.add(round(float(own[LENGTH]), 4))
    assert len(means) == len(METHODS)  # the comparison tells methods apart


def stock_nll(folder: Path, rope, ids: torch.Tensor) -> np.ndarray:
    """NLL of ids[0, 1:] by stock transformers, which reads the rope from its config or, without a form there, a base."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, gguf_file="chat.gguf")
    config.rope_parameters = rope.to_hf()
    config.max_position_embeddings = rope.context
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file="chat.gguf", config=config, dtype=torch.float32)
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        logits = model.eval()(ids).logits[0, :-1].double()
    return torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").numpy()


def test_a_control_from_the_file_to_the_verdict(tmp_path: Path) -> None:
    """The same file quantised once more: its own weights, manifest and losses, one table, one claim, the head's words."""
    from yarnlab.provenance import write_json
    from yarnlab.results.analyse import analyse
    from yarnlab.results.origin import origin
    from yarnlab.results.registry import tables
    from yarnlab.results.results import load
    from yarnlab.study.summary import summarise

    file = write_gguf(tmp_path / "chat.gguf")
    study = yaml.safe_load(STUDY.format(path=file, length=128, context=CONTEXT, methods="yarn, ntk-by-parts", **SHAPE))
    study["assets"]["again"] = study["assets"]["chat"] | {"requantise": "Q4_0"}
    hub = study["models"]["base"]["hub"] | {"asset": "again", "tokenizer": "chat"}
    study["models"]["again"] = {"control_of": "base", "hub": hub}
    study["corpora"]["held"]["documents"] = 4
    study["claims"] = {"form": "scale-free", "ablation": "base"}
    study["evaluations"]["zero_shot"] |= {"models": ["base", "again"], "scales": [2], "lengths": [100]}
    (tmp_path / "chat.yaml").write_text(json.dumps(study))
    flow = Workflow.load(str(tmp_path / "chat.yaml"), str(tmp_path / "results"))
    layout = Layout(tmp_path / "results" / "chat")
    for name in ("chat", "again"):
        fetch_asset(layout, name, flow.section("asset", name), "0", None)
    make_corpus(layout, "held", flow.section("corpus", "held"), "0", None)
    for name in ("base", "again"):
        make_model(layout, name, flow.section("train", name), "0", None, execution=[])
        evaluate("zero_shot", layout, name, flow.section("zero_shot", name), "0", None, threads=1)
    write_json(layout.root / "study.json", summarise(flow.study))

    results = load(layout.root)
    assert "requantised" in flow.tables()
    frame, (shown,) = tables()["requantised"].build(results)
    assert list(frame[["arm", "control", "method"]].itertuples(index=False, name=None)) == [
        ("base", "again", "ntk-by-parts")
    ]
    assert frame["gap"].item() != frame["again"].item() and len(shown.frame) == 1
    analyse(layout.root, command="")  # figures that show each root by itself too
    assert (layout.root / "figures" / "zero_shot.svg").is_file()
    assert "training" not in flow.tables() and not (layout.root / "tables" / "training.csv").exists()  # none is planned
    assert results.missing(("training",)) == "this study trains no model"
    claims = json.loads((layout.root / "claims.json").read_text())
    (claim,) = [each for each in claims["claims"] if each["id"] == "untrained-requantised"]
    assert claim["status"] in ("holds", "fails", "undecided") and claim["interval"][1] >= abs(frame["move"].item())
    assert claim["sources"] == ["evaluations/zero_shot/base.manifest.json", "evaluations/zero_shot/again.manifest.json"]
    head = origin(results)
    assert head is not None and head.quantised == "again from Q4_1, quantised once more to Q4_0; base from Q4_1"
    card = (layout.model("again") / "README.md").read_text()
    assert f"the weights of {file}, dequantised from Q4_1, quantised once more to Q4_0" in card
