"""Checkpoints that contradict themselves, or hold what would be passed over: refused by name, and nothing is written."""

from __future__ import annotations

import json
import re

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tiny import VOCABULARY

from yarnlab.checkpoints import adopt_published, check_trainable, link_weights
from yarnlab.errors import UserError
from yarnlab.families.logits import LogitTransform
from yarnlab.families.parity import check_parity
from yarnlab.families.survey import try_family
from yarnlab.modeling import load_model
from yarnlab.training.loss import linear_cross_entropy

LAYER = "model.layers.1.self_attn.k_proj.weight"
BIAS = "model.layers.0.self_attn.q_proj.bias"  # the config says attention_bias: false


@pytest.fixture
def asset(tmp_path):
    return tiny.publish(tmp_path / "asset", tiny.stock_config("llama"))


def adopt(asset, family: str = "llama", **options):
    shape = tiny.shape(tiny.stock_config(family))
    folder = asset.parent / "base"
    rope = tiny.rope(shape, "none")
    adopt_published(asset, shape, VOCABULARY, rope, folder, drop_sliding_window=False, **options)
    return load_model(folder, rope)


def refused(asset, word: str, family: str = "llama", **options) -> None:
    with pytest.raises(UserError, match=word) as caught:
        adopt(asset, family, **options)
    assert "\n" not in str(caught.value).strip()
    assert not (asset.parent / "base").exists()


def with_weights(asset, *, without: str = "", **extra: torch.Tensor):
    file = asset / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if name != without}
    save_file(tensors | extra, file, {"format": "pt"})


def with_config(asset, **keys):
    file = asset / "config.json"
    config = json.loads(file.read_text()) | keys
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


@pytest.mark.parametrize("name", ["lm_head.weight", LAYER])
def test_a_missing_weight_is_named(asset, name):
    with_weights(asset, without=name)
    refused(asset, name)


def test_a_weight_that_the_model_does_not_know_is_named(asset):
    with_weights(asset, **{BIAS: torch.ones(32)})
    refused(asset, BIAS)


def test_a_weight_of_another_shape_is_named(asset):
    with_weights(asset, without=LAYER, **{LAYER: torch.ones(16, 32)})
    refused(asset, f"{LAYER} of another shape")


def test_a_config_that_stock_transformers_can_not_compute(tmp_path):
    """Its class says nothing of how many experts a token is sent to, and only its forward pass asks."""
    settings = {**tiny.SUPPORTED["deepseek_v2"], "num_experts_per_tok": None}
    asset = tiny.publish(tmp_path / "asset", tiny.stock_config("deepseek_v2", settings))
    refused(asset, r"stock transformers can't compute .* \(modeling_deepseek_v2\.py:\d+, TypeError\)", "deepseek_v2")


def test_a_family_whose_own_code_stops_is_refused_in_words_of_ours(tmp_path):
    """DeepSeek 3.2 indexes a mask, of which there is none; what Python says of it helps nobody. A default config that
    makes no model is no verdict on published ones."""
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    fare = try_family("deepseek_v32", tmp_path / "a")
    assert re.search(r"stops in its own code \(modeling_deepseek_v32\.py:\d+, \w+Error\), which can't", fare.reason)
    fare = try_family("dots1", tmp_path / "b")
    assert re.search(r"no model of this family's default config \(modeling_dots1\.py:\d+, \w+Error\)", fare.reason)
    assert not fare.adopted and "positional argument" not in fare.reason


