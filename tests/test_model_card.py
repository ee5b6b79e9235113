"""The card in a model's folder: method, scale, data, results, and how each reader serves it, or why it can't."""

from __future__ import annotations

import json

import pytest

from yarnlab.model_card import NO_RESULTS, served, write_card

SHAPE = {"family": "llama", "num_hidden_layers": 2, "original_context": 128}
PHASE = {"corpus": "books", "steps": 10, "global_batch": 4, "seq_len": 512, "lr": 3e-4}


def made(folder, name: str, parent: str | None, method: str, scale: float, *, asset=None, phases=()) -> None:
    rope = {"method": method, "scale": scale}
    spec = {"architecture": SHAPE, "rope": rope, "parent": parent, "asset": asset, "phases": list(phases), "seed": 7}
    datasets = [{"name": "books", "source": "books/*.txt", "digest": "ab" * 32}] if phases else []
    manifest = {"name": name, "study": "mine", "spec": spec, "datasets": datasets, "git": {"commit": "c" * 40}}
    config = {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "attention_factor": 1.138629}}
    target = folder / "models" / name
    target.mkdir(parents=True)
    (target / "manifest.json").write_text(json.dumps(manifest))
    (target / "config.json").write_text(json.dumps({**config, "rope_scaling": config["rope_parameters"]}))


@pytest.fixture
def study(tmp_path):
    (tmp_path / "assets" / "llama").mkdir(parents=True)
    origin = {"repo": "owner/Llama", "commit": "d" * 40}
    (tmp_path / "assets" / "llama" / "asset.json").write_text(json.dumps(origin))
    made(tmp_path, "base", None, "none", 1, asset="llama")
    made(tmp_path, "extended", "base", "yarn", 4, phases=[PHASE])
    return tmp_path


def test_it_says_what_the_model_is(study):
    text = write_card(study, "extended", ["| 512 | 9.876 | 20 |"]).read_text()
    assert text.startswith("---\nlibrary_name:") and 'base_model: "owner/Llama"' in text
    for part in (
        "RoPE method `yarn` at scale 4: 512 tokens of context from 128", "owner/Llama at dddddddddddd",
        "20,480 tokens of `books`: 10 steps of 4 × 512 tokens, learning rate 0.0003, seed 7", "books/*.txt",
        "| 512 | 9.876 | 20 |", "**transformers**", "vllm serve FOLDER --max-model-len 512",
        "llama-server -m model.gguf -c 512`", "factor on cos and sin 1.13863", "cccccccccccc",
    ):  # fmt: skip
        assert part in text, part
    assert NO_RESULTS in write_card(study, "extended").read_text()


def test_it_says_how_the_weights_were_given(study):
    (study / "assets" / "llama" / "asset.json").write_text(json.dumps({"wheel": "llm-llama==1.0"}))
    place = study / "models" / "base" / "manifest.json"
    facts = {"dequantised_from": "Q4_1, quantised once more to Q4_0"}
    place.write_text(json.dumps({**json.loads(place.read_text()), "facts": facts}))
    for name in ("base", "extended"):
        text = write_card(study, name).read_text()
        assert "the weights of llm-llama==1.0, dequantised from Q4_1, quantised once more to Q4_0, RoPE `none`" in text


def test_a_model_that_is_not_there_has_none(study):
    assert write_card(study, "absent") is None
    (study / "models" / "base" / "manifest.json").unlink()
    assert write_card(study, "extended") is None  # nor one whose parent is unknown


YARN = {"rope_type": "yarn", "factor": 4.0}


@pytest.mark.parametrize(
    ("family", "block", "reader", "word"),
    [
        ("llama", {"rope_type": "dynamic-yarn"}, 0, "refuses this folder"),
        ("llama", {"rope_type": "dynamic-yarn"}, 1, "says so"),
        ("llama", {"rope_type": "dynamic"}, 0, "longest input seen"),
        ("llama", {"rope_type": "dynamic"}, 1, "not beyond the original context"),
        ("llama", {"rope_type": "dynamic"}, 2, "not beyond the original context"),
        ("llama", {"rope_type": "longrope"}, 1, "short_mscale"),
        ("llama", {"rope_type": "longrope"}, 2, "Phi-3 alone"),
        (
            "phi3",
            {"rope_type": "longrope", "short_factor": [], "long_factor": [], "attention_factor": 9.0},
            0,
            "version 4 refuses",
        ),
        ("olmo2", YARN, 0, "version 4 refuses an OLMo 2"),
        ("olmo2", {"rope_type": "linear", "factor": 4.0}, 0, "in both forms"),
        ("llama", {**YARN, "attention_factor": 1.0}, 2, "rope.scaling.attn_factor=float:0.878"),
        ("llama", {**YARN, "attention_factor": 1.1386294361119891, "truncate": False}, 2, "not supported"),
        ("llama", {"rope_type": "linear", "factor": 4.0}, 2, "llama-server -m model.gguf -c 512`"),
    ],
)
def test_what_a_reader_can_not_do_is_said(family, block, reader, word):
    config = {"model_type": family, "rope_parameters": block, "rope_scaling": {"type": block["rope_type"], **block}}
    assert word in served(config, 512)[reader]
