"""A family computes here what stock transformers computes, adopted and extended, or is refused in one line."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from tiny import CONTEXT, REFUSED, SUPPORTED, TOLERANCE, VOCABULARY

from yarnlab.checkpoints import adopt_published, link_weights
from yarnlab.errors import UserError
from yarnlab.evaluation.last_tokens import last_logits
from yarnlab.evaluation.nll import token_nll
from yarnlab.modeling import check_active_rope, load_model, use_fast_attention
from yarnlab.training.objective import Objective

SOME = ("granite", "cohere", "gemma3_text", "glm4", "phi3 partial")  # the others are slow tests


def as_of_transformers_4(folder):
    """The same config with the keys that most files on the hub still have; None where they can't say it."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    rope = config.pop("rope_parameters", {}) or {}
    if rope.get("rope_type") != "default" or config["model_type"] == "gpt_oss":  # which is YaRN where nothing is said
        return None
    config["rope_theta"] = rope["rope_theta"]
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope["partial_rotary_factor"]
    config["torch_dtype"] = config.pop("dtype", "float32")
    file.write_text(json.dumps(config))
    return folder


def far(ours: torch.Tensor, stock: torch.Tensor) -> float:
    return float((ours.detach().float() - stock).abs().max())


def compare(name: str, root, form: str) -> dict[str, float]:
    config = tiny.stock_config(name)
    asset = tiny.publish(root / "asset", config)
    if form == "v4" and as_of_transformers_4(asset) is None:
        pytest.skip("no such form")
    shape = tiny.shape(config)
    plain, yarn = tiny.rope(shape, "none"), tiny.rope(shape, "yarn", 4)
    if name == "ministral3":  # mscale = mscale_all_dim: no factor on cos and sin
        plain = tiny.rope(shape, "yarn", 4, temperature={"factor": 1.0})
    expected, expected_last = tiny.stock_nll(asset, CONTEXT)
    adopt_published(asset, shape, VOCABULARY, plain, root / "base", drop_sliding_window=False)
    model, ids = load_model(root / "base", plain), tiny.ids_of(CONTEXT)
    use_fast_attention(model)
    check_active_rope(model, plain, CONTEXT, where="test")
    found = {"evaluation": far(torch.from_numpy(token_nll(model, ids.numpy()))[0], expected)}
    found["last tokens"] = far(last_logits(model, ids, 4)[0], expected_last)
    _, nll = Objective(model, "fp32", "torch")(ids[:, :-1], ids[:, 1:], torch.ones(1, CONTEXT - 1))
    found["training"] = far(nll.flatten(), expected)
    link_weights(root / "base", yarn, root / "yarn")
    model = load_model(root / "yarn", yarn)
    use_fast_attention(model)
    extended, _ = tiny.stock_nll(root / "yarn", 3 * CONTEXT)
    found["extended"] = far(torch.from_numpy(token_nll(model, tiny.ids_of(3 * CONTEXT).numpy()))[0], extended)
    return found


@pytest.mark.parametrize("name", SOME)
def test_some_families_compute_as_stock(name, tmp_path):
    found = compare(name, tmp_path, "v5")
    assert max(found.values()) < TOLERANCE, found


@pytest.mark.slow
@pytest.mark.parametrize("form", ["v5", "v4"])
@pytest.mark.parametrize("name", SUPPORTED)
def test_every_family_computes_as_stock(name, form, tmp_path):
    found = compare(name, tmp_path, form)
    assert max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_in_one_line(name, tmp_path):
    settings, word = REFUSED[name]
    from transformers import AutoConfig

    asset = tiny.publish(tmp_path / "asset", AutoConfig.for_model(name, vocab_size=VOCABULARY, **settings))
    shape = tiny.shape(tiny.stock_config("llama")).model_copy(update={"family": name})
    with pytest.raises(UserError, match=word) as caught:
        adopt_published(asset, shape, VOCABULARY, tiny.rope(shape, "none"), tmp_path / "m", drop_sliding_window=False)
    assert "\n" not in str(caught.value) and not (tmp_path / "m").exists()