def test_tables_that_old_checkpoints_hold_are_harmless(asset):
    with_weights(asset, **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    adopt(asset)


def test_a_weight_that_goes_missing_later_is_named_on_loading(asset):
    adopt(asset)
    folder = asset.parent / "base"
    (folder / "model.safetensors").unlink()
    with_weights(asset, without=LAYER)
    (folder / "model.safetensors").symlink_to(asset / "model.safetensors")
    with pytest.raises(UserError, match=LAYER):
        load_model(folder, tiny.rope(tiny.shape(tiny.stock_config("llama")), "none"))


def test_a_head_of_its_own_beside_tied_embeddings(tmp_path):
    asset = tiny.publish(tmp_path / "asset", tiny.stock_config("qwen2"))
    embedding = load_file(asset / "model.safetensors")["model.embed_tokens.weight"]
    with_weights(asset, **{"lm_head.weight": embedding.clone()})
    adopt(asset, "qwen2")  # a copy of the embedding says nothing else
    asset = tiny.publish(tmp_path / "other" / "asset", tiny.stock_config("qwen2"))
    with_weights(asset, **{"lm_head.weight": embedding + 1})
    refused(asset, "tie_word_embeddings", "qwen2")


def test_files_that_are_cut_short_or_mixed(asset):
    file = asset / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    refused(asset, "model.safetensors is cut short")
    file.write_bytes(whole)
    save_file({LAYER: torch.ones(32, 32)}, asset / "model-00002-of-00002.safetensors")
    refused(asset, f"{LAYER} is in model")
    (asset / "model-00002-of-00002.safetensors").unlink()
    index = asset / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {LAYER: "model-00002-of-00002.safetensors"}}))
    refused(asset, "model-00002-of-00002.safetensors")
    for broken in ("{", "{}", '{"weight_map": [1]}'):
        index.write_text(broken)
        refused(asset, r"safetensors\.index\.json is no index of weights")
    index.unlink()
    file.rename(asset / "weights.safetensors")
    refused(asset, r"its weights are in weights\.safetensors, and there is neither model\.safetensors nor")


def test_two_ropes_in_one_config(asset):
    with_config(asset, rope_theta=10000.0)  # says the same twice, as servers need it
    adopt(asset)
    with_config(asset, rope_theta=5e5)
    with pytest.raises(UserError, match="rope_theta"):
        adopt(asset)
    with_config(asset, rope_theta=..., rope_scaling={"type": "linear", "factor": 4.0})
    with pytest.raises(UserError, match="rope_scaling"):
        adopt(asset)


def test_a_key_that_nobody_reads(asset):
    with_config(asset, secret_attention_scale=2.0, unused_switch=False)
    refused(asset, "secret_attention_scale")
    adopt(asset, ignored_config=("secret_attention_scale",))


@pytest.mark.parametrize(
    ("family", "key"),
    [("llama", "attention_dropout"), ("starcoder2", "residual_dropout"), ("starcoder2", "embedding_dropout")],
)
def test_dropout_is_named_or_set_to_none_at_all(family, key, tmp_path):
    settings = {"attention_dropout": 0.0, "residual_dropout": 0.0, "embedding_dropout": 0.0, key: 0.1}
    asset = tiny.publish(tmp_path / "asset", tiny.stock_config(family, {**tiny.SUPPORTED[family], **settings}))
    refused(asset, key, family)
    assert getattr(adopt(asset, family, ignored_config=(key,)).config, key) == 0.0


def test_experts_are_not_trained(tmp_path):
    asset = tiny.publish(tmp_path / "asset", tiny.stock_config("mixtral"))
    adopt(asset, "mixtral")
    with pytest.raises(UserError, match="router loss"):
        check_trainable(asset.parent / "base")


def test_parity_sees_what_lies_between_hidden_states_and_logits(monkeypatch):
    """The check can fail: with a scale that is not known here, the loss is off and the key is named."""
    config = tiny.stock_config("granite")
    rope = tiny.rope(tiny.shape(config), "none")
    found = check_parity(config, config, rope, where="here")
    assert len(found) == 5 and max(found.values()) < 1e-3
    monkeypatch.setattr("yarnlab.families.logits.transform_of", lambda config: LogitTransform())
    with pytest.raises(UserError, match=r"loss of an evaluation.*logits_scaling: 8.0"):
        check_parity(config, config, rope, where="here")


def test_parity_sees_another_order_of_pairs(monkeypatch):
    """And where the tables' columns are laid out as Llama's, although the family's are not."""
    from yarnlab.families.rotary import Form

    config = tiny.stock_config("cohere")
    rope = tiny.rope(tiny.shape(config), "none")
    monkeypatch.setattr("yarnlab.modeling.form_of", lambda module: Form())
    with pytest.raises(UserError, match="family cohere is not supported"):
        check_parity(config, config, rope, where="here")


