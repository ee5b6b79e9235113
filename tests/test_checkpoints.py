"""Published checkpoints of other architectures: taken over, extended, and loaded by stock transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from yarnlab.checkpoints import ArchitectureMismatch, adopt_published, link_weights
from yarnlab.modeling import RopeMismatch, load_model
from yarnlab.rope import make_rope
from yarnlab.study.schema import Architecture

CONTEXT, VOCABULARY = 64, 96
# family → what differs from a plain Llama: grouped queries, tied embeddings, another rope base, a window.
FAMILIES = {
    "llama": {},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 32},
    "qwen2": {"num_key_value_heads": 2, "tie_word_embeddings": True, "rope_theta": 1e6},
    "qwen3": {"num_key_value_heads": 1, "tie_word_embeddings": True, "rope_theta": 5e5},
}


def shape(family: str) -> Architecture:
    changes = {key: value for key, value in FAMILIES[family].items() if key != "sliding_window"}
    return Architecture(
        **{
            "family": family,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "original_context": CONTEXT,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            **changes,
        }
    )


def publish(folder: Path, family: str, **more) -> Path:
    """What the hub would serve: weights, and a config.json with the keys of its time."""
    from transformers import AutoConfig, AutoModelForCausalLM

    declared = shape(family)
    keys = declared.model_dump(exclude={"family", "original_context", "alpha", "beta", "partial_rotary_factor"})
    config = {**keys, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, **FAMILIES[family], **more}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # sharper than at initialisation, so that differences show
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": family, "torch_dtype": "float32", **config}))
    return folder


def rope_for(family: str, method: str, scale: float):
    declared = shape(family)
    return make_rope(
        method, scale=scale, original_context=CONTEXT, head_dim=declared.head_dim, base=declared.rope_theta
    )


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> dict[str, Path]:
    """Each family's checkpoint, adopted and given YaRN at s = 4."""
    made = {}
    for family in FAMILIES:
        root = tmp_path_factory.mktemp(family)
        publish(root / "asset", family)
        adopt_published(
            root / "asset", shape(family), VOCABULARY, rope_for(family, "none", 1), root / "base",
            drop_sliding_window=family == "mistral",
        )  # fmt: skip
        link_weights(root / "base", rope_for(family, "yarn", 4), root / "yarn")
        made[family] = root / "yarn"
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_linked_and_the_config_is_stock(extended, family):
    folder = extended[family]
    source = folder.parent / "asset" / "model.safetensors"
    assert (folder / "model.safetensors").stat().st_ino == source.stat().st_ino
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_parameters"]["rope_type"] == "yarn"
    assert config["rope_parameters"]["original_max_position_embeddings"] == CONTEXT
    assert config["max_position_embeddings"] == 4 * CONTEXT
    assert config.get("sliding_window") is None


@pytest.mark.slow
def test_stock_transformers_gets_the_same_logits_in_a_fresh_process(extended, tmp_path):
    program = (
        "import sys, torch; from transformers import AutoModelForCausalLM as M\n"
        "for folder, out in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    m = M.from_pretrained(folder, dtype=torch.float32).eval()\n"
        "    torch.save(m(torch.arange(200)[None] % 96).logits.detach(), out)"
    )
    arguments = [str(part) for family, folder in extended.items() for part in (folder, tmp_path / family)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    for family, folder in extended.items():
        ours = load_model(folder, rope_for(family, "yarn", 4))
        with torch.no_grad():
            logits = ours(torch.arange(200)[None] % 96).logits
        stock = torch.load(tmp_path / family, weights_only=True)
        assert torch.allclose(logits, stock, atol=1e-5), (family, (logits - stock).abs().max())


def test_what_a_killed_conversion_left_is_no_part_of_a_checkpoint(tmp_path):
    asset = publish(tmp_path / "asset", "llama")
    (asset / ".model-00001-of-00002.safetensors.ab12cd.safetensors").write_bytes(b"half of it")
    made = adopt_published(
        asset, shape("llama"), VOCABULARY, rope_for("llama", "none", 1), tmp_path / "m", drop_sliding_window=False
    )
    assert [path.name for path in made if path.suffix == ".safetensors"] == ["model.safetensors"]


def test_a_checkpoint_that_is_not_what_the_study_says_is_refused(tmp_path):
    asset = publish(tmp_path / "asset", "llama")
    declared = shape("llama").model_copy(update={"num_key_value_heads": 2, "rope_theta": 5e5})
    with pytest.raises(ArchitectureMismatch) as caught:
        adopt_published(
            asset, declared, VOCABULARY, rope_for("llama", "none", 1), tmp_path / "m", drop_sliding_window=False
        )
    assert "num_key_value_heads is 4, the study says 2" in str(caught.value)
    assert "rope_theta is 10000.0, the study says 500000.0" in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_a_published_rope_other_than_the_declared_one_is_refused(tmp_path):
    asset = publish(tmp_path / "asset", "llama", rope_scaling={"type": "linear", "factor": 8.0})
    rope = rope_for("llama", "none", 1)
    with pytest.raises(RopeMismatch):
        adopt_published(asset, shape("llama"), VOCABULARY, rope, tmp_path / "m", drop_sliding_window=False)
    rope = rope_for("llama", "pi", 8)
    adopt_published(asset, shape("llama"), VOCABULARY, rope, tmp_path / "m", drop_sliding_window=False)
    load_model(tmp_path / "m", rope)