def test_what_a_family_does_unless_told_is_not_taken_for_plain(tmp_path):
    """gpt-oss has YaRN where config.json is silent; declared as plain it is refused."""
    settings = {key: value for key, value in SUPPORTED["gpt_oss"].items() if key != "rope_parameters"}
    config = tiny.stock_config("gpt_oss", settings)
    asset, shape = tiny.publish(tmp_path / "asset", config), tiny.shape(config)
    file = asset / "config.json"
    old = json.loads(file.read_text())
    old["rope_theta"] = old.pop("rope_parameters")["rope_theta"]
    file.write_text(json.dumps(old))
    with pytest.raises(UserError, match="yarn"):
        adopt_published(asset, shape, VOCABULARY, tiny.rope(shape, "none"), tmp_path / "m", drop_sliding_window=False)


@pytest.mark.parametrize("mscale", [1.0, 0.707])
def test_the_softmax_scale_of_latent_attention_follows_the_factor(mscale, tmp_path):
    """DeepSeek's YaRN has its temperature in the softmax scale: (0.1·mscale_all_dim·ln s + 1)² on 1/√d."""
    import math

    block = {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": CONTEXT,
        "mscale": mscale, "mscale_all_dim": mscale, "beta_fast": 32.0, "beta_slow": 1.0,
    }  # fmt: skip
    longer = {"max_position_embeddings": 8 * CONTEXT, "rope_parameters": block}
    config = tiny.stock_config("deepseek_v3", {**tiny.LATENT, **longer})
    asset, shape = tiny.publish(tmp_path / "asset", config), tiny.shape(config)
    cold = {"temperature": {"factor": 1.0}}
    rope, further = (tiny.rope(shape, "yarn", scale, **cold) for scale in (8, 16))
    adopt_published(asset, shape, VOCABULARY, rope, tmp_path / "base", drop_sliding_window=False)
    link_weights(tmp_path / "base", further, tmp_path / "further")
    for folder, declared in ((tmp_path / "base", rope), (tmp_path / "further", further)):
        model = load_model(folder, declared)
        right = (0.1 * mscale * math.log(declared.scale) + 1) ** 2 / math.sqrt(16)
        assert model.model.layers[0].self_attn.scaling == pytest.approx(right)
    with pytest.raises(UserError, match="mscale_all_dim"):  # an evaluation that would only exchange tables
        from yarnlab.modeling import set_rope

        set_rope(model, rope)


@pytest.mark.parametrize("form", ["v5", "v4"])
@pytest.mark.parametrize("family", ["olmo3", "gemma3_text"])
def test_yarn_is_put_on_full_attention_alone(family, form, tmp_path):
    config = tiny.stock_config(family)
    asset, shape = tiny.publish(tmp_path / "asset", config), tiny.shape(config)
    if form == "v4":  # as the hub has them: one base, and for Gemma a second one for the sliding layers
        file = asset / "config.json"
        old = json.loads(file.read_text())
        old.pop("rope_parameters")
        old |= {"rope_theta": 5e5} if family == "olmo3" else {"rope_theta": 1e6, "rope_local_base_freq": 10000.0}
        file.write_text(json.dumps(old))
        shape = shape.model_copy(update={"rope_theta": old["rope_theta"]})
    adopt_published(asset, shape, VOCABULARY, tiny.rope(shape, "none"), tmp_path / "base", drop_sliding_window=False)
    link_weights(tmp_path / "base", tiny.rope(shape, "yarn", 4), tmp_path / "yarn")
    before, after = (
        json.loads((tmp_path / m / "config.json").read_text())["rope_parameters"] for m in ("base", "yarn")
    )
    assert after["sliding_attention"] == before["sliding_attention"]
    assert after["full_attention"]["rope_type"] == "yarn" and after["full_attention"]["factor"] == 4.0