@pytest.mark.parametrize("transform", [LogitTransform(), LogitTransform(0.25), LogitTransform(0.5, 2.0)])
@pytest.mark.parametrize("biased", [False, True])
def test_the_loss_in_chunks_has_autograds_gradients(transform, biased):
    generator = torch.Generator().manual_seed(0)
    hidden, head, bias = (torch.randn(n, generator=generator, requires_grad=True) for n in ((1500, 8), (20, 8), (20,)))
    targets = torch.randint(20, (1500,), generator=generator)
    weights = torch.rand(1500, generator=generator)
    given = bias if biased else None
    total, nll = linear_cross_entropy(
        hidden, head, targets, weights, dtype=torch.float32, bias=given, transform=transform
    )
    total.backward()
    found = [t.grad.clone() for t in (hidden, head, bias) if t.grad is not None]
    for tensor in (hidden, head, bias):
        tensor.grad = None
    expected = torch.nn.functional.cross_entropy(
        transform(torch.nn.functional.linear(hidden, head, given)), targets, reduction="none"
    )
    (expected * weights).sum().backward()
    torch.testing.assert_close(nll, expected.detach())
    wanted = [t.grad for t in (hidden, head, bias) if t.grad is not None]
    assert len(found) == len(wanted) == 2 + biased
    for ours, autograds in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, autograds, rtol=1e-4, atol=1e-4)


def parent(root, block: dict, longest: int):
    asset = tiny.publish(root / "asset", tiny.stock_config("llama"))
    with_config(asset, rope_parameters=..., rope_theta=10000.0, rope_scaling=block, max_position_embeddings=longest)
    return asset


def test_a_llama3_parent_is_adopted_and_extended(tmp_path):
    block = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    asset, shape = parent(tmp_path, block, 1024), tiny.shape(tiny.stock_config("llama"))
    refused(asset, "llama3")
    rope, yarn = tiny.rope(shape, "llama3", 8), tiny.rope(shape, "yarn", 32)
    adopt_published(asset, shape, VOCABULARY, rope, tmp_path / "base", drop_sliding_window=False)
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    assert config["max_position_embeddings"] == 1024  # the parent's own window, 16 × 64
    as_stock(asset, tmp_path / "base", rope, 128)
    link_weights(tmp_path / "base", yarn, tmp_path / "yarn")
    as_stock(tmp_path / "yarn", tmp_path / "yarn", yarn, 200)


@pytest.mark.parametrize("length", [50, 200])
def test_a_longrope_parent_is_adopted_and_extended(length, tmp_path):
    block = {
        "rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 1.5, 2.0, 4.0],
        "original_max_position_embeddings": 64, "factor": 4.0,
    }  # fmt: skip
    asset, shape = parent(tmp_path, block, 256), tiny.shape(tiny.stock_config("llama"))
    factors = {key: block[key] for key in ("short_factor", "long_factor")}
    wrong = tiny.rope(shape, "longrope", 4, **factors | {"long_factor": [1.0, 1.5, 2.0, 5.0]})
    with pytest.raises(UserError, match="longrope"):
        adopt_published(asset, shape, VOCABULARY, wrong, tmp_path / "base", drop_sliding_window=False)
    rope, yarn = tiny.rope(shape, "longrope", 4, **factors), tiny.rope(shape, "yarn", 16)
    adopt_published(asset, shape, VOCABULARY, rope, tmp_path / "base", drop_sliding_window=False)
    as_stock(asset, tmp_path / "base", rope, length)
    link_weights(tmp_path / "base", yarn, tmp_path / "yarn")
    as_stock(tmp_path / "yarn", tmp_path / "yarn", yarn, length)


def as_stock(stock, folder, rope, length: int) -> None:
    from yarnlab.evaluation.nll import token_nll

    expected, _ = tiny.stock_nll(stock, length)
    got = token_nll(load_model(folder, rope), tiny.ids_of(length).numpy())
    assert torch.allclose(torch.from_numpy(got)[0], expected, atol=tiny.TOLERANCE)


@pytest.mark.parametrize("longest", [64, 256])
def test_a_yarn_parent_is_adopted_as_it_is_and_extended_further(longest, tmp_path):
    """`max_position_embeddings` is L (model cards tell to add the block only) or 4·L (as converters write it)."""
    block = {"factor": 4.0, "original_max_position_embeddings": 64, "type": "yarn"}
    asset, shape = parent(tmp_path, block, longest), tiny.shape(tiny.stock_config("llama"))
    refused(asset, "yarn")  # declared as plain
    rope, further = tiny.rope(shape, "yarn", 4), tiny.rope(shape, "yarn", 8)
    adopt_published(asset, shape, VOCABULARY, rope, tmp_path / "base", drop_sliding_window=False)
    as_stock(asset, tmp_path / "base", rope, 256)
    link_weights(tmp_path / "base", further, tmp_path / "further")
    config = json.loads((tmp_path / "further" / "config.json").read_text())
    assert config["max_position_embeddings"] == 512 and config["rope_parameters"]["factor"] == 8.0
    as_stock(tmp_path / "further", tmp_path / "further", further, 512)


@pytest.mark.parametrize("mscale", [1.0, 0.707])
def test_a_latent_parents_softmax_scale_stays(mscale, tmp_path):
    """DeepSeek's YaRN factor is in its softmax scale, (0.1·mscale_all_dim·ln s + 1)²/√d, none on cos and sin; in both
    forms of the config that is written, and with the child's own s in a child's."""
    import math

    from transformers import AutoModelForCausalLM

    block = {
        "type": "yarn", "factor": 40.0, "original_max_position_embeddings": tiny.CONTEXT, "mscale": mscale,
        "mscale_all_dim": mscale, "beta_fast": 32.0, "beta_slow": 1.0,
    }  # fmt: skip
    settings = {
        **tiny.LATENT,
        "max_position_embeddings": 40 * tiny.CONTEXT,
        "rope_parameters": {**tiny.PLAIN, **block, "rope_type": "yarn"},
    }
    config = tiny.stock_config("deepseek_v3", settings)
    asset, shape = tiny.publish(tmp_path / "asset", config), tiny.shape(config)
    written = json.loads((asset / "config.json").read_text())
    del written["rope_parameters"]
    (asset / "config.json").write_text(json.dumps({**written, "rope_theta": 10000.0, "rope_scaling": block}))
    rope = tiny.rope(shape, "yarn", 40, temperature={"factor": 1.0})
    adopt_published(asset, shape, VOCABULARY, rope, tmp_path / "base", drop_sliding_window=False)
    further = tiny.rope(shape, "yarn", 80, temperature={"factor": 1.0})
    link_weights(tmp_path / "base", further, tmp_path / "further")
    for name, own in (("base", rope), ("further", further)):
        exported = json.loads((tmp_path / name / "config.json").read_text())
        for form in (exported["rope_parameters"], exported["rope_scaling"]):
            assert (form["mscale_all_dim"], form["attention_factor"]) == (mscale, 1.0) and "attn_factor" not in form
        right = (0.1 * mscale * math.log(own.scale) + 1) ** 2 / math.sqrt(16)
        for model in (load_model(tmp_path / name, own), AutoModelForCausalLM.from_pretrained(tmp_path / name)):
            assert model.model.layers[0].self_attn.scaling == pytest.approx(right)
    as_stock(asset, tmp_path / "base", rope, tiny.CONTEXT)


def test_a_refused_config_is_one_line_of_the_command(tmp_path):
    """The `train` verb in a process of its own, on a config that no class understands."""
    import subprocess
    import sys

    root = tmp_path / "results" / "demo"
    config = tiny.stock_config("llama")
    asset, shape = tiny.publish(root / "assets" / "base", config), tiny.shape(config)
    written = json.loads((asset / "config.json").read_text())
    del written["rope_parameters"]
    block = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": tiny.CONTEXT, "surprise": 2}
    (asset / "config.json").write_text(json.dumps({**written, "rope_scaling": block}))
    (asset / "manifest.json").write_text(json.dumps({"outputs": {}, "spec": {}, "facts": {}}))
    spec = {
        "model": "base", "arm": "base", "seed": 0, "architecture": shape.model_dump(), "kind": "hub", "parent": None,
        "rope": {"method": "none", "scale": 1.0}, "asset": "base", "drop_sliding_window": False, "depth": 0,
        "initialisation": None, "vocab_size": VOCABULARY, "phases": [],
    }  # fmt: skip
    command = [sys.executable, "-m", "yarnlab", "train", "base", "--study-dir", str(root), "--spec", json.dumps(spec)]
    command += ["--code", "test", "--execution", json.dumps({"execution": []})]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "`rope_scaling.surprise` is not known for type yarn" in done.stderr
    assert "Traceback" not in done.stderr and not (root / "models" / "base").exists()
